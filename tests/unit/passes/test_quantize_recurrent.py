"""Decisions on recurrent cells, from the values they see over sequences."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, random_model, samples

from edgebm.errors import DataError
from edgebm.ir.annotate import annotated, cell_params_of, has_ranges
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_recurrent import QuantizeRecurrent
from edgebm.quant.recurrent import CellParams

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model_of(
    op: str = "LSTM",
    attributes: str = "",
    *,
    outputs: str = "y",
    state: bool = False,
    directions: int = 1,
    scale: float = 1.0,
) -> Model:
    rows = GATES[op] * 6
    shape = {"y": f"float[7,{directions},1,6] y", ", h": f"float[{directions},1,6] h"}[outputs]
    given = ", float[1,1,6] h0" if state else ""
    more = ", , h0" if state else ""
    return random_model(
        f"g (float[7,1,4] x{given}) => ({shape}) <float s = {{{scale}}}> {{ z = Mul(x, s)\n"
        f"[rnn] {outputs} = {op}<hidden_size=6{attributes}>(z, w, r, b{more}) }}",
        w=(directions, rows, 4),
        r=(directions, rows, 6),
        b=(directions, 2 * rows),
    )


def decide(model: Model, ctx: Context | None = None) -> CellParams | None:
    ctx = ctx or Context(samples=samples(model, 6))
    decided, _ = run_passes(model, [QuantizeRecurrent()], ctx)
    return cell_params_of(next(n for n in decided.nodes() if n.name == "rnn"))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("attributes", ["", ', direction="reverse"'])
@pytest.mark.parametrize("outputs", ["y", ", h"])
def test_a_cell_is_decided_whatever_of_it_the_model_asks_for(
    op: str, attributes: str, outputs: str
) -> None:
    params = decide(model_of(op, attributes, outputs=outputs))
    assert params is not None
    assert params.offset.shape == params.stretch.shape == (4,)
    assert params.weights.scale.shape == (GATES[op] * 6,)
    assert 0 < params.hidden.high < 1


def test_the_input_is_stretched_to_what_was_seen() -> None:
    plain, wide = decide(model_of()), decide(model_of(scale=10.0))
    assert plain is not None
    assert wide is not None
    # The same samples, ten times as large: no range is an assumption.
    assert np.median(wide.stretch / plain.stretch) == pytest.approx(10, rel=0.5)


def test_states_that_are_fed_count_as_hidden_states() -> None:
    model = model_of(state=True, scale=0.01)
    feeds = [{**f, "h0": np.full((1, 1, 6), 0.95, np.float32)} for f in samples(model, 4).feeds()]
    small = [{**f, "h0": np.zeros((1, 1, 6), np.float32)} for f in feeds]
    large, little = (decide(model, Context(samples=Listed(each))) for each in (feeds, small))
    assert large is not None
    assert little is not None
    assert large.hidden.low < little.hidden.low


def test_a_decision_counts_as_one() -> None:
    model = model_of()
    decided, _ = run_passes(model, [QuantizeRecurrent()], Context(samples=samples(model, 6)))
    assert annotated(decided) == {"r"}
    assert has_ranges(decided)
    assert not has_ranges(model)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: model_of("RNN"), "no runtime has an int8 kernel for a vanilla RNN"),
        (lambda: model_of("GRU", ", linear_before_reset=1"), "(linear_before_reset=0)"),
        (lambda: model_of("LSTM", ", clip=2.0"), "nothing clipped"),
        (
            lambda: model_of("LSTM", ', direction="bidirectional"', directions=2),
            "takes one direction",
        ),
    ],
)
def test_other_forms_are_left_with_a_reason(model, reason: str) -> None:  # type: ignore[no-untyped-def]
    made = model()
    ctx = Context(samples=samples(made, 3))
    assert decide(made, ctx) is None
    assert [reason in skip.reason for skip in ctx.skips] == [True]


def test_an_ignored_cell_is_left() -> None:
    model = model_of()
    ctx = Context(samples=samples(model, 3), is_ignored=lambda name, op: op == "LSTM")
    assert decide(model, ctx) is None
    assert ctx.skips[0].reason == "it is on the ignored list"


def test_nan_in_front_of_a_cell_is_a_fault_of_the_sample() -> None:
    model = model_of(scale=3e38)  # overflows, and the sample itself is finite
    feeds = [{"x": np.full((7, 1, 4), 9, np.float32)}]
    with pytest.raises(DataError, match="calibration sample 0: NaN or infinity"):
        decide(model, Context(samples=Listed(feeds)))


def test_samples_are_needed() -> None:
    with pytest.raises(DataError, match="recurrent layer needs calibration samples"):
        decide(model_of(), Context())
