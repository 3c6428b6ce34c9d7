"""What `canonicalize` promises, each promise once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.ir.canonical import INTERNAL_OPSET, canonicalize
from edgebm.ir.edit import const
from edgebm.ir.model import Model

Array = NDArray[Any]
X = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)


def parse(body: str, *, opset: int = 20, face: str = "", **weights: Any) -> Model:
    """A graph with input x: float[B,3,8] and output y."""
    face = face or "(float[B,3,8] x) => (float[B,p,q] y)"
    text = f'<ir_version: 8, opset_import: ["" : {opset}]>\ng {face} {{\n {body}\n}}'
    return Model.parse(text, **{k: np.asarray(v) for k, v in weights.items()})


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.nodes()]


def run(model: Model, *feeds: Array) -> list[Array]:
    session = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    outputs: list[Array] = session.run(None, dict(zip(names, feeds, strict=True)))
    return outputs


def same(model: Model, canonical: Model, *feeds: Array) -> None:
    for ours, theirs in zip(run(canonical, *feeds), run(model, *feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_source_is_left_alone() -> None:
    model = parse("a = Identity(x)\n y = Relu(a)", opset=13)
    before = model.to_bytes()
    canonicalize(model)
    assert model.to_bytes() == before


def test_twice_is_once() -> None:
    model = canonicalize(parse("a = Identity(x)\n y = Softmax<axis=1>(a)", opset=11))
    assert canonicalize(model).to_bytes() == model.to_bytes()


def test_constants_become_initializers_and_fold() -> None:
    model = parse(
        "a = Constant<value_float=2.0>()\n b = Add(a, w)\n y = Mul(x, b)", w=np.float32(1)
    )
    canonical = canonicalize(model)
    assert ops(canonical) == ["Mul"]
    assert float(const(next(canonical.nodes()).inputs[1])) == 3.0  # type: ignore[arg-type]
    same(model, canonical, X)


def test_a_constant_output_keeps_its_name() -> None:
    face = "(float[B,3,8] x) => (float[B,3,8] y, int64[1] n)"
    model = parse("y = Relu(x)\n s = Shape<start=2>(x)\n n = Identity(s)", face=face)
    canonical = canonicalize(model)
    assert [value.name for value in canonical.graph.graph.outputs] == ["y", "n"]
    same(model, canonical, X)


def test_weights_among_the_inputs_are_lifted_out() -> None:
    model = parse("y = Mul(x, w)", face="(float[B,3,8] x, float[8] w) => (float[B,3,8] y)")
    graph = model.graph.graph
    graph.inputs[1].const_value = ir.tensor(np.ones(8, np.float32), name="w")
    graph.register_initializer(graph.inputs[1])
    canonical = canonicalize(model)
    assert [value.name for value in canonical.graph.graph.inputs] == ["x"]
    assert list(canonical.graph.graph.initializers) == ["w"]


def test_a_model_of_constants_only_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="no input"):
        canonicalize(parse("y = Relu(w)", face="() => (float[2] y)", w=np.ones(2, np.float32)))


@pytest.mark.parametrize("flag", [True, False])
def test_an_if_with_a_known_condition_becomes_its_branch(flag: bool) -> None:
    body = """w = Constant<value_float=3.0>()
    y = If (flag) <
      then_branch = then_g () => (float[B,3,8] t) { a = Relu(x) t = Mul(a, w) },
      else_branch = else_g () => (float[B,3,8] e) { a = Neg(x) e = Mul(a, w) } >"""
    model = parse(body, flag=np.asarray(flag))
    canonical = canonicalize(model)
    assert ops(canonical) == (["Relu", "Mul"] if flag else ["Neg", "Mul"])
    expected = np.maximum(X, 0) * 3 if flag else -X * 3
    np.testing.assert_allclose(run(canonical, X)[0], expected, rtol=1e-6)


def test_an_if_inside_an_if_that_depends_on_a_static_shape_folds() -> None:
    body = """s = Shape<start=1, end=2>(x)
    c = Equal(s, three)
    y = If (c) <
      then_branch = a () => (float[B,3,8] t) {
        t = If (c) < then_branch = b () => (float[B,3,8] u) { u = Relu(x) },
                     else_branch = d () => (float[B,3,8] v) { v = Abs(x) } >
      },
      else_branch = f () => (float[B,3,8] e) { e = Neg(x) } >"""
    canonical = canonicalize(parse(body, three=np.asarray([3])))
    assert ops(canonical) == ["Relu"]


def test_dropout_and_identity_go_and_unused_nodes_too() -> None:
    body = "a = Dropout(x)\n b = Identity(a)\n unused = Exp(b)\n c = Relu(b)\n y = Identity(c)"
    canonical = canonicalize(parse(body, opset=13))
    assert ops(canonical) == ["Relu"]
    assert canonical.graph.graph.outputs[0].name == "y"


def test_a_dropout_between_input_and_output_becomes_an_identity() -> None:
    assert ops(canonicalize(parse("y = Dropout(x)", opset=7))) == ["Identity"]


def test_training_mode_is_refused_by_node() -> None:
    body = "[drop] y = Dropout(x, r, t)"
    with pytest.raises(UnsupportedModel, match="Dropout 'drop': it is in training mode"):
        canonicalize(parse(body, r=np.float32(0.5), t=np.asarray(True)))


def test_nodes_and_values_get_unique_names() -> None:
    body = "[same] a = Relu(x)\n [same] b = Neg(a)\n c = Abs(b)\n d = Abs(c)\n y = Exp(d)"
    canonical = canonicalize(parse(body))
    assert [n.name for n in canonical.nodes()] == ["same", "same_1", "Abs_0", "Abs_1", "Exp_0"]
    values = [value.name for node in canonical.nodes() for value in node.outputs]
    assert values == ["a", "b", "c", "d", "y"]


def test_shapes_and_dtypes_are_known_everywhere() -> None:
    canonical = canonicalize(parse("a = Transpose<perm=[0,2,1]>(x)\n y = MatMul(x, a)"))
    shapes = [str(value.shape) for node in canonical.nodes() for value in node.outputs]
    assert shapes == ["[B,8,3]", "[B,p,q]"]
    assert all(v.dtype is not None for node in canonical.nodes() for v in node.outputs)


def test_a_reshape_by_computed_shape_gets_a_constant_one() -> None:
    body = """s = Shape(x)
    b = Gather(s, zero)
    b1 = Unsqueeze(b, axis)
    t = Concat<axis=0>(b1, rest)
    y = Reshape(x, t)"""
    weights = {"zero": 0, "axis": [0], "rest": [4, 6]}
    model = parse(body, **weights)
    canonical = canonicalize(model)
    assert ops(canonical) == ["Reshape"]
    assert list(const(next(canonical.nodes()).inputs[1])) == [-1, 4, 6]  # type: ignore[arg-type]
    same(model, canonical, X)


def test_two_free_axes_are_copied_where_they_stand() -> None:
    face = "(float[B,T,8] x) => (float[B,T,2,4] y)"
    body = "s = Shape<end=2>(x)\n t = Concat<axis=0>(s, rest)\n y = Reshape<allowzero=1>(x, t)"
    model = parse(body, face=face, rest=[2, 4])
    canonical = canonicalize(model)
    assert ops(canonical) == ["Reshape"]
    assert list(const(next(canonical.nodes()).inputs[1])) == [0, 0, 2, 4]  # type: ignore[arg-type]
    same(model, canonical, X)


def test_an_lstm_keeps_no_initial_state_of_zeros() -> None:
    face = "(float[5,B,4] x) => (float[5,1,B,3] y)"
    body = """b = Shape<start=1, end=2>(x)
    t = Concat<axis=0>(one, b, three)
    h = ConstantOfShape(t)
    y = LSTM<hidden_size=3>(x, w, r, , , h, h)"""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.normal(size=(1, 12, 4)).astype(np.float32),
        "r": rng.normal(size=(1, 12, 3)).astype(np.float32),
        "one": [1],
        "three": [3],
    }
    model = parse(body, face=face, **weights)
    canonical = canonicalize(model)
    assert ops(canonical) == ["LSTM"]
    same(model, canonical, rng.normal(size=(5, 2, 4)).astype(np.float32))


def test_a_cast_like_becomes_a_constant() -> None:
    model = parse("c = CastLike(w, x)\n y = Mul(x, c)", w=np.asarray(3))
    canonical = canonicalize(model)
    assert ops(canonical) == ["Mul"]
    same(model, canonical, X)


def test_a_transpose_through_three_axes_becomes_one_node() -> None:
    face = "(float[B,2,3,4] x) => (float[B,2,4,3] y)"
    body = """f = Reshape(x, flat)
    t = Transpose<perm=[0,2,1]>(f)
    s = Shape<end=2>(x)
    back = Concat<axis=0>(s, four)
    y = Reshape(t, back)"""
    model = parse(body, face=face, flat=[-1, 3, 4], four=[4, 3])
    canonical = canonicalize(model)
    assert ops(canonical) == ["Transpose"]
    same(model, canonical, np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4))


def test_traces_of_the_exporter_go() -> None:
    model = parse("y = Relu(x)")
    model.graph.producer_name = "pytorch"
    next(model.nodes()).metadata_props["stack_trace"] = "/home/me/model.py"
    canonical = canonicalize(model)
    assert b"/home/me" not in canonical.to_bytes()
    assert b"pytorch" not in canonical.to_bytes()
    assert canonical.graph.opset_imports == {"": INTERNAL_OPSET}


def test_invalid_attributes_are_reported_with_the_checkers_words() -> None:
    with pytest.raises(ModelError, match="(?s)onnx.checker says.*nonsense"):
        canonicalize(parse("y = Relu<nonsense=1>(x)"))


def test_a_sum_of_two_is_an_add() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2] x, float[2] y) => (float[2] z) { a = Sum (x, y)  z = Sum (a) }
    """
    model = canonicalize(Model.parse(text))
    assert [node.op_type for node in model.nodes()] == ["Add"]


