from __future__ import annotations

import pytest

from edgebm.errors import UnsupportedModel
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.spec import TensorSpec

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def test_free_axes_keep_their_name_or_get_one() -> None:
    text = "g (float16[batch,3,?] x, int64[?] n) => (float16[batch,3,?] y) { y = Identity(x) }"
    inputs, outputs = face(Model.parse(HEADER + text))
    assert inputs == [
        TensorSpec("x", "float16", ("batch", 3, "x_dim2")),
        TensorSpec("n", "int64", ("n_dim0",)),
    ]
    assert outputs == [TensorSpec("y", "float16", ("batch", 3, "y_dim2"))]


def test_a_made_up_name_does_not_meet_one_of_the_model() -> None:
    text = "g (float[x_dim1,?] x) => (float[?,2] y) { y = Identity(x) }"
    inputs, _ = face(Model.parse(HEADER + text))
    assert inputs[0].shape == ("x_dim1", "x_dim1_1")


def test_scalars_have_an_empty_shape() -> None:
    inputs, _ = face(Model.parse(HEADER + "g (bool x) => (bool y) { y = Not(x) }"))
    assert inputs == [TensorSpec("x", "bool", ())]


def test_unknown_rank_is_refused() -> None:
    model = Model.parse(HEADER + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.graph.graph.inputs[0].shape = None
    with pytest.raises(UnsupportedModel, match="number of dimensions of 'x'"):
        face(model)
