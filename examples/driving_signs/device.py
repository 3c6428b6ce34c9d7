"""Reads traffic signs from a camera, frame by frame, on the device: numpy and edgebm only.

    python device.py signs.edgebm --frames camera.npz
    python device.py signs.edgebm --frames camera.npz --slow 120   # a consumer that is too slow

The camera is simulated: `--frames` is an .npz or .npy file of uint8 frames [n, height, width, 3],
or a folder of such files, shown over and over at `--fps`. Ends with 1 if a frame is not accounted
for.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from signs import SIGNS

import edgebm


def read_frames(path: Path) -> NDArray[np.uint8]:
    """All frames of a file, or of the files of a folder in the order of their names."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in {".npz", ".npy"})
    parts: list[NDArray[np.uint8]] = []
    for file in files:
        if not file.is_file():
            raise SystemExit(f"{file} is no file and no folder")
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            if "image" not in loaded:
                raise SystemExit(f"{file} has no array named image, only {sorted(loaded)}")
            loaded = loaded["image"]
        if parts and loaded.shape[1:] != parts[0].shape[1:]:
            raise SystemExit(f"{file} has frames {loaded.shape[1:]}, others {parts[0].shape[1:]}")
        parts.append(loaded)
    if not sum(map(len, parts)):
        raise SystemExit(f"{path} holds no frames: .npz or .npy files of uint8 are expected")
    return np.concatenate(parts)


class Camera(threading.Thread):
    """Pushes a frame at every tick. A tick that it slept through is a frame that it left out."""

    def __init__(self, loop: Any, frames: NDArray[np.uint8], fps: float) -> None:
        super().__init__(name="camera", daemon=True)
        self._loop, self._frames, self._fps = loop, frames, fps
        self._done = threading.Event()
        self.left_out = 0

    def run(self) -> None:
        """Until `stop`."""
        start, number = time.monotonic(), 0
        while not self._done.wait(max(0.0, start + number / self._fps - time.monotonic())):
            frame = self._frames[number % len(self._frames)]
            self._loop.push(frame[None], key=number, stamp_ns=time.time_ns())
            due = int((time.monotonic() - start) * self._fps)
            self.left_out += max(0, due - number - 1)
            number = max(number + 1, due)

    def stop(self) -> None:
        """No frame is pushed any more when this returns."""
        self._done.set()
        self.join()


@dataclass
class Driver:
    """The consumer: says what it sees when that changes, and leaves old answers alone."""

    deadline_ms: float
    least_score: float
    latency_ms: list[float] = field(default_factory=list)
    age_ms: list[float] = field(default_factory=list)
    too_old: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    last: int = -1
    in_order: bool = True
    shown: str = ""

    def take(self, result: Any) -> None:
        """Act on one result, in the moment it was fetched."""
        age_ms = (time.monotonic_ns() - result.t_in_ns) / 1e6
        self.in_order &= result.seq == self.last + 1 + result.dropped_before
        self.dropped += result.dropped_before
        self.last = result.seq
        if not result.ok:
            code = result.error.code
            self.failures[code] = self.failures.get(code, 0) + 1
            return
        self.latency_ms.append((result.t_end_ns - result.t_start_ns) / 1e6)
        self.age_ms.append(age_ms)
        if result.late or age_ms > self.deadline_ms:
            self.too_old += 1
            return
        self.show(result.key, result.outputs["scores"][0], age_ms)

    def show(self, number: int, scores: NDArray[np.float32], age_ms: float) -> None:
        """Print the sign if it is certain enough and another one than before."""
        shares = np.exp(scores - scores.max())
        best = int(scores.argmax())
        score = float(shares[best] / shares.sum())
        sign = SIGNS[best] if score >= self.least_score else ""
        if sign and sign != self.shown:
            print(f"frame {number:5}  {sign:34} score {score:.2f}  age {age_ms:6.2f} ms")
        self.shown = sign


