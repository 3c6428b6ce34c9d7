"""Models that the TensorRT engine is tried on; its answers must be those of ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgebm.bundle_writer import write_bundle
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST
from edgebm.runtime.engines import Engine, Request, open_engine
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.compiled import Compiled
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    text: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    config: EngineConfig = field(default_factory=EngineConfig)

    @property
    def model(self) -> bytes:
        model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 19]> g {self.text}')
        for index, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{index}"
        return model.SerializeToString()


@dataclass
class Opened:
    case: Case
    engine: Engine

    def request(self, *shapes: tuple[int, ...], **how: Any) -> Request:
        names = (spec.name for spec in self.case.inputs)
        return self.engine.request(dict(zip(names, shapes, strict=True)), **how)

    def check(self, request: Request, *arrays: Array) -> None:
        """Run with these inputs; the answers are those of ONNX Runtime."""
        for own, array in zip(request.inputs, arrays, strict=True):
            own[...] = array
        request.infer()
        feeds = {s.name: x for s, x in zip(self.case.inputs, arrays, strict=True)}
        session = ort.InferenceSession(self.case.model, providers=["CPUExecutionProvider"])
        wanted = session.run([spec.name for spec in self.case.outputs], feeds)
        for got, due in zip(request.outputs, wanted, strict=True):
            assert got.dtype == due.dtype
            np.testing.assert_array_equal(got, due)


def x(*shape: int | str) -> TensorSpec:
    return TensorSpec("x", "float32", shape)


def y(*shape: int | str) -> TensorSpec:
    return TensorSpec("y", "float32", shape)


@cache
def cases() -> dict[str, Case]:
    rows = EngineConfig(precision="f16", axes={"n": (1, 2, 4)}, static_shapes=({"x": (3, 8)},))
    return {
        "fixed": Case(
            "(float[1,8] x) => (float[1,8] y) { y = Mul(x, x) }", (x(1, 8),), (y(1, 8),)
        ),
        "rows": Case(
            "(float[n,8] x) => (float[n,8] y) { h = Tanh(x) \n y = Add(h, x) }",
            (x("n", 8),),
            (y("n", 8),),
            rows,
        ),
        "values": Case(
            "(float[n,8] x) => (float[n,8] y, int64[2,k] w) { y = Neg(x) \n w = NonZero(x) }",
            (x("n", 8),),
            (y("n", 8), TensorSpec("w", "int64", (2, "k"))),
            replace(rows, static_shapes=()),
        ),
        "shape": Case(
            "(float[n,8] x) => (int64[2] s, float[n,8] y) { s = Shape(x) \n y = Neg(x) }",
            (x("n", 8),),
            (TensorSpec("s", "int64", (2,)), y("n", 8)),
            rows,
        ),
        "two": Case(
            """(float[n,8] x, int64[n] k) => (float[n,8] y, int64[n] j)
            { y = Abs(x) \n j = Neg(k) }""",
            (x("n", 8), TensorSpec("k", "int64", ("n",))),
            (y("n", 8), TensorSpec("j", "int64", ("n",))),
            replace(rows, static_shapes=({"x": (2, 8), "k": (2,)}, {"x": (3, 8), "k": (3,)})),
        ),
        "grows": Case(
            """(float[1,2] x, float[p,2] c) => (float[1,2] y, float[q,2] d)
            { d = Concat<axis = 0>(c, x) \n one = Constant<value_ints = [0]>()
              y = ReduceSum(d, one) }""",
            (x(1, 2), TensorSpec("c", "float32", ("p", 2))),
            (y(1, 2), TensorSpec("d", "float32", ("q", 2))),
            EngineConfig(axes={"p": (0, 4, 40)}),
        ),
        "int8": Case(int8_text(), (x(1, 8),), (y(1, 4),)),
    }


def int8_text() -> str:
    """Two products of int8, and one that stays float."""
    return f"""(float[1,8] x) => (float[1,4] y)
      {{ s = Constant<value_float = 0.05>()
        z = Constant<value = int8 {{0}}>()
        wa = Constant<value = int8[8,8] {_numbers(64)}>()
        wb = Constant<value = int8[8,4] {_numbers(32)}>()
        wc = Constant<value = float[4,4] {_numbers(16)}>()
        xq = QuantizeLinear(x, s, z)
        xd = DequantizeLinear(xq, s, z)
        da = DequantizeLinear(wa, s, z)
        m = MatMul(xd, da)
        mq = QuantizeLinear(m, s, z)
        md = DequantizeLinear(mq, s, z)
        db = DequantizeLinear(wb, s, z)
        n = MatMul(md, db)
        y = MatMul(n, wc) }}"""


def _numbers(count: int) -> str:
    return "{" + ", ".join(str(k % 7 - 3) for k in range(count)) + "}"


def opened(case: Case, compiled: Compiled | None = None, **building: Any) -> Opened:
    files = {} if compiled else {"model.onnx": case.model}
    face = (case.inputs, case.outputs)
    how = Building(**building)
    return Opened(case, open_engine("tensorrt", files, case.config, *face, compiled, building=how))


@cache
def cuda() -> ctypes.CDLL:
    """The stand-in's own functions."""
    library = ctypes.CDLL(os.environ["STANDIN_CUDART"])
    library.standin_used.restype = library.standin_copied.restype = ctypes.c_size_t
    library.standin_limit.argtypes = (ctypes.c_size_t,)
    library.standin_fail.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
    return library


def numbers(*shape: int) -> Array:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def with_tensorrt(bundle: Path, folder: Path) -> Path:
    """The bundle with a variant for TensorRT before those that it has."""
    found = read_bundle(bundle)
    manifest: Manifest = found.manifest
    parts = {name: bytes(data) for name, data in found.members.items() if name != MANIFEST}
    source = next(v for v in manifest.variants if v.runtime == "onnxruntime")
    place = "variants/jetson/tensorrt/model.onnx"
    parts[place] = parts[source.files["model.onnx"]]
    axes = {name: (low, (low + high) // 2, high) for name, (low, high) in manifest.axes.items()}
    config = replace(source.config, axes=axes)
    variant = Variant(
        "jetson", "tensorrt", "f16", {"model.onnx": place}, config, "", (), source.tolerance
    )
    manifest = replace(manifest, variants=(variant, *manifest.variants), members={})
    return write_bundle(folder / bundle.name, manifest, parts)
