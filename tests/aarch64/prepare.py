"""Make a folder in which an arm64 Python with numpy and ONNX Runtime runs on this machine.

    python tests/aarch64/prepare.py FOLDER

needs Debian or a relative of it (apt-get, dpkg-deb), about 700 MB of disk and the network; no
root, and nothing is installed on this machine. Debian's `qemu-user-static`, its Python 3.11 for
arm64 with all that this depends on, and the aarch64 wheels of PyPI go into FOLDER. Then

    EDGEBM_AARCH64=FOLDER python -m pytest -m aarch64 tests/aarch64
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PYTHON = "python3.11"
PACKAGES = (PYTHON, "libstdc++6")
WHEELS = ("numpy", "onnxruntime", "click")
# The newest first; wheels of any of them run on Debian 12.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
STARTER = "python"
EMULATOR = "qemu/usr/bin/qemu-aarch64-static"
# What a Raspberry Pi 5 has. ONNX Runtime dies on the text of another architecture's cpuinfo.
CPU = "cortex-a76"
CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where all of it goes")
    folder: Path = parser.parse_args(arguments).folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    fetch_emulator(folder)
    fetch_debian(folder)
    fetch_wheels(folder)
    describe_cpu(folder)
    write_starter(folder)
    ready = "import platform; print(platform.machine(), 'is ready')"
    print(run([str(folder / STARTER), "-c", ready], variables=environment(folder)))
    return 0


def write_starter(folder: Path) -> None:
    """A program that starts the arm64 Python, which takes it for itself and can start it again."""
    root, starter = folder / "root", folder / STARTER
    libraries = f"LD_LIBRARY_PATH={root}/usr/lib/aarch64-linux-gnu:{root}/lib/aarch64-linux-gnu"
    emulator = [folder / EMULATOR, "-cpu", CPU, "-L", root, "-E", libraries, "-0", starter]
    words = [shlex.quote(str(each)) for each in (*emulator, root / "usr/bin" / PYTHON)]
    starter.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
    starter.chmod(0o755)


def environment(folder: Path, *paths: Path) -> dict[str, str]:
    """Variables for the arm64 Python: what it imports, and nothing of this machine's own."""
    searched = ":".join(map(str, (folder / "wheels", *paths)))
    home = folder / "root/usr"
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONHOME": str(home),
        "PYTHONPATH": searched,
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def fetch_emulator(folder: Path) -> None:
    """`qemu-user-static` for this machine, unpacked."""
    if not (folder / EMULATOR).exists():
        packages = folder / "packages"
        packages.mkdir(exist_ok=True)
        run(["apt-get", "-q", "download", "qemu-user-static"], folder=packages)
        for package in packages.glob("qemu-user-static_*.deb"):
            run(["dpkg-deb", "-x", str(package), str(folder / "qemu")])


def fetch_debian(folder: Path) -> None:
    """Python for arm64 and all that it depends on, with an apt of its own in `folder`."""
    if (folder / "root/usr/bin" / PYTHON).exists():
        return
    apt = folder / "apt"
    for each in ("state/lists/partial", "cache/archives/partial"):
        (apt / each).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
        "Dir::State": f"{apt}/state",
        "Dir::State::status": f"{apt}/status",
        "Dir::Cache": f"{apt}/cache",
    }
    command = ["apt-get", "-q", "-y", *(p for k, v in options.items() for p in ("-o", f"{k}={v}"))]
    run([*command, "update"])
    run([*command, "--no-install-recommends", "--download-only", "install", *PACKAGES])
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(folder / "root")])


def fetch_wheels(folder: Path) -> None:
    """The newest wheels for aarch64, unpacked into one folder."""
    target = folder / "wheels"
    if target.exists():
        return
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target)]
    platforms = [part for each in PLATFORMS for part in ("--platform", each)]
    run([*pip, *platforms, "--only-binary=:all:", "--python-version=311", "--no-compile", *WHEELS])


def describe_cpu(folder: Path) -> None:
    """A `/proc/cpuinfo` of the emulated processor: files below `root` hide this machine's."""
    (folder / "root/proc").mkdir(exist_ok=True)
    cores = range(os.cpu_count() or 1)
    text = "".join(CPUINFO.format(number=number) for number in cores)
    (folder / "root/proc/cpuinfo").write_text(text)


def run(
    command: Sequence[str], folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=variables
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