def drive(session: Any, frames: NDArray[np.uint8], options: Any) -> dict[str, Any]:
    """The frame loop, for the time of the run; what became of every frame."""
    driver = Driver(options.deadline_ms, options.score)
    with session.pipeline(depth=2, drop="oldest", deadline_ms=options.deadline_ms) as loop:
        camera = Camera(loop, frames, options.fps)
        end = time.monotonic() + options.seconds
        camera.start()
        try:
            while (left_s := end - time.monotonic()) > 0:
                result = loop.get(left_s)
                if result is not None:
                    driver.take(result)
                    time.sleep(options.slow / 1e3)
        except KeyboardInterrupt:
            print("stopped by Ctrl-C")
        finally:
            camera.stop()
        health = session.health()
        loop.close(drain=True)
        for result in loop:
            driver.take(result)
        counts = loop.counts
    failed = sum(driver.failures.values())
    return {
        "pushed": counts.pushed,
        "answered": counts.answered,
        "dropped": counts.dropped,
        "failed": driver.failures,
        "late": counts.late,
        "too_old_when_fetched": driver.too_old,
        "left_out_by_the_camera": camera.left_out,
        "latency_ms": quantiles(driver.latency_ms),
        "age_ms": quantiles(driver.age_ms),
        # What the results said, against what the loop counted.
        "accounted_for": counts.waiting == 0
        and counts.pushed == counts.answered + counts.failed + counts.dropped
        and (len(driver.age_ms), failed) == (counts.answered, counts.failed)
        and driver.in_order
        and driver.dropped + counts.pushed - 1 - driver.last == counts.dropped,
        "health": {"state": health.state, "reasons": list(health.reasons)},
    }


def quantiles(times_ms: list[float]) -> dict[str, float] | None:
    """None where nothing was answered."""
    if not times_ms:
        return None
    return {name: float(np.percentile(times_ms, q)) for name, q in (("p50", 50), ("p99", 99))}


def tell(told: dict[str, Any]) -> None:
    """The end of the drive, for people."""
    failed = sum(told["failed"].values())
    codes = ", ".join(f"{n} x {code}" for code, n in told["failed"].items())
    print(
        f"\nframes: {told['pushed']} pushed = {told['answered']} answered + {told['dropped']} "
        f"dropped + {failed} failed{f' ({codes})' if codes else ''}; "
        f"{told['left_out_by_the_camera']} left out by the camera"
    )
    print(
        f"late: {told['late']} missed the deadline in the loop; {told['too_old_when_fetched']} "
        "answers were too old to act upon when they were fetched"
    )
    for name in ("latency", "age"):
        times = told[f"{name}_ms"]
        if times:
            print(f"{name}: p50 {times['p50']:.2f} ms, p99 {times['p99']:.2f} ms")
    health = told["health"]
    print(f"health: {health['state']}", *health["reasons"], sep="\n  ")
    if not told["accounted_for"]:
        print("NOT EVERY FRAME IS ACCOUNTED FOR")


def main() -> int:
    """Prepare, load, drive, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=Path, required=True, help=".npz, .npy or a folder")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--slow", type=float, default=0, help="ms of work for each result")
    parser.add_argument("--deadline-ms", type=float, default=50)
    parser.add_argument("--score", type=float, default=0.8, help="least score of a detection")
    parser.add_argument("--priority", type=int, help="1 to 99 under SCHED_FIFO")
    parser.add_argument("--cpus", type=int, nargs="+", help="cores to run on")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.fps <= 0 or options.seconds <= 0 or options.slow < 0:
        parser.error("--fps and --seconds must be above 0, --slow not below")
    frames = read_frames(options.frames)
    with edgebm.realtime.prepare(options.cpus, options.priority, lock_memory=True) as prepared:
        print(prepared)
        try:
            with edgebm.load(options.bundle) as session:
                runs = session.report()
                print(f"runs on {runs['runtime']}, {runs['precision']}, {session.inputs[0]}\n")
                told = drive(session, frames, options)
        except edgebm.EdgebmError as error:
            print(f"{error.code}: {error}\n{error.hint}")
            return error.exit_code
    tell(told)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2), encoding="utf-8")
    return 0 if told["accounted_for"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
