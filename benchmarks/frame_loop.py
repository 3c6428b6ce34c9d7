"""A frame loop with a camera at a fixed rate and a consumer that cannot keep up.

Prints where every frame went, how old results were when they were fetched, and the memory of the
process; ends with 1 if a frame is not accounted for, if a result was older than the newest DEPTH
frames while there was a newer one, or if memory grew by more than a MiB.

    python benchmarks/frame_loop.py [--seconds 600] [--rate 30] [--consumer-ms 120] [--depth 2]
        [--bad-every 10] [--runtime onnxruntime]
"""

from __future__ import annotations

import argparse
import bisect
import os
import tempfile
import threading
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.bundle_writer import write_bundle
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.runtime.frames import FrameResult
from edgebm.runtime.pipeline import Pipeline
from edgebm.runtime.session import load
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

SHAPE = (1, 3, 480, 640)
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WARM_UP_S = 5.0
ALLOWED_MIB = 1.0


def make_bundle(folder: Path) -> Path:
    """Means of the channels of a camera image of 3.5 MiB, for both runtimes."""
    sizes = ",".join(map(str, SHAPE))
    text = f"""<ir_version: 10, opset_import: ["": 20]>
        means (float[{sizes}] image) => (float[1,3,1,1] means)
        {{ means = GlobalAveragePool(image) }}"""
    model = bytes(ir.serde.serialize_model(ir.from_onnx_text(text)).SerializeToString())
    variants = tuple(
        Variant(
            "host", r, "f32", {"model.onnx": f"variants/host/{r}/model.onnx"}, EngineConfig(), ""
        )
        for r in CPU_RUNTIMES
    )
    inputs = (TensorSpec("image", "float32", SHAPE),)
    outputs = (TensorSpec("means", "float32", (1, 3, 1, 1)),)
    members = {f"variants/host/{r}/model.onnx": model for r in CPU_RUNTIMES}
    return write_bundle(
        folder / "means.edgebm", Manifest("means", "0", inputs, outputs, variants), members
    )


@dataclass
class Camera(threading.Thread):
    """Pushes a frame at every tick; a bad one, with a NaN, now and then."""

    pipeline: Pipeline
    rate_hz: float
    bad_every: int
    pushed_ns: array[int] = field(default_factory=lambda: array("q"))
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        """Until `done` is set."""
        image = np.zeros(SHAPE, np.float32)
        start = time.monotonic()
        while not self.done.is_set():
            number = len(self.pushed_ns)
            bad = number % self.bad_every == self.bad_every - 1
            image[0, 0, 0, 0] = np.nan if bad else number
            self.pipeline.push(image, key=number)
            self.pushed_ns.append(time.monotonic_ns())
            self.done.wait(max(0.0, start + (number + 1) / self.rate_hz - time.monotonic()))


@dataclass
class Seen:
    """What the consumer saw."""

    age_ms: array[float] = field(default_factory=lambda: array("d"))
    lag: array[int] = field(default_factory=lambda: array("q"))
    dropped: int = 0
    failed: int = 0
    last: int = -1
    in_order: bool = True
    fetched_ns: int = 0
    stale: int = 0

    def add(self, result: FrameResult, asked_ns: int, pushed_ns: array[int], depth: int) -> None:
        """A result that was asked for at `asked_ns`; it may have come later."""
        # This one was there already when one that was not of the newest frames was fetched.
        if self.lag and self.lag[-1] >= depth and result.t_end_ns < self.fetched_ns:
            self.stale += 1
        self.fetched_ns = max(asked_ns, result.t_end_ns)
        self.age_ms.append((self.fetched_ns - result.t_in_ns) / 1e6)
        self.lag.append(bisect.bisect_right(pushed_ns, self.fetched_ns) - 1 - result.seq)
        self.dropped += result.dropped_before
        self.failed += not result.ok
        self.in_order &= result.seq == self.last + 1 + result.dropped_before
        self.last = result.seq


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * PAGE_BYTES / 2**20


def consume(pipeline: Pipeline, camera: Camera, options: Any) -> tuple[Seen, list[float]]:
    """Fetch results, slowly, for the time of the run; the memory after each second."""
    seen, memory = Seen(), []
    begin = time.monotonic()
    next_s = WARM_UP_S
    while (now := time.monotonic() - begin) < options.seconds + WARM_UP_S:
        asked_ns = time.monotonic_ns()
        result = pipeline.get(1.0)
        if result is not None:
            seen.add(result, asked_ns, camera.pushed_ns, options.depth)
            time.sleep(options.consumer_ms / 1e3)
        if now >= next_s:
            memory.append(resident_mib())
            next_s += 1
    return seen, memory


def report(pipeline: Pipeline, seen: Seen, memory: list[float], depth: int) -> bool:
    """Print the figures; whether all is as it must be."""
    counts = pipeline.counts
    total = counts.answered + counts.failed + counts.dropped + counts.waiting
    tail = counts.pushed - 1 - seen.last
    print(
        f"frames: {counts.pushed} pushed = {counts.answered} answered + {counts.failed} failed + "
        f"{counts.dropped} dropped + {counts.waiting} waiting"
    )
    print(
        f"results: {len(seen.lag)} fetched, {seen.failed} failed; {seen.dropped} dropped before "
        f"them, {tail} after the last"
    )
    age, lag = np.asarray(seen.age_ms), np.asarray(seen.lag)
    print(
        f"age when fetched: median {np.median(age):.1f} ms, max {age.max():.1f} ms; newer frames "
        f"pushed by then: {dict(zip(*map(np.ndarray.tolist, np.unique_counts(lag)), strict=True))}"
    )
    growth = memory[-1] - memory[0]
    print(
        f"memory: {memory[0]:.2f} MiB after {WARM_UP_S:.0f} s, {memory[-1]:.2f} MiB at the end, "
        f"max {max(memory):.2f} MiB: growth {growth:+.2f} MiB"
    )
    checks = {
        "every frame is accounted for": counts.pushed == total
        and seen.in_order
        and len(seen.lag) == counts.answered + counts.failed
        and seen.dropped + tail == counts.dropped + counts.waiting,
        f"no result was older than the newest {depth} while there was a newer one": not seen.stale,
        "memory is flat": growth <= ALLOWED_MIB,
    }
    for name, held in checks.items():
        print(f"{'yes' if held else 'NO '} {name}")
    return all(checks.values())


def main() -> int:
    """Run the loop and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=30, help="frames per second")
    parser.add_argument("--consumer-ms", type=float, default=120, help="its work for a result")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--bad-every", type=int, default=10, help="one frame of so many fails")
    parser.add_argument("--runtime", default="onnxruntime", choices=CPU_RUNTIMES)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        load(make_bundle(Path(folder)), target=options.runtime, threads=1) as session,
        session.pipeline(options.depth) as pipeline,
    ):
        print(
            f"{cpu_name()}, {options.runtime}, {options.rate:g} Hz, a consumer of "
            f"{options.consumer_ms:g} ms, depth {options.depth}, {options.seconds:g} s"
        )
        camera = Camera(pipeline, options.rate, options.bad_every)
        camera.start()
        try:
            seen, memory = consume(pipeline, camera, options)
        finally:
            camera.done.set()
            camera.join()
        return 0 if report(pipeline, seen, memory, options.depth) else 1


if __name__ == "__main__":
    raise SystemExit(main())
