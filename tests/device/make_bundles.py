"""Make the small bundles in `data/`; run by hand, on a host, when the format changes.

python tests/device/make_bundles.py
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.bundle_writer import golden_members, write_bundle
from edgebm.runtime.engines import import_vendor, open_engine
from edgebm.spec import EngineConfig, Manifest, Shapes, StateSpec, TensorSpec, Variant

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One model as ONNX text, its face, and golden inputs."""

    name: str
    text: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: list[list[np.ndarray[Any, Any]]]
    weights: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    axes: dict[str, tuple[int, int]] = field(default_factory=dict)
    index_limits: dict[str, int] = field(default_factory=dict)
    states: tuple[StateSpec, ...] = ()
    static_shapes: tuple[Shapes, ...] = ()


def cases() -> list[Case]:
    rng = np.random.default_rng(7)

    def f32(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape).astype(np.float32)

    image = Case(
        "image",
        """(float[1,3,4,5] image, float[3,2] w) => (float[1,2] scores)
        { pooled = GlobalAveragePool(image)
          flat = Flatten(pooled)
          h = MatMul(flat, w)
          scores = Tanh(h) }""",
        (TensorSpec("image", "float32", (1, 3, 4, 5), "NCHW"),),
        (TensorSpec("scores", "float32", (1, 2)),),
        [[f32(1, 3, 4, 5)], [f32(1, 3, 4, 5)]],
        {"w": f32(3, 2)},
    )
    tokens = Case(
        "tokens",
        """(int64[n,t] ids, int64[n,t] mask, float[12,3] table) =>
           (float[n,3] pooled, int64[2,k] used)
        { rows = Gather(table, ids)
          one = Constant<value_ints = [2]>()
          sum_axis = Constant<value_ints = [1]>()
          keep = Cast<to = 1>(mask)
          wide = Unsqueeze(keep, one)
          kept = Mul(rows, wide)
          pooled = ReduceSum<keepdims = 0>(kept, sum_axis)
          used = NonZero(mask) }""",
        (TensorSpec("ids", "int64", ("n", "t")), TensorSpec("mask", "int64", ("n", "t"))),
        (TensorSpec("pooled", "float32", ("n", 3)), TensorSpec("used", "int64", (2, "k"))),
        [[np.array([[3, 1, 11, 0]]), np.array([[1, 1, 1, 0]])]],
        {"table": f32(12, 3)},
        axes={"n": (1, 4), "t": (1, 8)},
        index_limits={"ids": 12},
        static_shapes=({"ids": (1, 4), "mask": (1, 4)},),
    )
    dtypes = Case(
        "dtypes",
        """(float16[2] half, uint8[2] byte, bool[2] flag, float scalar, double[2] wide) =>
           (float16[2] half2, uint8[2] byte2, bool[2] flag2, float scalar2, double[2] wide2)
        { half2 = Add(half, half)
          whole = Cast<to = 6>(byte)
          twice = Add(whole, whole)
          byte2 = Cast<to = 2>(twice)
          flag2 = Not(flag)
          scalar2 = Add(scalar, scalar)
          wide2 = Add(wide, wide) }""",
        (
            TensorSpec("half", "float16", (2,)),
            TensorSpec("byte", "uint8", (2,)),
            TensorSpec("flag", "bool", (2,)),
            TensorSpec("scalar", "float32", ()),
            TensorSpec("wide", "float64", (2,)),
        ),
        (
            TensorSpec("half2", "float16", (2,)),
            TensorSpec("byte2", "uint8", (2,)),
            TensorSpec("flag2", "bool", (2,)),
            TensorSpec("scalar2", "float32", ()),
            TensorSpec("wide2", "float64", (2,)),
        ),
        [
            [
                np.array([1.5, -2], np.float16),
                np.array([3, 100], np.uint8),
                np.array([True, False]),
                np.array(1.25, np.float32),
                np.array([0.5, 3]),
            ]
        ],
    )
    echo = Case(
        "echo",
        """(float[1,4] x, float[1,4] h_in) => (float[1,4] y, float[1,4] h_out)
        { h_out = Add(x, h_in)
          y = Mul(h_out, x) }""",
        (TensorSpec("x", "float32", (1, 4)), TensorSpec("h_in", "float32", (1, 4))),
        (TensorSpec("y", "float32", (1, 4)), TensorSpec("h_out", "float32", (1, 4))),
        [[f32(1, 4), np.zeros((1, 4), np.float32)]],
        states=(StateSpec("h_in", "h_out"),),
    )
    return [image, tokens, dtypes, echo]


def onnx_bytes(case: Case) -> bytes:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 18]> {case.name} {case.text}')
    for value in list(model.graph.inputs):
        if value.name in case.weights:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(case.weights[value.name], name=value.name)
            model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def openvino_files(model: bytes) -> dict[str, bytes]:
    ov = import_vendor("openvino")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(ov.Core().read_model(model, b""), path, compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


def make(case: Case, folder: Path) -> Path:
    model = onnx_bytes(case)
    config = EngineConfig(threads=1, static_shapes=case.static_shapes)
    engine = open_engine("onnxruntime", {"model.onnx": model}, config, case.inputs, case.outputs)
    answers = []
    for sample in case.golden:
        shapes = {s.name: x.shape for s, x in zip(case.inputs, sample, strict=True)}
        request = engine.request(shapes)
        for bound, x in zip(request.inputs, sample, strict=True):
            bound[...] = x
        request.infer()
        answers.append([np.array(y) for y in request.outputs])
    members = golden_members(case.golden, answers)
    variants = []
    for runtime, files in (
        ("openvino", openvino_files(model)),
        ("onnxruntime", {"model.onnx": model}),
    ):
        places = {name: f"variants/any-cpu/{runtime}/{name}" for name in files}
        members |= {places[name]: data for name, data in files.items()}
        version = str(import_vendor(runtime).__version__).partition("-")[0]
        tolerance = {spec.name: 1e-4 for spec in case.outputs}
        variants.append(Variant("any-cpu", runtime, "f32", places, config, version, (), tolerance))
    manifest = Manifest(
        name=case.name,
        edgebm_version="0.1.0",
        inputs=case.inputs,
        outputs=case.outputs,
        variants=tuple(variants),
        states=case.states,
        axes=case.axes,
        index_limits=case.index_limits,
        golden=len(case.golden),
    )
    return write_bundle(folder / f"{case.name}.edgebm", manifest, members, force=True)


if __name__ == "__main__":
    for one in cases():
        print(make(one, DATA), (DATA / f"{one.name}.edgebm").stat().st_size, "bytes")
