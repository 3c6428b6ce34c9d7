"""Every Q/DQ node of small graphs as text. `pytest --update-golden` writes the files anew."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from graphs import quantized, random_model, samples

from edgebm.backends.dialects import Dialect, cpu_dialects
from edgebm.backends.placement import Placement
from edgebm.ir.model import Model

CASES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "conv_relu_conv": (
        """g (float[1,3,6,6] x) => (float[1,2,2,2] y) {
          [c1] h = Conv(x, w1, b1)
          [r1] r = Relu(h)
          [c2] y = Conv(r, w2)
        }""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (2, 4, 3, 3)},
    ),
    "residual": (
        """g (float[1,4,6,6] x) => (float[1,5] y) {
          [c1] h1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
          [r1] r1 = Relu(h1)
          [c2] h2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
          [add] s = Add(h2, r1)
          [r2] r2 = Relu(s)
          [pool] p = GlobalAveragePool(r2)
          [flat] f = Flatten(p)
          [fc] y = Gemm<transB=1>(f, w3, b3)
        }""",
        {
            "w1": (4, 4, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (5, 4),
            "b3": (5,),
        },
    ),
    "depthwise": (
        """g (float[1,4,6,6] x) => (float[1,6] y) {
          [dw] h = Conv<group=4, pads=[1,1,1,1]>(x, w1)
          [clip] c = Clip(h, zero, six)
          [pw] p = Conv(c, w2)
          [r] r = Relu(p)
          [mean] y = ReduceMean<keepdims=0>(r, axes)
        }""",
        {"w1": (4, 1, 3, 3), "w2": (6, 4, 1, 1)},
    ),
    "carriers": (
        """g (float[1,3,8,8] x) => (float[16,5] y) {
          [c1] h = Conv<pads=[1,1,1,1]>(x, w1)
          [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h)
          [move] t = Transpose<perm=[0,2,3,1]>(p)
          [flat] f = Reshape(t, flat_shape)
          [fc] y = MatMul(f, w2)
        }""",
        {"w1": (4, 3, 3, 3), "w2": (4, 5)},
    ),
    "concat": (
        """g (float[1,4,6,6] x) => (float[1,4] y) {
          [c1] a = Conv<pads=[1,1,1,1]>(x, w1)
          [c2] b = Conv(x, w2)
          [cat] j = Concat<axis=1>(a, b)
          [c3] o = Conv(j, w3)
          [mean] y = ReduceMean<keepdims=0>(o, axes)
        }""",
        {"w1": (4, 4, 3, 3), "w2": (2, 4, 1, 1), "w3": (4, 6, 1, 1)},
    ),
    "conv_output": (
        "g (float[1,3,6,6] x) => (float[1,4,4,4] y) { [c] y = Conv(x, w, b) }",
        {"w": (4, 3, 3, 3), "b": (4,)},
    ),
    "attention": (
        """g (float[1,6,8] x) => (float[1,6,8] y) {
          [q] q = MatMul(x, wq)
          [k] k = MatMul(x, wk)
          [kt] t = Transpose<perm=[0,2,1]>(k)
          [qk] s = MatMul(q, t)
          [soft] p = Softmax<axis=-1>(s)
          [pv] a = MatMul(p, q)
          [o] y = MatMul(a, wo)
        }""",
        {"wq": (8, 8), "wk": (8, 8), "wo": (8, 8)},
    ),
    "embedding": (
        """g (int64[1,6] ids) => (float[1,6,4] y) {
          [table] e = Gather(table, ids)
          [fc] y = MatMul(e, w)
        }""",
        {"table": (600, 8), "w": (8, 4)},
    ),
    "shared_weight": (
        """g (float[2,6] x) => (float[2,6] y) {
          [a] h = MatMul(x, w)
          [r] r = Relu(h)
          [b] y = MatMul(r, w)
        }""",
        {"w": (6, 6)},
    ),
    "transposed_conv": (
        """g (float[1,4,4,4] x) => (float[1,4,8,8] y) {
          [c] h = Conv<pads=[1,1,1,1]>(x, w1)
          [a] g = Relu(h)
          [up] u = ConvTranspose<strides=[2,2]>(g, w2, b2)
          [r] y = Relu(u)
        }""",
        {"w1": (4, 4, 3, 3), "w2": (4, 4, 2, 2), "b2": (4,)},
    ),
    "split": (
        """g (float[1,6,4] x) => (float[1,6,4] y, float[1,6,4] z) {
          [fc] h = MatMul(x, w)
          [cut] a, b = Split<axis=2, num_outputs=2>(h)
          [up] y = MatMul(a, w2)
          [down] z = MatMul(b, w2)
        }""",
        {"w": (4, 8), "w2": (4, 4)},
    ),
}  # fmt: skip
CONSTANTS = {
    "depthwise": " <float zero = {0}, float six = {6}, int64[2] axes = {2, 3}>",
    "concat": " <int64[2] axes = {2, 3}>",
    "carriers": " <int64[2] flat_shape = {16, 4}>",
}
DIALECTS = [d for runtime in ("onnxruntime", "openvino") for d in cpu_dialects(runtime)]


