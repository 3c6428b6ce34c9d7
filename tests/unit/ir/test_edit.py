from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgebm.errors import ModelError
from edgebm.ir.edit import (
    add_const,
    add_node,
    bypass,
    const,
    free_name,
    input_at,
    inputs,
    insert_after,
    remove_dead,
    set_const,
    sole_user,
)
from edgebm.ir.model import Model

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
SHARED = """g (float[2,2] x) => (float[2,2] y) {
 [first] a = MatMul(x, w)
 [second] y = MatMul(a, w)
}"""


def shared() -> Model:
    return Model.parse(HEADER + SHARED, w=np.eye(2, dtype=np.float32))


def names(model: Model) -> list[str | None]:
    return [value.name for value in (*model.graph.graph.inputs, *model.graph.graph.outputs)]


def test_a_constant_is_read_only() -> None:
    array = const(next(shared().nodes()).inputs[1])
    assert array is not None
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert const(next(shared().nodes()).inputs[0]) is None
    assert const(None) is None


def test_set_const_leaves_the_other_reader_alone() -> None:
    model = shared()
    first, second = model.nodes()
    set_const(first, 1, np.zeros((2, 2), np.float32), suffix="pruned")
    assert [value.name for value in inputs(first)] == ["x", "w.pruned"]
    np.testing.assert_array_equal(const(second.inputs[1]), np.eye(2))  # type: ignore[arg-type]
    set_const(second, 1, np.full((2, 2), 3, np.float32), suffix="pruned")
    assert [value.name for value in inputs(second)] == ["a", "w"]
    assert sorted(model.graph.graph.initializers) == ["w", "w.pruned"]


def test_set_const_adds_an_input_that_was_left_out() -> None:
    text = "g (float[1,1,4] x) => (float[1,1,4] y) { [conv] y = Conv(x, w) }"
    model = Model.parse(HEADER + text, w=np.ones((1, 1, 1), np.float32))
    (conv,) = model.nodes()
    assert input_at(conv, 2) is None
    set_const(conv, 2, np.ones(1, np.float32), suffix="bias")
    assert [value.name for value in inputs(conv)] == ["x", "w", "conv.2.bias"]


def test_a_new_name_is_free_among_all_values() -> None:
    model = shared()
    graph = model.graph.graph
    assert [free_name(graph, label) for label in ("new", "x", "a", "w")] == [
        "new",
        "x_1",
        "a_1",
        "w_1",
    ]
    assert add_const(graph, "w", np.zeros(1, np.float32)).name == "w_1"


def test_sole_user() -> None:
    model = shared()
    first, second = model.nodes()
    assert sole_user(first.outputs[0]) is second
    assert sole_user(second.outputs[0]) is None
    assert first.inputs[1] is not None
    assert sole_user(first.inputs[1]) is None


def test_bypass_keeps_the_name_of_a_model_output() -> None:
    text = "g (float[2] x) => (float[2] y) {\n [r] a = Relu(x)\n [i] y = Identity(a)\n}"
    model = Model.parse(HEADER + text)
    relu, identity = model.nodes()
    bypass(identity, relu.outputs[0])
    assert names(model) == ["x", "y"]
    assert model.graph.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert [node.op_type for node in model.nodes()] == ["Relu"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Identity(x)", "model input"),
        ("z = Relu(x)\n y = Identity(z)", "model output too"),
    ],
)
def test_bypass_refuses_to_change_the_face(body: str, reason: str) -> None:
    outputs = "float[2] y, float[2] z" if "z" in body else "float[2] y"
    model = Model.parse(HEADER + f"g (float[2] x) => ({outputs}) {{\n {body}\n}}")
    identity = next(model.nodes("Identity"))
    assert identity.inputs[0] is not None
    with pytest.raises(ModelError, match=reason):
        bypass(identity, identity.inputs[0])


def test_insert_after_hands_a_model_output_on() -> None:
    model = shared()
    _, second = model.nodes()
    insert_after(second.outputs[0], "Relu", label="guard")
    assert names(model) == ["x", "y"]
    assert [node.op_type for node in model.nodes()] == ["MatMul", "MatMul", "Relu"]
    assert model.graph.graph.outputs[0].producer() is list(model.nodes())[-1]
    insert_after(model.graph.graph.inputs[0], "Neg", label="flip")
    first = next(model.nodes("MatMul"))
    assert first.inputs[0] is next(model.nodes("Neg")).outputs[0]
    assert next(model.nodes()).op_type == "Neg"


def test_add_node_stands_in_front() -> None:
    model = shared()
    first, second = model.nodes()
    value = add_node(second, "Relu", [first.outputs[0]], label="extra")
    second.replace_input_with(0, value)
    assert [node.name for node in model.nodes()] == ["first", "extra", "second"]


def test_remove_dead_takes_chains_and_unused_weights() -> None:
    text = "g (float[2] x) => (float[2] y) {\n a = Add(x, w)\n b = Relu(a)\n y = Neg(x)\n}"
    model = Model.parse(HEADER + text, w=np.zeros(2, np.float32))
    assert remove_dead(model.graph.graph) == 2
    assert [node.op_type for node in model.nodes()] == ["Neg"]
    assert not model.graph.graph.initializers
