"""NVIDIA's published bindings of the versions that are supported, fetched when the check runs.

They are proprietary: none of them is kept in this repository, only what they must hash to.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from commands import CheckFailed, run

PROJECT = "tensorrt-cu12-bindings"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
# sha256 by version and tag of the interpreter.
PINS = {
    "10.3.0": {
        "cp310": "1d6e4cf08ef1f54f6fd44a33cf6b253050af2fc6e9a1d92e40e1436a1d858eb0",
        "cp311": "59ace22d7f2ca1e9dcde2cb0cb5916912cb3cd5a9d72dd7852be0160d9b3a0ee",
        "cp312": "f5c2582aeaa7f5628d2c4d4148a701ebe97be78f7ff3b46a617f0ee0cb5460f2",
    },
    "10.13.3.9": {
        "cp310": "3ca2635394789dd62346ff5ee3f02def53cee2cd21247cc342461dc721893a1e",
        "cp311": "33aa9d104c04b008871645a97bd8a1a02279cf498d251df5e767d9d5183e0646",
        "cp312": "193174cd0aa5ec7d63943d8d3f84ca9ec525477a9db3a9100bf2f77071b3fae8",
    },
    "10.16.1.11": {
        "cp310": "c1b6a156db4eab526360f5dba375e5c33e1275e3f36b0a7d375febb3db6202fc",
        "cp311": "150ef2b672487e29a8ea916353467c3e199994fb33589167e3641a928e243aa7",
        "cp312": "8e339335e7255b3fb3954eca61b4acbbdfcf7b28505bd711914519647ba310c8",
    },
    "11.4.0.106": {
        "cp310": "d9f927d7337c360c3947d99fc0db17c3b3b935e677237f0475c7b054f28d2540",
        "cp311": "e2ab48f316bbff6a7a44a30e94a9ceb0d2cf6645ff39feadecfa68d7cb7a94bf",
        "cp312": "6490518c9e072d57e0a815ad80b103596933efe776ffa61766ef31c25dbd8b39",
    },
}
VERSIONS = tuple(PINS)
ABOUT = (
    "import platform as p, sys; "
    "print(p.python_implementation(), sys.platform, p.machine(), 'cp%d%d' % sys.version_info[:2])"
)


def tag_of(python: str) -> str:
    """The wheel tag of an interpreter, such as `cp311`.

    Raises:
        CheckFailed: there is no binding of all versions for it.
    """
    about = run([python, "-I", "-c", ABOUT], f"asking {python} what it is").split()
    tag = about.pop()
    tags = set.intersection(*(set(pins) for pins in PINS.values()))
    if about != ["CPython", "linux", "x86_64"] or tag not in tags:
        raise CheckFailed(
            f"{python} ({' '.join(about)} {tag}) has no binding of every version: TensorRT "
            f"{VERSIONS[0]} was published for CPython up to 3.12 on x86_64 Linux only. Give an "
            f"interpreter of that kind with --python; it needs no packages."
        )
    return tag


def fetch(version: str, tag: str, folder: Path) -> Path:
    """The wheel of `version` for `tag`, by way of pip's own settings; one in `folder` is reused.

    Raises:
        CheckFailed: it cannot be had, or is not the file that was pinned.
    """
    pattern = f"{PROJECT.replace('-', '_')}-{version}-{tag}-*.whl"
    if not list(folder.glob(pattern)):
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--implementation", "cp", "--abi", "none"),
                *("--python-version", tag.removeprefix("cp"), *platforms),
                *("--dest", str(folder), f"{PROJECT}=={version}"),
            ],
            f"fetching {PROJECT} {version} (the check needs a package index that has it)",
        )
    [wheel] = folder.glob(pattern)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != PINS[version][tag]:
        raise CheckFailed(
            f"{wheel} is not the published file: its sha256 is {found}, not {PINS[version][tag]}. "
            "Delete it and look at where pip gets its packages from."
        )
    return wheel
