"""How much goes, what stays, what is refused, and what the report says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import outputs, random_model, samples
from pydantic import ValidationError

from edgebm.errors import DataError, UsageError
from edgebm.ir.edit import const, name, replace_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.prune import Prune
from edgebm.pruning.groups import find_groups
from edgebm.pruning.macs import macs


def two_layers(inner: int = 24, strong: int = 12) -> Model:
    """An MLP in which the last units of both hidden layers hardly matter."""
    model = random_model(
        """g (float[n,6] x) => (float[n,3] y) {
          [first] a = MatMul(x, w1)
          r = Relu(a)
          [second] b = MatMul(r, w2)
          s = Relu(b)
          [third] y = MatMul(s, w3)
        }""",
        w1=(6, inner),
        w2=(inner, inner),
        w3=(inner, 3),
    )
    for label in ("w1", "w2"):
        value = model.graph.graph.initializers[label]
        array = const(value)
        assert array is not None
        weak = array.copy()
        weak[:, strong:] *= np.float32(1e-3)
        replace_const(value, weak)
    return model


def run(model: Model, ctx: Context | None = None, **fields: Any) -> tuple[Model, Context]:
    ctx = ctx or Context()
    ctx.samples = ctx.samples or samples(model)
    fields = {"importance": "activation", "round_to": 1, **fields}
    return run_passes(model, [Prune(**fields)], ctx)[0], ctx


def widths(model: Model) -> dict[str, int]:
    return {group.name: group.units for group in find_groups(model).groups}


def test_units_that_hardly_matter_go_and_the_answers_stay() -> None:
    model = two_layers()
    small, ctx = run(model, of="units", sparsity=0.5)
    assert list(widths(small).values()) == [12, 12]
    feeds = next(iter(ctx.given("this test").feeds(0, 1)))
    want, got = outputs(model, feeds)["y"], outputs(small, feeds)["y"]
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()
    assert any("24 to 12" in note and "multiply-accumulates" in note for note in ctx.notes)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_so_much_of_the_macs_goes(sparsity: float) -> None:
    model = two_layers()
    small, ctx = run(model, sparsity=sparsity)
    feeds = next(iter(ctx.given("this test").feeds(0, 1)))
    left = macs(small, feeds) / macs(model, feeds)
    assert left <= 1 - sparsity
    assert left > 1 - sparsity - 0.08  # a unit of both layers is 5 % of them


def test_zero_changes_nothing_and_asks_for_no_samples() -> None:
    model = two_layers()
    small = Prune(sparsity=0.0)(model, Context())
    assert small is model


def test_rounds_remove_as_much_as_one() -> None:
    model = two_layers(inner=32, strong=16)
    one, _ = run(model, of="units", sparsity=0.5)
    three, _ = run(model, of="units", sparsity=0.5, rounds=3)
    assert list(widths(one).values()) == list(widths(three).values()) == [16, 16]


def test_widths_end_on_multiples() -> None:
    small, _ = run(two_layers(), of="units", sparsity=0.45, round_to=8)
    assert {width % 8 for width in widths(small).values()} == {0}
    ctx = Context(lanes=8)
    small, _ = run(two_layers(), ctx, of="units", sparsity=0.45, round_to="auto")
    assert {width % 8 for width in widths(small).values()} == {0}


@pytest.mark.parametrize("pattern", ["second", "sec*"])
def test_a_layer_that_is_ignored_keeps_its_units(pattern: str) -> None:
    model = two_layers()
    small, _ = run(model, sparsity=0.5, ignored=(pattern,))
    kept = next(n for n in small.nodes("MatMul") if n.name == "second")
    assert kept.inputs[1] is not None
    assert name(kept.inputs[1]) == "w2"
    weight = const(kept.inputs[1])
    assert weight is not None
    assert weight.shape[0] < weight.shape[1] == 24


def test_patterns_that_name_nothing_are_refused_together() -> None:
    with pytest.raises(UsageError, match=r"names nothing in the model: thrid .*, Convv") as caught:
        run(two_layers(), ignored=("thrid", "Convv", "first"))
    assert "node names" in caught.value.hint


def test_without_samples_it_is_refused() -> None:
    with pytest.raises(DataError, match="samples"):
        Prune(sparsity=0.5)(two_layers(), Context())


def test_nothing_to_prune_is_said() -> None:
    model = random_model("g (float[n,6] x) => (float[n,3] y) { y = MatMul(x, w) }", w=(6, 3))
    small, ctx = run(model)
    assert widths(small) == {}
    assert any("no layer has units that may be taken out" in skip.reason for skip in ctx.skips)


def test_kinds_that_are_not_named_stay() -> None:
    small, ctx = run(two_layers(), kinds=("channels", "hidden"))
    assert set(widths(small).values()) == {24}
    assert any("no layer has units" in skip.reason for skip in ctx.skips)


def test_latency_that_cannot_be_measured_is_said() -> None:
    _, ctx = run(two_layers(), of="latency", sparsity=0.3)
    assert any("cannot be timed on this machine" in note for note in ctx.notes)


def test_a_device_whose_time_does_not_change_is_not_cut() -> None:
    ctx = Context(time_ms=lambda _model: 1.0)
    small, ctx = run(two_layers(), ctx, of="latency", sparsity=0.3)
    assert set(widths(small).values()) == {24}
    assert any("no unit was worth cutting" in note for note in ctx.notes)


@pytest.mark.parametrize(
    "fields",
    [{"sparsity": 1.0}, {"sparsity": -0.1}, {"rounds": 0}, {"round_to": 0}, {"kinds": ()}],
    ids=str,
)
def test_fields_out_of_range(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Prune(**fields)
