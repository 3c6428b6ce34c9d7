"""kill -9 at random moments of `edgebm compress`: is a half bundle ever seen?

    python benchmarks/kill_compress.py --count 200 [--seed 0]

Every second run replaces an older bundle. After each kill the output must be missing, or whole:
the older one or the new one. The next run goes on from what the killed one measured, and must end
well.
About ten seconds each.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from edgebm.demo import demo_files
from edgebm.errors import EdgebmError
from edgebm.runtime.bundle import read_bundle

MODEL, SAMPLES, OUT = "digits_lstm.onnx", "calibration.npz", "out.edgebm"
COMMAND = [
    sys.executable, "-m", "edgebm", "compress", MODEL, "-d", SAMPLES, "-o", OUT, "--force",
    "--threads", "1", "--measure-seconds", "1",
]  # fmt: skip


def prepare(folder: Path) -> None:
    """The demo's LSTM and its samples."""
    folder.mkdir()
    files = demo_files()
    for name in (MODEL, SAMPLES):
        (folder / name).write_bytes(files[name])


def finish(folder: Path) -> str:
    """Run to the end; an empty string, or what went wrong."""
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 3}:
        return f"the next run ended with {done.returncode}: {done.stderr[-400:]}"
    return state(folder, "")[1]


def state(folder: Path, older: str) -> tuple[str, str]:
    """What lies under the final name, and what is wrong with that."""
    path = folder / OUT
    if not path.exists():
        return "missing", "the older bundle is gone" if older else ""
    try:
        digest = read_bundle(path).digest
    except EdgebmError as error:
        return "damaged", f"{error}"
    return ("older" if digest == older else "new"), ""


def killed(folder: Path, after_s: float) -> bool:
    """Whether the process still ran when it was killed."""
    process = subprocess.Popen(
        COMMAND, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    faults: list[str] = []
    found: Counter[str] = Counter()
    left: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        first = Path(root) / "first"
        prepare(first)
        begin = time.monotonic()
        if fault := finish(first):
            raise SystemExit(fault)
        whole_s = time.monotonic() - begin
        older = read_bundle(first / OUT).digest
        for index in range(options.count):
            folder = Path(root) / str(index)
            prepare(folder)
            replaces = index % 2 == 1
            if replaces:
                shutil.copy(first / OUT, folder / OUT)
            known = {path.name for path in folder.iterdir()} | {OUT}
            in_time = killed(folder, chance.uniform(0, whole_s * 1.02))
            seen, fault = state(folder, older if replaces else "")
            found[f"{'killed' if in_time else 'had ended'}, {seen}"] += 1
            kinds = {p.name for p in folder.iterdir()} - known
            left.update("journal" if name.endswith(".resume") else "temporary" for name in kinds)
            fault = fault or finish(folder)
            after = {p.name for p in folder.iterdir()} - known
            left.update(f"{name}, after the next run" for name in after)
            faults += [f"run {index}: {fault}"] if fault else []
            shutil.rmtree(folder)
    print("| under the final name after a kill | runs |\n| --- | ---: |")
    for what, times in sorted(found.items()):
        print(f"| {what} | {times} |")
    print(f"\na whole run takes {whole_s:.1f} s; other files that were left: {dict(left)}")
    print(
        "\n".join(faults) or f"{options.count} kills: nothing half was seen, every next run ended"
    )
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
