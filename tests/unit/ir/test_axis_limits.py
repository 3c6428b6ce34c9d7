from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import random_model

from edgebm.ir.axis_limits import axis_limits
from edgebm.ir.model import Model

_TEXT = """g (float[batch,tokens,4] x, float[batch,rows,4] places) => (float[batch,tokens,4] y) {
  scaled = Mul(places, gain)
  y = Add(SIDES)
}"""


def model(rows: str, sides: str = "x, scaled") -> Model:
    """What is added to `x` has `rows` rows."""
    made = random_model(_TEXT.replace("SIDES", sides), gain=(4,))
    (node,) = made.nodes("Mul")
    node.outputs[0].shape = ir.Shape([1, rows, 4])
    return made


@pytest.mark.parametrize("rows", ["Min(128, tokens)", "Min(tokens, 128)"])
@pytest.mark.parametrize("sides", ["x, scaled", "scaled, x"])
def test_a_table_that_is_cut_bounds_the_axis_that_it_meets(rows: str, sides: str) -> None:
    assert axis_limits(model(rows, sides)) == {"tokens": 128}


@pytest.mark.parametrize("rows", ["tokens", "Min(1, tokens)", "Min(128, others)"])
def test_what_has_room_for_all_bounds_nothing(rows: str) -> None:
    assert axis_limits(model(rows)) == {}
