"""The error of one INT8 LSTM or GRU cell with random weights, against ONNX Runtime's float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

import edgebm
from edgebm.runtime.engines import open_engine
from edgebm.runtime.selftest import relative_error
from edgebm.search.build import BUILD
from edgebm.spec import EngineConfig, TensorSpec

HIDDEN, STEPS, SPREAD, CLIP = 512, 100, 0.05, 4.0
CALIBRATION, TESTED, SEED = 32, 8, 0
GATES = {"LSTM": 4, "GRU": 3}
F32 = NDArray[np.float32]


def one_cell(op: str, generator: np.random.Generator, *, bias: bool) -> bytes:
    """An ONNX file: x [100, 1, 512] to all hidden states y [100, 1, 1, 512].

    Weights, and with ``bias`` biases, are normal with a standard deviation of 0.05; a GRU has
    linear_before_reset=0.
    """
    rows = GATES[op] * HIDDEN
    sizes = {"w": (1, rows, HIDDEN), "r": (1, rows, HIDDEN), "b": (1, 2 * rows)}
    arrays = {k: generator.normal(0, SPREAD, size).astype(np.float32) for k, size in sizes.items()}
    arrays["b"] *= bias
    stored = ", ".join(f"float[{','.join(map(str, v.shape))}] {k}" for k, v in arrays.items())
    face = f"float[{STEPS},1,{HIDDEN}] x, {stored}"
    model = ir.from_onnx_text(f"""
        <ir_version: 10, opset_import: ["": 20]>
        cell ({face}) => (float[{STEPS},1,1,{HIDDEN}] y) {{
            y = {op}<hidden_size = {HIDDEN}>(x, w, r, b) }}""")
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(arrays[str(value.name)], name=value.name)
        model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def draws(generator: np.random.Generator, count: int) -> F32:
    """Sequences [count, 100, 1, 512], standard normal and clipped at 4."""
    size = (count, STEPS, 1, HIDDEN)
    return generator.normal(size=size).clip(-CLIP, CLIP).astype(np.float32)


def cell_errors() -> Iterator[dict[str, Any]]:
    """The relative error (Frobenius) of each cell: over all steps, and of the last alone.

    It is calibrated on other draws than it is tried on.
    """
    for op in GATES:
        for bias in (False, True):
            generator = np.random.default_rng(SEED)
            model = one_cell(op, generator, bias=bias)
            seen, tried = draws(generator, CALIBRATION), draws(generator, TESTED)
            want = np.stack([_float(model, x) for x in tried])
            got, ran = _integers(model, seen, tried)
            yield {
                "op": op,
                "bias": "normal" if bias else "zero",
                "ran": ran,
                "error": relative_error(got, want),
                "last": relative_error(got[:, -1], want[:, -1]),
            }


def _float(model: bytes, x: F32) -> F32:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: F32 = session.run(None, {"x": x})[0]
    return found


def _integers(model: bytes, seen: F32, tried: F32) -> tuple[F32, str]:
    """What edgebm's INT8 cell answers on OpenVINO, and what that ran in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cell.onnx"
        path.write_bytes(model)
        lowered = edgebm.quantize(path, {"x": seen}, runtime="openvino")
    face = (
        [TensorSpec("x", "float32", tried.shape[1:])],
        [TensorSpec("y", "float32", (STEPS, 1, 1, HIDDEN))],
    )
    engine = open_engine("openvino", BUILD["openvino"](lowered), EngineConfig(), *face)
    request, answers = engine.request({"x": tried.shape[1:]}), []
    for x in tried:
        request.inputs[0][...] = x
        request.infer()
        answers.append(request.outputs[0].copy())
    return np.stack(answers), ", ".join(engine.cells().values()) or "no cell"
