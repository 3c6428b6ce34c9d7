"""Make the small bundles in `data/`; run by hand, on a host, when the format changes.

python tests/device/make_bundles.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.bundle_writer import golden_members, write_bundle
from edgebm.runtime.engines import import_vendor, open_engine
from edgebm.runtime.npy import npy_bytes
from edgebm.spec import EngineConfig, Manifest, Shapes, StateSpec, TensorSpec, Variant

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One model as ONNX text, its face, and golden inputs.

    None among golden inputs is a state: the initial one, or what the sample before gave.
    """

    name: str
    text: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: list[list[np.ndarray[Any, Any] | None]]
    weights: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    axes: dict[str, tuple[int, int]] = field(default_factory=dict)
    index_limits: dict[str, int] = field(default_factory=dict)
    states: tuple[StateSpec, ...] = ()
    static_shapes: tuple[Shapes, ...] = ()
    initial: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)


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
    return [image, tokens, dtypes, echo, *streams(f32)]


def streams(f32: Callable[..., np.ndarray[Any, Any]]) -> list[Case]:
    def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
        return TensorSpec(name, dtype, shape)

    layers = "".join(
        f"""s{i}, h{i}o, c{i}o = LSTM<hidden_size = 3>({x}, w{i}, r{i}, b{i}, , h{i}, c{i})
            f{i} = Squeeze(s{i}, one)
            """
        for i, x in ((0, "xt"), (1, "f0"))
    )
    lstm = Case(
        "lstm",
        f"""(float[1,1,4] x, float[2,1,3] h, float[2,1,3] c, int64[1] one, float[1,12,4] w0,
             float[1,12,3] r0, float[1,24] b0, float[1,12,3] w1, float[1,12,3] r1, float[1,24] b1)
            => (float[1,1,3] y, float[2,1,3] h_out, float[2,1,3] c_out)
        {{ xt = Transpose<perm = [1, 0, 2]>(x)
           h0, h1 = Split<axis = 0, num_outputs = 2>(h)
           c0, c1 = Split<axis = 0, num_outputs = 2>(c)
           {layers}
           y = Transpose<perm = [1, 0, 2]>(f1)
           h_out = Concat<axis = 0>(h0o, h1o)
           c_out = Concat<axis = 0>(c0o, c1o) }}""",
        (spec("x", 1, 1, 4), spec("h", 2, 1, 3), spec("c", 2, 1, 3)),
        (spec("y", 1, 1, 3), spec("h_out", 2, 1, 3), spec("c_out", 2, 1, 3)),
        [[f32(1, 1, 4), None, None] for _ in range(4)],
        {"one": np.array([1]), "w0": f32(1, 12, 4), "r0": f32(1, 12, 3), "b0": f32(1, 24),
         "w1": f32(1, 12, 3), "r1": f32(1, 12, 3), "b1": f32(1, 24)},
        states=(StateSpec("h", "h_out", "states/0.npy"), StateSpec("c", "c_out")),
        initial={"h": np.tanh(f32(2, 1, 3))},
    )  # fmt: skip
    chunks = Case(
        "chunks",
        """(float[t,n,4] x, int64[1] seen, float[1,n,3] h, int64[1] one, float[1,9,4] w,
            float[1,9,3] r) => (float[1,n,3] h_out, float[t,n,3] y, int64[1] seen_out)
        { s, h_out = GRU<hidden_size = 3, linear_before_reset = 1>(x, w, r, , , h)
          y = Squeeze(s, one)
          seen_out = Add(seen, one) }""",
        (spec("x", "t", "n", 4), spec("seen", 1, dtype="int64"), spec("h", 1, "n", 3)),
        (spec("h_out", 1, "n", 3), spec("y", "t", "n", 3), spec("seen_out", 1, dtype="int64")),
        [[f32(2, 1, 4), None, None], [f32(1, 1, 4), None, None]],
        {"one": np.array([1]), "w": f32(1, 9, 4), "r": f32(1, 9, 3)},
        axes={"t": (1, 6), "n": (1, 3)},
        states=(StateSpec("seen", "seen_out"), StateSpec("h", "h_out", "states/1.npy")),
        initial={"h": np.tanh(f32(1, 1, 3))},
    )
    decoder = Case(
        "decoder",
        """(float[1,1,4] x, float[1,past,4] k, float[1,past,4] v, int64[1] pos, int64[1] one,
            float[24,4] table) => (float[1,1,4] y, float[1,total,4] k_out, float[1,total,4] v_out,
            int64[1] pos_out)
        { place = Gather(table, pos)
          q = Add(x, place)
          n = Tanh(q)
          k_out = Concat<axis = 1>(k, q)
          v_out = Concat<axis = 1>(v, n)
          kt = Transpose<perm = [0, 2, 1]>(k_out)
          s = MatMul(q, kt)
          p = Softmax<axis = -1>(s)
          y = MatMul(p, v_out)
          pos_out = Add(pos, one) }""",
        (spec("x", 1, 1, 4), spec("k", 1, "past", 4), spec("v", 1, "past", 4),
         spec("pos", 1, dtype="int64")),
        (spec("y", 1, 1, 4), spec("k_out", 1, "total", 4), spec("v_out", 1, "total", 4),
         spec("pos_out", 1, dtype="int64")),
        [[f32(1, 1, 4), None, None, None] for _ in range(3)],
        {"one": np.array([1]), "table": f32(24, 4)},
        axes={"past": (0, 20)},
        index_limits={"pos": 24},
        states=(StateSpec("k", "k_out"), StateSpec("v", "v_out"), StateSpec("pos", "pos_out")),
    )  # fmt: skip
    return [lstm, chunks, decoder]


def initial_states(case: Case) -> dict[str, np.ndarray[Any, Any]]:
    specs = {spec.name: spec for spec in case.inputs}
    sizes = {name: low for name, (low, _) in case.axes.items()}
    made = {}
    for state in case.states:
        spec = specs[state.input]
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in spec.shape)
        start = case.initial.get(state.input, np.zeros(shape, spec.dtype))
        made[state.input] = np.broadcast_to(start, shape)
    return made


def golden_samples(
    case: Case, model: bytes, config: EngineConfig
) -> tuple[list[list[np.ndarray[Any, Any]]], list[list[np.ndarray[Any, Any]]]]:
    engine = open_engine("onnxruntime", {"model.onnx": model}, config, case.inputs, case.outputs)
    states, samples, answers = initial_states(case), [], []
    for given in case.golden:
        sample = [
            states[spec.name] if x is None else x
            for spec, x in zip(case.inputs, given, strict=True)
        ]
        shapes = {s.name: x.shape for s, x in zip(case.inputs, sample, strict=True)}
        request = engine.request(shapes)
        for bound, x in zip(request.inputs, sample, strict=True):
            bound[...] = x
        request.infer()
        samples.append(sample)
        answers.append([np.array(y) for y in request.outputs])
        named = {s.name: y for s, y in zip(case.outputs, answers[-1], strict=True)}
        states = {state.input: named[state.output] for state in case.states}
    return samples, answers


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
    samples, answers = golden_samples(case, model, config)
    members = golden_members(samples, answers)
    for state in case.states:
        if state.initial:
            members[state.initial] = npy_bytes(case.initial[state.input])
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
        golden=len(samples),
    )
    return write_bundle(folder / f"{case.name}.edgebm", manifest, members, force=True)


if __name__ == "__main__":
    for one in cases():
        print(make(one, DATA), (DATA / f"{one.name}.edgebm").stat().st_size, "bytes")