def test_an_initial_state_that_is_not_zero_stays() -> None:
    face = "(float[5,2,4] x) => (float[5,1,2,3] y)"
    weights = {
        "w": np.ones((1, 9, 4), np.float32),
        "r": np.ones((1, 9, 3), np.float32),
        "h": np.full((1, 2, 3), 0.5, np.float32),
    }
    canonical = canonicalize(parse("y = GRU<hidden_size=3>(x, w, r, , , h)", face=face, **weights))
    (gru,) = canonical.nodes()
    assert gru.inputs[5] is not None


@pytest.mark.parametrize(
    "body",
    [
        # read in the middle, other axes, other sizes at the end
        "f = Reshape(x, a)\n t = Transpose<perm=[0,2,1]>(f)\n z = Reshape(t, b)\n y = Add(t, t)",
        "f = Reshape(x, a)\n t = Transpose<perm=[1,0,2]>(f)\n y = Reshape(t, b)",
        "f = Reshape(x, a)\n t = Transpose<perm=[0,2,1]>(f)\n y = Reshape(t, c)",
    ],
)
def test_other_transposes_between_reshapes_stay(body: str) -> None:
    shapes = {"a": [4, 3, 4], "b": [2, 2, 4, 3], "c": [2, 2, 3, 4]}
    shapes = {label: shape for label, shape in shapes.items() if f", {label})" in body}
    outputs = "float[p,q,r] y, float[2,2,4,3] z" if "z" in body else "float[p,q,r,s] y"
    model = parse(body, face=f"(float[2,2,3,4] x) => ({outputs})", **shapes)
    canonical = canonicalize(model)
    assert "Reshape" in ops(canonical)
    same(model, canonical, np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4))


def test_a_weight_that_several_nodes_read_stays_one_array() -> None:
    canonical = canonicalize(parse("a = Mul(x, w)\n y = Add(a, w)", w=np.ones(8, np.float32)))
    assert list(canonical.graph.graph.initializers) == ["w"]
    assert canonical.param_count() == 8
