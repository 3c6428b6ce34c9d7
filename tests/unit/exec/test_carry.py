from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import face
from stateful_models import F, H, decoder_step, lstm_step

from edgebm.errors import DataError
from edgebm.exec.carry import States, carried, settle_growth, walk
from edgebm.exec.collect import float_run
from edgebm.ir.model import Model
from edgebm.ir.states import StatePair, find_states
from edgebm.spec import TensorSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 1, 1, F)).astype(np.float32)


def states(model: Model, **more: Any) -> States:
    return States(face(model).inputs, find_states(model), **more)


def by_hand(model: Model, x: Any) -> list[dict[str, Any]]:
    run, found = float_run(model), []
    held = {"h": np.zeros((2, 1, H), np.float32), "c": np.zeros((2, 1, H), np.float32)}
    for step in x:
        found.append(run({"x": step, **held}))
        held = {"h": found[-1]["hn"], "c": found[-1]["cn"]}
    return found


def test_the_state_goes_from_step_to_step() -> None:
    model = lstm_step()
    want = by_hand(model, X)
    got = carried(float_run(model), states(model))({"x": X})
    np.testing.assert_array_equal(got["y"], np.stack([each["y"] for each in want]))
    np.testing.assert_array_equal(got["hn"], want[-1]["hn"])  # states are as after the last step
    pairs = list(walk(float_run(model), states(model), {"x": X}))
    for (before, _), (_, answers) in zip(pairs[1:], pairs[:-1], strict=True):
        np.testing.assert_array_equal(before["h"], answers["hn"])


def test_single_steps_get_initial_states() -> None:
    model = lstm_step()
    start = {"h": np.full((2, 1, H), 0.5, np.float32)}
    run = carried(float_run(model), states(model, initial=start))
    zeros = np.zeros((2, 1, H), np.float32)
    want = float_run(model)({"x": X[0], "h": start["h"], "c": zeros})
    np.testing.assert_array_equal(run({"x": X[0]})["y"], want["y"])
    given = run({"x": X[0], "h": zeros})
    assert (given["y"] != want["y"]).any()
    sequence = run({"x": X[:1], "h": zeros})
    np.testing.assert_array_equal(sequence["y"][0], given["y"])


def test_free_axes_follow_the_inputs() -> None:
    inputs = (
        TensorSpec("x", "float32", ("batch", 3)),
        TensorSpec("h", "float32", (2, "batch", 4)),
        TensorSpec("k", "float32", ("batch", "past", 4)),
    )
    pairs = (StatePair("h", "hn"), StatePair("k", "kn"))
    held = States(inputs, pairs, {"h": np.ones((2, 1, 4), np.float32)}, {"past": (0, 10)})
    assert held.growing == {"past"}
    begun = held.begin({"x": np.zeros((5, 3), np.float32)})
    assert begun["h"].shape == (2, 5, 4)
    assert (begun["h"] == 1).all()
    assert begun["k"].shape == (5, 0, 4)


def test_a_cache_begins_empty_and_grows() -> None:
    model = decoder_step()
    settled = settle_growth(float_run(model), states(model), {"x": X[0]}, {"past": 65536})
    assert settled.axes == {"past": (0, 65536)}
    sizes = [a["past_k"].shape[1] for a, _ in walk(float_run(model), settled, {"x": X})]
    assert sizes == list(range(9))


def test_a_model_that_takes_no_empty_state_begins_with_one() -> None:
    inputs = (TensorSpec("x", "float32", (1, 1)), TensorSpec("h", "float32", ("rows", 1)))
    held = States(inputs, (StatePair("h", "hn"),))

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        if not len(feeds["h"]):
            raise DataError("no empty tensors here")
        return {"hn": feeds["h"] + feeds["x"]}

    settled = settle_growth(run, held, {"x": np.ones((1, 1), np.float32)}, {"rows": 8})
    assert settled.axes == {"rows": (1, 8)}


def test_a_full_cache_is_named() -> None:
    model = decoder_step()
    short = states(model, axes={"past": (0, 4)})
    with pytest.raises(
        DataError, match=r"'past_k' has 5 on the axis 'past' after step 4.*at most 4"
    ):
        carried(float_run(model), short)({"x": X})


def test_what_comes_back_must_fit() -> None:
    inputs = (TensorSpec("x", "float32", (1, 2)), TensorSpec("h", "float32", (1, 3)))
    held = States(inputs, (StatePair("h", "hn"),))

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        return {"hn": np.zeros((1, 4), np.float32), "y": feeds["x"]}

    with pytest.raises(
        DataError, match=r"'hn' is float32\[1, 4\] after step 0.*h: float32\[1, 3\]"
    ):
        carried(run, held)({"x": np.zeros((2, 1, 2), np.float32)})


def test_outputs_that_change_their_shape_cannot_be_judged_over_time() -> None:
    inputs = (TensorSpec("x", "float32", (1, 2)), TensorSpec("h", "float32", (1, "n")))
    held = States(inputs, (StatePair("h", "hn"),), axes={"n": (0, 9)})

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        grown = np.concatenate([feeds["h"], feeds["x"][:, :1]], 1)
        return {"hn": grown, "weights": grown}

    with pytest.raises(DataError, match="'weights' has another shape at each step"):
        carried(run, held)({"x": np.zeros((3, 1, 2), np.float32)})


def test_no_steps_or_different_numbers_of_them() -> None:
    inputs = (TensorSpec("x", "float32", (1,)), TensorSpec("m", "float32", (1,)),
              TensorSpec("h", "float32", (1,)))  # fmt: skip
    held = States(inputs, (StatePair("h", "hn"),))
    for m in (0, 3):
        with pytest.raises(DataError, match="differ in number, or there are none"):
            list(walk(lambda feeds: feeds, held, {"x": np.zeros((2, 1)), "m": np.zeros((m, 1))}))
