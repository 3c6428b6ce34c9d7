"""What two sessions do to each other on two cores, with and without `edgebm.realtime.prepare`.

Each session is a process of its own that answers frames at a fixed rate, as a robot does. Latency
is the time from when a frame is due to its answer: waking up counts. Frames that are due while
another one is answered are skipped. A
prepared process has one core, SCHED_FIFO priority, a frozen garbage collector and locked memory,
as far as the system allows it; what it refused is printed.

    python benchmarks/neighbours.py [--seconds 60] [--hz 100] [--runtime openvino] [--width 1024]

The machine must be idle otherwise. It takes six times as long as `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.bundle_writer import write_bundle
from edgebm.realtime import Prepared, prepare
from edgebm.runtime.bench import summarize
from edgebm.runtime.board import read_board, throttled_between
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.runtime.session import load
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

LAYERS = 8
PRIORITY = 40
# Name, threads of each session, prepared or not.
CASES = (("2 threads each", 2, False), ("1 thread each", 1, False), ("prepared", 1, True))


def mlp(width: int) -> bytes:
    """An ONNX file: float32[1, width] through LAYERS square matrices with Relu."""
    rng = np.random.default_rng(0)
    weights = ", ".join(f"float[{width},{width}] w{k}" for k in range(LAYERS))
    body = "".join(f"m{k} = MatMul(r{k}, w{k})\nr{k + 1} = Relu(m{k})\n" for k in range(LAYERS))
    model = ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["": 20]>
        mlp (float[1,{width}] x, {weights}) => (float[1,{width}] y) {{
            r0 = Relu(x)
            {body}
            y = Identity(r{LAYERS}) }}""")
    for value in [model.graph.inputs.pop(1) for _ in range(LAYERS)]:
        weight = rng.normal(0, width**-0.5, (width, width)).astype(np.float32)
        value.const_value = ir.tensor(weight, name=value.name)
        model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def make_bundle(folder: Path, width: int) -> Path:
    """One bundle with the same ONNX file for both runtimes."""
    members = {f"variants/host/{r}/model.onnx": mlp(width) for r in CPU_RUNTIMES}
    variants = tuple(
        Variant(
            "host", r, "f32", {"model.onnx": f"variants/host/{r}/model.onnx"},
            EngineConfig(threads=2), "",
        )
        for r in CPU_RUNTIMES
    )  # fmt: skip
    specs = [(TensorSpec(name, "float32", (1, width)),) for name in ("x", "y")]
    manifest = Manifest("mlp", "0", specs[0], specs[1], variants)
    return write_bundle(folder / "mlp.edgebm", manifest, members)


def work(options: argparse.Namespace) -> dict[str, Any]:
    """Answer frames at a fixed rate; the latencies, and what could not be prepared."""
    core: int | None = options.core
    done = Prepared((), ())
    if core is not None:
        done = prepare(cpus=[core], priority=PRIORITY, lock_memory=True)
    with load(options.work, target=options.runtime, threads=options.threads) as session:
        if core is not None:
            prepare()
        x = np.ones(session.inputs[0].shape, np.float32)
        print("ready", flush=True)
        sys.stdin.readline()
        taken = _frames(session.run, x, options.seconds, options.hz)
        refused = [step.message for step in done.steps if not step.done]
        return {**asdict(summarize(taken)), "refused": refused}


def _frames(run: Any, x: Any, seconds: float, hz: float) -> array[int]:
    clock, taken = time.perf_counter_ns, array("q")
    due = clock()
    end = due + int(seconds * 1e9)
    while due < end:
        time.sleep(max(0, due - clock()) / 1e9)
        run(x)
        now = clock()
        taken.append(now - due)
        period = int(1e9 / hz)
        due += period * (1 + (now - due) // period)
    return taken


def together(
    options: argparse.Namespace, bundle: Path, threads: int, cores: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Start one worker for each of `cores`, let them run at the same time, and ask them."""
    command = [
        sys.executable, __file__, "--work", str(bundle), "--runtime", options.runtime,
        "--seconds", str(options.seconds), "--hz", str(options.hz), "--threads", str(threads),
    ]  # fmt: skip
    workers = [
        subprocess.Popen(
            command + ([] if core is None else ["--core", str(core)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in cores
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    found = [json.loads(worker.communicate()[0]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return found


def line(case: str, who: str, found: dict[str, Any]) -> str:
    """A row of the table, in milliseconds."""
    cells = []
    for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms"):
        value = found[name]
        cells.append("   too few" if value is None else f"{value:10.3f}")
    return f"{case:15} {who:12}" + " ".join(cells) + f" {found['calls']:8}"


def main() -> None:
    """Print one line for each session of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--runtime", choices=CPU_RUNTIMES, default=CPU_RUNTIMES[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options)))
        return
    cores = sorted(os.sched_getaffinity(0))[:2]
    print(
        f"{cpu_name()}, cores {cores}, {platform.release()}, Python {platform.python_version()}, "
        f"{options.runtime}, {LAYERS} x {options.width}, {options.hz:g} Hz, {options.seconds:g} s"
    )
    print(f"{'':15} {'session':12}{'p50 ms':>10} {'p99 ms':>10} {'p99.9 ms':>10} {'max ms':>10}"
          f" {'calls':>8}")  # fmt: skip
    before, refused = read_board(), dict[str, None]()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), options.width)
        for case, threads, prepared in CASES:
            chosen = cores if prepared else [None, None]
            (alone,) = together(options, bundle, threads, chosen[:1])
            print(line(case, "alone", alone), flush=True)
            both = together(options, bundle, threads, chosen)
            for number, found in enumerate(both):
                print(line(case, f"{number + 1} of 2", found), flush=True)
                refused |= dict.fromkeys(found["refused"])
    for sentence in [*refused, *throttled_between(before, read_board())]:
        print(f"note: {sentence}")


if __name__ == "__main__":
    main()
