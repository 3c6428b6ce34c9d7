"""What a step of a stream costs over the vendor's own call with the same copy of the state.

Both run the same 2x128 LSTM (one frame of 40 values, 1 thread) in one process, in turns with
pauses. The vendor's call has its tensors bound once, in the faster of two ways: by its public
method, and below that method's own checks. Then the states are copied from outputs to inputs.
The memory of the process is read before and after many more steps.

    python benchmarks/streams.py [--turns 12] [--calls 1000] [--steps 100000]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
from session_overhead import CONFIG, Calls, in_turns

from edgebm.bundle_writer import write_bundle
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import CPU_RUNTIMES, import_vendor
from edgebm.runtime.engines.onnxruntime_request import bare_run
from edgebm.runtime.engines.openvino_request import _bare_infer
from edgebm.runtime.session import Session, load
from edgebm.spec import Manifest, StateSpec, TensorSpec, Variant

FRAME, HIDDEN = 40, 128
Array = np.ndarray[Any, Any]
Names = dict[str, tuple[int, ...]]
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def face(states: int) -> tuple[Names, Names]:
    """Inputs and outputs by name: states stacked in two tensors, or two for each layer."""
    if states == 2:
        shapes = dict.fromkeys(("h", "c"), (2, 1, HIDDEN))
    else:
        shapes = {f"{name}{layer}": (1, 1, HIDDEN) for layer in range(2) for name in ("h", "c")}
    outputs = {f"{name}_out": shape for name, shape in shapes.items()}
    return {"x": (1, 1, FRAME), **shapes}, {"y": (1, 1, HIDDEN), **outputs}


def lstm(states: int) -> bytes:
    """An ONNX file of two LSTM layers for one frame, with random weights."""
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {"one": np.array([1])}
    body, below = "", "xt"
    for k, width in enumerate((FRAME, HIDDEN)):
        sizes = (("w", (4 * HIDDEN, width)), ("r", (4 * HIDDEN, HIDDEN)), ("b", (8 * HIDDEN,)))
        for name, size in sizes:
            weights[f"{name}{k}"] = rng.normal(0, 0.05, (1, *size)).astype(np.float32)
        body += f"""
            s{k}, h{k}_out, c{k}_out = LSTM<hidden_size = {HIDDEN}>
                ({below}, w{k}, r{k}, b{k}, , h{k}, c{k})
            f{k} = Squeeze(s{k}, one)"""
        below = f"f{k}"
    if states == 2:
        split = "".join(
            f"{n}0, {n}1 = Split<axis = 0, num_outputs = 2>({n})\n" for n in ("h", "c")
        )
        join = "".join(f"{n}_out = Concat<axis = 0>({n}0_out, {n}1_out)\n" for n in ("h", "c"))
        body = f"{split}{body}\n{join}"
    inputs, outputs = face(states)
    given = ", ".join(_typed(name, shape) for name, shape in inputs.items())
    made = ", ".join(_typed(name, shape) for name, shape in outputs.items())
    stored = ", ".join(_typed(name, x.shape, x.dtype.kind) for name, x in weights.items())
    model = ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["": 20]> lstm ({given}, {stored}) => ({made}) {{
            xt = Transpose<perm = [1, 0, 2]>(x)
            {body}
            y = Transpose<perm = [1, 0, 2]>({below}) }}""")
    for value in list(model.graph.inputs):
        if value.name in weights:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(weights[value.name], name=value.name)
            model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def _typed(name: str, shape: tuple[int, ...], kind: str = "f") -> str:
    return f"{'float' if kind == 'f' else 'int64'}[{','.join(map(str, shape))}] {name}"


def make_bundle(folder: Path, states: int) -> tuple[Path, bytes]:
    """One bundle with the same ONNX file for both runtimes."""
    model = lstm(states)
    inputs, outputs = face(states)
    fed = tuple(StateSpec(name, f"{name}_out") for name in list(inputs)[1:])
    specs = [
        tuple(TensorSpec(name, "float32", shape) for name, shape in each.items())
        for each in (inputs, outputs)
    ]
    members = {f"variants/host/{r}/model.onnx": model for r in CPU_RUNTIMES}
    variants = tuple(
        Variant("host", r, "f32", {"model.onnx": f"variants/host/{r}/model.onnx"}, CONFIG, "")
        for r in CPU_RUNTIMES
    )
    manifest = Manifest("lstm", "0", specs[0], specs[1], variants, states=fed)
    return write_bundle(folder / f"lstm{states}.edgebm", manifest, members), model