def build(case: str) -> Model:
    text, shapes = CASES[case]
    head, body = text.split(" {\n", 1) if " {\n" in text else text.split(" {", 1)
    return random_model(f"{head}{CONSTANTS.get(case, '')} {{\n{body}", **shapes)


def render(lowered: Model, plan: Placement) -> str:
    """Nodes in order with dtypes and grids, then why the rest stays in float."""
    lines = [f"{_value(v)} in" for v in lowered.graph.graph.inputs]
    lines += [_line(node) for node in lowered.nodes()]
    lines += [f"{_value(v)} out" for v in lowered.graph.graph.outputs]
    lines += [f"float {name}: {reason}" for name, reason in plan.reasons.items()]
    return "\n".join(lines) + "\n"


def _line(node: ir.Node) -> str:
    attributes = [
        f"{key}={list(a.value) if isinstance(a.value, (tuple, list)) else a.value}"
        for key, a in sorted(node.attributes.items())
    ]
    shown = f"<{', '.join(attributes)}>" if attributes else ""
    read = ", ".join("" if v is None else _read(v) for v in node.inputs)
    made = ", ".join(_value(v) for v in node.outputs)
    return f"{made} = {node.op_type}{shown}({read})"


def _read(value: ir.Value) -> str:
    """The name; constants show their dtype and shape, and small ones three digits."""
    if value.const_value is None:
        return str(value.name)
    array = value.const_value.numpy()
    shown = f"{value.name}:{array.dtype}{list(array.shape)}"
    if array.size == 1:
        shown += f"={array.reshape(-1)[0]:.3g}"
    return shown


def _value(value: ir.Value) -> str:
    shape = "?" if value.shape is None else str(list(value.shape.numpy()))
    return f"{value.name}:{str(value.dtype).lower()}{shape}"


def test_every_placement_is_as_it_was_reviewed(
    case: str, dialect: Dialect, update_golden: bool
) -> None:
    model = build(case)
    text = render(*quantized(model, dialect, calibration=samples(model, 4), observer="minmax"))
    path = Path(__file__).parent / dialect.name / f"{case}.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), "run pytest --update-golden and review the new file"
    assert text == path.read_text()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    pairs = [(case, dialect) for case in CASES for dialect in DIALECTS if _worth(case, dialect)]
    ids = [f"{case}-{dialect.name}" for case, dialect in pairs]
    if "case" in metafunc.fixturenames:
        metafunc.parametrize(("case", "dialect"), pairs, ids=ids)


def _worth(case: str, dialect: Dialect) -> bool:
    """The attention dialect differs in one graph only."""
    return not dialect.attention or case == "attention"
