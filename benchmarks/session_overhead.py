"""What `Session.run` costs over the vendor's own call with tensors bound once.

Both run the same artifact in one process, in turns with pauses, on one thread:
    python benchmarks/session_overhead.py [--turns 12] [--calls 2000]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.bundle_writer import golden_members, write_bundle
from edgebm.runtime.bench import time_calls
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import import_vendor, open_engine
from edgebm.runtime.session import load
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

# Calls of ten microseconds by the width of the input, and of above a millisecond by its planes.
WIDTHS = (64, 250, 1000)
IMAGES = ((1, 160, 160), (3, 288, 288))
HIDDEN, CLASSES = 16, 10
CONFIG = EngineConfig(threads=1)
PAUSE_S = 0.03
Calls = dict[str, Callable[[], Any]]


def mlp(width: int) -> bytes:
    """An ONNX file: float32[1, width] -> MatMul, Relu, MatMul -> float32[1, CLASSES]."""
    return with_weights(f"""
        <ir_version: 10, opset_import: ["": 20]>
        mlp (float[1,{width}] x, float[{width},{HIDDEN}] w1, float[{HIDDEN},{CLASSES}] w2)
            => (float[1,{CLASSES}] y)
        {{ h = MatMul(x, w1)
           r = Relu(h)
           y = MatMul(r, w2) }}""")


def cnn(channels: int, height: int, width: int) -> bytes:
    """An ONNX file: an image -> Conv, Relu, Conv, Relu, mean, MatMul -> float32[1, CLASSES]."""
    step = 1 if channels == 1 else 2
    return with_weights(f"""
        <ir_version: 10, opset_import: ["": 20]>
        cnn (float[1,{channels},{height},{width}] x, float[16,{channels},3,3] w1,
             float[96,16,3,3] w2, float[96,{CLASSES}] w3) => (float[1,{CLASSES}] y)
        {{ a = Conv <strides = [{step}, {step}]> (x, w1)
           b = Relu(a)
           c = Conv <strides = [2, 2]> (b, w2)
           d = Relu(c)
           e = GlobalAveragePool(d)
           f = Flatten(e)
           y = MatMul(f, w3) }}""")


def with_weights(text: str) -> bytes:
    """The ONNX file of a graph in text whose inputs but the first become weights."""
    model, rng = ir.from_onnx_text(text), np.random.default_rng(0)
    for value in tuple(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        shape = value.shape.numpy() if value.shape else ()
        weight = rng.normal(size=shape).astype(np.float32)
        value.const_value = ir.tensor(weight, name=value.name)
        model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def make_bundle(folder: Path, model: bytes, x: np.ndarray[Any, Any]) -> Path:
    """One bundle with the same ONNX file for both runtimes, and `x` as its golden sample."""
    inputs = (TensorSpec("x", "float32", x.shape),)
    outputs = (TensorSpec("y", "float32", (1, CLASSES)),)
    request = open_engine("onnxruntime", {"model.onnx": model}, CONFIG, inputs, outputs).request(
        {"x": x.shape}
    )
    request.inputs[0][...] = x
    request.infer()
    members = {f"variants/host/{r}/model.onnx": model for r in ("openvino", "onnxruntime")}
    members |= golden_members([[x]], [request.outputs])
    variants = tuple(
        Variant("host", r, "f32", {"model.onnx": f"variants/host/{r}/model.onnx"}, CONFIG, "")
        for r in ("openvino", "onnxruntime")
    )
    manifest = Manifest("made", "0", inputs, outputs, variants, golden=1)
    return write_bundle(folder / "made.edgebm", manifest, members)


def openvino_calls(model: bytes, x: np.ndarray[Any, Any]) -> Calls:
    """The pre-bound call and the plain call, set up as the engine sets them up."""
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
    bound, answer = x.copy(), np.empty((1, CLASSES), np.float32)
    request.set_input_tensor(0, ov.Tensor(bound, shared_memory=True))
    request.set_output_tensor(0, ov.Tensor(answer, shared_memory=True))
    feeds = {"x": x}
    return {
        "pre-bound": request.infer,
        "plain": partial(compiled, feeds),
    }


def onnxruntime_calls(model: bytes, x: np.ndarray[Any, Any]) -> Calls:
    """The pre-bound call and the plain call, set up as the engine sets them up."""
    ort = import_vendor("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    bound, answer = x.copy(), np.empty((1, CLASSES), np.float32)
    kind = np.float32
    binding.bind_input("x", "cpu", 0, kind, bound.shape, bound.ctypes.data)
    binding.bind_output("y", "cpu", 0, kind, answer.shape, answer.ctypes.data)
    feeds = {"x": x}

    def pre_bound(_: object = (bound, answer)) -> None:  # kept: the vendor has only addresses
        session.run_with_iobinding(binding)

    return {"pre-bound": pre_bound, "plain": partial(session.run, None, feeds)}


def in_turns(calls: Calls, turns: int, count: int) -> dict[str, list[float]]:
    """The median of each turn in microseconds; every turn calls each contender in a row."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            taken[name].append(time_calls(call, calls=count, warmup=50).p50_ms * 1e3)
    return taken


def measure(runtime: str, shape: tuple[int, ...], turns: int, count: int) -> str:
    """One line of the table: the median turn of each contender, then the quietest turn."""
    vendor_calls = {"openvino": openvino_calls, "onnxruntime": onnxruntime_calls}[runtime]
    model = cnn(*shape) if len(shape) == 3 else mlp(*shape)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = make_bundle(Path(folder), model, x)
        with load(path, target=runtime, threads=1) as session:
            calls = vendor_calls(model, x)
            calls["run"] = partial(session.run, x)
            taken = in_turns(calls, turns, count if len(shape) == 1 else count // 10)
    cells = [f"{runtime:12} {x.nbytes:7} B"]
    for choose in (median, min):
        us = {name: choose(values) for name, values in taken.items()}
        over = us["run"] - us["pre-bound"]
        cells.append(
            f"{us['pre-bound']:9.2f} {us['run']:7.2f} {over:+6.2f} "
            f"{us['run'] / us['pre-bound']:6.3f} {us['plain']:7.2f}"
        )
    return " | ".join(cells)


def main() -> None:
    """Print one line for each runtime and input width, in microseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    print(
        f"{cpu_name()}, Python {platform.python_version()}, numpy {np.__version__}, 1 thread, us"
    )
    columns = f"{'pre-bound':>9} {'run':>7} {'over':>6} {'ratio':>6} {'plain':>7}"
    print(f"{'runtime':12} {'input':>9} | {columns} | {columns}  (median turn | quietest turn)")
    for runtime in ("openvino", "onnxruntime"):
        for shape in (*((width,) for width in WIDTHS), *IMAGES):
            print(measure(runtime, shape, options.turns, options.calls), flush=True)


if __name__ == "__main__":
    main()