def openvino_calls(model: bytes, arrays: dict[str, Array]) -> Calls:
    """Two ways to call with the tensors bound once, set up as the engine sets them up."""
    ov = import_vendor("openvino")
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": "1",
        "ENABLE_CPU_PINNING": "NO",
    }
    compiled = ov.Core().compile_model(ov.Core().read_model(model, b""), "CPU", options)
    request = compiled.create_infer_request()
    for name, array in arrays.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))
    return {"public": request.infer, "bare": _bare_infer(ov, request)}


def onnxruntime_calls(model: bytes, arrays: dict[str, Array]) -> Calls:
    """Two ways to call with the tensors bound once, set up as the engine sets them up."""
    ort = import_vendor("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    taken = {arg.name for arg in session.get_inputs()}
    for name, array in arrays.items():
        bind = binding.bind_input if name in taken else binding.bind_output
        bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    return {
        "public": partial(session.run_with_iobinding, binding),
        "bare": bare_run(session, binding, ort.RunOptions()),
    }


def with_copy(call: Callable[[], Any], pairs: list[tuple[Array, Array]]) -> Callable[[], None]:
    """A vendor call, then each state copied to where the next call reads it: (there, state)."""

    def step() -> None:
        call()
        for before, after in pairs:
            before[...] = after

    return step


def growth_kib(session: Session, x: Array, steps: int) -> int:
    """How much the resident memory grows over `steps` steps of one stream, after 2000 others."""
    with session.stream() as stream:
        for _ in range(2000):
            stream.step(x)
        before = _resident_kib()
        for _ in range(steps):
            stream.step(x)
        return _resident_kib() - before


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_KIB


def measure(runtime: str, states: int, options: argparse.Namespace) -> str:
    """One line of the table: the median turn of each contender, then the quietest turn."""
    vendor_calls = {"openvino": openvino_calls, "onnxruntime": onnxruntime_calls}[runtime]
    inputs, outputs = face(states)
    arrays = {name: np.zeros(s, np.float32) for name, s in {**inputs, **outputs}.items()}
    x = np.random.default_rng(1).normal(size=inputs["x"]).astype(np.float32)
    arrays["x"][...] = x
    pairs = [
        (arrays[name.removesuffix("_out")], y) for name, y in arrays.items() if "_out" in name
    ]
    with tempfile.TemporaryDirectory() as folder:
        path, model = make_bundle(Path(folder), states)
        with load(path, target=runtime, threads=1) as session, session.stream() as stream:
            calls = {n: with_copy(c, pairs) for n, c in vendor_calls(model, arrays).items()}
            calls["step"] = partial(stream.step, x)
            taken = in_turns(calls, options.turns, options.calls)
            growth = growth_kib(session, x, options.steps)
    cells = [f"{runtime:12} {states:6}"]
    for choose in (median, min):
        us = {name: choose(values) for name, values in taken.items()}
        over = us["step"] - min(us["public"], us["bare"])
        cells.append(f"{us['public']:7.2f} {us['bare']:7.2f} {us['step']:7.2f} {over:+6.2f}")
    return " | ".join([*cells, f"{growth:+10} KiB"])


def main() -> None:
    """Print one line for each runtime and number of states, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    print(
        f"{cpu_name()}, Python {platform.python_version()}, numpy {np.__version__}, 1 thread, us"
    )
    columns = f"{'public':>7} {'bare':>7} {'step':>7} {'over':>6}"
    print(
        f"{'runtime':12} {'states':>6} | {columns} | {columns} | memory over {options.steps} steps"
        "  (median turn | quietest turn)"
    )
    for runtime in CPU_RUNTIMES:
        for states in (2, 4):
            print(measure(runtime, states, options), flush=True)


if __name__ == "__main__":
    main()
