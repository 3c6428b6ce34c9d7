from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from graphs import random_model

from edgebm.errors import DataError, ModelError, PassError
from edgebm.ir.annotate import annotated, clear_quant, set_quant
from edgebm.ir.edit import set_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.quant.params import Range


@dataclass(frozen=True)
class Step:
    """A pass made from a function."""

    act: Callable[[Model], Model]
    kind: str = "trial"
    needs_samples: ClassVar[bool] = False

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        return self.act(model)


def model() -> Model:
    return random_model(
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [c] h = Conv(x, w)
          [n] y = BatchNormalization(h, g, b, m, v)
        }""",
        w=(4, 3, 3, 3), g=(4,), b=(4,), m=(4,), v=(4,),
    )  # fmt: skip


def run(*acts: Callable[[Model], Model]) -> Model:
    return run_passes(model(), [Step(act) for act in acts], Context())[0]


def rename_output(m: Model) -> Model:
    m.graph.graph.outputs[0].name = "renamed"
    return m


def retype_input(m: Model) -> Model:
    m.graph.graph.inputs[0].shape = ir.Shape([1, 3, 9, 9])
    return m


def drop_output(m: Model) -> Model:
    m.graph.graph.outputs.append(next(m.nodes("Conv")).outputs[0])
    return m


@pytest.mark.parametrize("act", [rename_output, retype_input, drop_output])
def test_the_face_must_stay(act: Callable[[Model], Model]) -> None:
    with pytest.raises((PassError, ModelError), match=r"inputs or outputs changed|not valid"):
        run(act)


def lose_weight(m: Model) -> Model:
    next(m.nodes("Conv")).replace_input_with(1, ir.val("nowhere"))
    return m


def nan_weight(m: Model) -> Model:
    set_const(next(m.nodes("Conv")), 1, np.full((4, 3, 3, 3), np.nan, np.float32), suffix="bad")
    return m


def unknown_op(m: Model) -> Model:
    next(m.nodes("Conv")).op_type = "Konv"
    return m


@pytest.mark.parametrize(
    ("act", "says"),
    [(lose_weight, "nowhere"), (nan_weight, "NaN"), (unknown_op, "no such standard operator")],
)
def test_an_illegal_graph_names_the_step(act: Callable[[Model], Model], says: str) -> None:
    with pytest.raises(PassError, match="trial: ") as caught:
        run(act)
    assert says in str(caught.value)
    assert caught.value.exit_code == 1


def test_an_unexpected_exception_names_the_step_and_keeps_its_cause() -> None:
    def broken(m: Model) -> Model:
        raise KeyError("w9")

    with pytest.raises(PassError, match="trial: unexpected KeyError: 'w9'") as caught:
        run(broken)
    assert isinstance(caught.value.__cause__, KeyError)


def test_errors_raised_on_purpose_pass_through() -> None:
    def refusing(m: Model) -> Model:
        raise DataError("no samples")

    with pytest.raises(DataError, match=r"^no samples$"):
        run(refusing)


def test_undoing_a_decision_is_an_error() -> None:
    def decide(m: Model) -> Model:
        set_quant(m.graph.graph.inputs[0], Range(0.0, 1.0))
        return m

    def undo(m: Model) -> Model:
        clear_quant(m.graph.graph.inputs[0])
        return m

    assert annotated(run(decide)) == {"x"}
    with pytest.raises(PassError, match=r"undid the quantization of \['x'\]") as caught:
        run(decide, undo)
    assert "before the ones that decide" in caught.value.hint


def test_folding_after_deciding_is_that_error() -> None:
    with pytest.raises(PassError, match=r"fold_batchnorm: undid the quantization of \['w'\]"):
        run_passes(model(), [QuantizeWeights(), FoldBatchNorm()], Context())
    after, _ = run_passes(model(), [FoldBatchNorm(), QuantizeWeights()], Context())
    assert len(annotated(after)) == 1


def test_each_step_gets_its_own_copy() -> None:
    given = model()
    seen: list[Model] = []

    def keep(m: Model) -> Model:
        seen.append(m)
        return m

    result, seconds = run_passes(given, [Step(keep), Step(keep)], Context())
    assert seen[0].graph is not given.graph
    assert seen[1].graph is not seen[0].graph
    assert result.graph is seen[1].graph
    assert len(seconds) == 2
    assert all(spent >= 0 for spent in seconds)
