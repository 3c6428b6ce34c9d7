"""Odd values of inputs: refused, answered with a doubt, or let through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from echo_engine import echo

from edgebm.errors import InputNonFinite, InputRange, UsageError
from edgebm.runtime.values import ValueRules, widened
from edgebm.spec import TensorSpec

SIZES = [3, 5000]  # looked at in two ways


def spec(size: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec("x", dtype, (size,))


def kinds(answer: Any) -> list[str]:
    return [doubt.kind for doubt in answer.doubts]


@pytest.mark.row(35)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_marked_values_are_answered_and_told(size: int, bad: float) -> None:
    one, _ = echo(spec(size), rules=ValueRules(nonfinite="mark"))
    x = np.ones(size, np.float32)
    assert kinds(one.run(x)) == []
    x[1] = bad
    answer = one.run(x)
    np.testing.assert_array_equal(answer["x_out"], -x)
    assert kinds(answer) == ["nonfinite"]
    assert answer.doubts[0].input == "x"
    assert f"1 of {size} values that are NaN or infinite" in answer.doubts[0].message
    x[1] = 1
    assert kinds(one.run(x)) == []


@pytest.mark.row(35)
@pytest.mark.parametrize("size", SIZES)
def test_allowed_values_are_not_looked_at(size: int) -> None:
    one, _ = echo(spec(size), rules=ValueRules("allow", "allow"), ranges={"x": (0.0, 1.0)})
    x = np.full(size, np.nan, np.float32)
    assert kinds(one.run(x)) == []
    assert kinds(one.run(np.full(size, 1e6, np.float32))) == []


@pytest.mark.row(36)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_values_far_outside_of_what_calibration_saw(size: int, dtype: str) -> None:
    one, _ = echo(spec(size, dtype), ranges={"x": (-1.0, 3.0)})
    x = np.ones(size, dtype)
    # Half the width of the range on either side is nothing to speak of.
    for fine in (-3.0, -1.0, 3.0, 5.0):
        x[-1] = fine
        assert kinds(one.run(x)) == []
    for odd in (-3.1, 5.1, 255.0):
        x[-1] = odd
        answer = one.run(x)
        assert kinds(answer) == ["envelope"]
        assert f"1 of {size} values far outside of what calibration saw, -1 to 3" in (
            answer.doubts[0].message
        )
        np.testing.assert_array_equal(answer["x_out"], -x)


@pytest.mark.row(36)
@pytest.mark.parametrize("size", SIZES)
def test_an_envelope_that_refuses(size: int) -> None:
    one, engine = echo(spec(size), rules=ValueRules(envelope="error"), ranges={"x": (0.0, 1.0)})
    x = np.zeros(size, np.float32)
    one.run(x)
    x[0] = 255
    with pytest.raises(InputRange, match="far outside") as caught:
        one.run(x)
    assert "255" in caught.value.hint
    assert caught.value.details["got"] == [255.0, 255.0]
    assert sum(request.calls for request in engine.requests) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("envelope", ["mark", "error"])
def test_with_an_envelope_values_that_are_not_finite_are_refused_all_the_same(
    size: int, envelope: Any
) -> None:
    one, _ = echo(spec(size), rules=ValueRules(envelope=envelope), ranges={"x": (0.0, 1.0)})
    for bad in (np.nan, np.inf, -np.inf):
        x = np.zeros(size, np.float32)
        x[2] = bad
        with pytest.raises(InputNonFinite, match=r"the first at \[2\]"):
            one.run(x)


def test_the_first_call_of_a_shape_is_marked_too() -> None:
    one, _ = echo(TensorSpec("x", "float32", ("n",)), ranges={"x": (0.0, 1.0)}, axes={"n": (1, 9)})
    assert kinds(one.run(np.full(4, 9, np.float32))) == ["envelope"]
    out = np.empty(4, np.float32)
    assert kinds(one.run(np.full(4, 9, np.float32), out={"x_out": out})) == ["envelope"]


def test_two_inputs_are_told_apart() -> None:
    one, _ = echo(
        TensorSpec("a", "float32", (2,)),
        TensorSpec("b", "float32", (2,)),
        rules=ValueRules(nonfinite="mark"),
        ranges={"a": (0.0, 1.0), "b": (0.0, 100.0)},
    )
    answer = one.run(a=np.array([50, np.nan], np.float32), b=np.array([50, 0], np.float32))
    assert [(d.kind, d.input) for d in answer.doubts] == [("nonfinite", "a"), ("envelope", "a")]


def test_an_empty_array_has_no_odd_values() -> None:
    one, _ = echo(TensorSpec("x", "float32", ("n",)), ranges={"x": (0.0, 1.0)}, axes={"n": (0, 9)})
    assert kinds(one.run(np.empty(0, np.float32))) == []


def test_bounds_stay_inside_of_the_dtype() -> None:
    assert widened((0.0, 65000.0), np.dtype(np.float16)) == (-32500.0, 65504.0)
    assert widened((2.0, 2.0), np.dtype(np.float32)) == (2.0, 2.0)


@pytest.mark.parametrize("rule", ["nonfinite", "envelope"])
def test_an_unknown_rule_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match=f"{rule} is 'warn', it may be error, mark, allow"):
        ValueRules(**{rule: "warn"})  # type: ignore[arg-type]
