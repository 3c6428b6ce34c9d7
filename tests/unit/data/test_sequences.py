from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.data.over_time import TimeView, View, sees_each_step
from edgebm.data.samples import Samples, kept_samples, open_samples
from edgebm.data.steps import Steps, Whole
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

RNG = np.random.default_rng(0)
N, T, F, H = 5, 7, 3, 4
X = TensorSpec("x", "float32", (1, F))
STATE = TensorSpec("h", "float32", (2, 1, H))
STEPS = Steps(frozenset({"h"}))
SEQUENCES = RNG.normal(size=(N, T, F)).astype(np.float32)


def opened(data: Any, *inputs: TensorSpec, steps: Steps = STEPS, labels: Any = None) -> Samples:
    return open_samples(data, inputs or (X, STATE), steps=steps, labels=labels)


def first(samples: Samples) -> dict[str, Any]:
    return next(iter(samples.feeds()))


@pytest.mark.parametrize("shape", [(N, T, F), (N, T, 1, F)])
def test_one_axis_more_is_time(shape: tuple[int, ...]) -> None:
    samples = opened({"x": SEQUENCES.reshape(shape)})
    assert samples.sequences
    assert samples.lengths == [T] * N
    assert list(first(samples)) == ["x"]
    np.testing.assert_array_equal(first(samples)["x"], SEQUENCES[0][:, None])


def test_arrays_of_the_inputs_own_rank_are_single_steps() -> None:
    samples = opened({"x": SEQUENCES[:, 0]})
    assert not samples.sequences
    assert samples.lengths == [1] * N
    np.testing.assert_array_equal(first(samples)["x"], SEQUENCES[0, :1])


def test_a_lone_array_is_the_only_input_that_is_no_state() -> None:
    assert opened(SEQUENCES).sequences
    assert opened((SEQUENCES, np.arange(N))).has_labels


def test_an_input_without_a_batch_axis() -> None:
    spec = TensorSpec("x", "float32", (2, F))
    steps = RNG.normal(size=(N, 2, F)).astype(np.float32)
    assert not opened({"x": steps}, spec, STATE).sequences
    sequences = np.stack([steps] * T, axis=1)
    samples = opened({"x": sequences}, spec, STATE)
    assert samples.sequences
    assert first(samples)["x"].shape == (T, 2, F)


def test_given_states_are_those_before_the_first_step() -> None:
    states = RNG.normal(size=(N, 2, 1, H)).astype(np.float32)
    samples = opened({"x": SEQUENCES, "h": states})
    np.testing.assert_array_equal(first(samples)["h"], states[0])


def test_sequences_from_a_file_are_read_one_by_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=SEQUENCES, labels=np.arange(N))
    samples = opened(tmp_path / "s.npz")
    assert samples.sequences
    assert samples.digest() == opened({"x": SEQUENCES, "labels": np.arange(N)}).digest()
    calibration, held = samples.split(0.2)
    assert (len(calibration), len(held)) == (4, 1)
    assert held.lengths == [T]


def test_items_may_have_different_lengths() -> None:
    items = [{"x": SEQUENCES[:1, : k + 2]} for k in range(3)]
    samples = opened(items)
    assert samples.lengths == [2, 3, 4]
    assert [feeds["x"].shape[0] for feeds in samples.feeds()] == [2, 3, 4]


def test_without_states_nothing_changes() -> None:
    # One axis more holds each sample whole.
    samples = open_samples({"x": SEQUENCES[:, :1]}, (X,))
    assert not samples.sequences
    assert first(samples)["x"].shape == (1, F)


def test_samples_of_the_sequence_model_are_sequences_of_its_streaming_form() -> None:
    step = TensorSpec("x", "float32", (1, 1, F))
    whole = {"x": Whole(TensorSpec("x", "float32", (1, T, F)), 1)}
    steps = Steps(frozenset({"h"}), whole)
    for shape in ((N, T, F), (N, T, 1, F)):
        samples = opened({"x": SEQUENCES.reshape(shape)}, step, STATE, steps=steps)
        assert samples.lengths == [T] * N
        np.testing.assert_array_equal(first(samples)["x"], SEQUENCES[0][:, None, None])
    longer = np.concatenate([SEQUENCES, SEQUENCES], 1)
    assert opened({"x": longer}, step, STATE, steps=steps).lengths == [2 * T] * N


def test_time_may_be_another_axis_and_some_inputs_have_none() -> None:
    step = TensorSpec("x", "float32", (1, F, 1))
    voice = TensorSpec("voice", "float32", (1, 2))
    whole = {
        "x": Whole(TensorSpec("x", "float32", (1, F, T)), 2),
        "voice": Whole(voice, None),
    }
    data = {"x": SEQUENCES.transpose(0, 2, 1), "voice": np.ones((N, 2), np.float32)}
    steps = Steps(frozenset({"h"}), whole)
    feeds = first(opened(data, step, voice, STATE, steps=steps))
    assert feeds["voice"].shape == (T, 1, 2)
    np.testing.assert_array_equal(feeds["x"][:, 0, :, 0], SEQUENCES[0])


def test_faults_of_sequences_come_with_names_and_shapes() -> None:
    mask = TensorSpec("mask", "float32", (1, 2))
    one = np.ones((N, 2), np.float32)
    with pytest.raises(DataError, match=r"'x' \[5, 7, 3\] hold sequences .*'mask' \[5, 2\] for"):
        opened({"x": SEQUENCES, "mask": one}, X, mask, STATE)
    with pytest.raises(
        DataError, match=r"number of steps: 'x' \[5, 7, 3\] has 7, 'mask' .* has 6"
    ):
        opened({"x": SEQUENCES, "mask": np.ones((N, 6, 2), np.float32)}, X, mask, STATE)
    with pytest.raises(DataError, match=r"length 0: 'x' \[5, 0, 3\]"):
        opened({"x": SEQUENCES[:, :0]})
    with pytest.raises(DataError, match=r"\[samples, 3\].*one axis more: \[samples, time, 3\]"):
        opened({"x": SEQUENCES[:, :, :2]})


def test_all_faults_come_at_once() -> None:
    mask = TensorSpec("mask", "float32", (1, 2))
    data = {"x": SEQUENCES[..., :2], "mask": np.ones((N, 2)), "hh": np.ones((N, 2, 1, H))}
    with pytest.raises(DataError) as caught:
        opened(data, X, mask, STATE)
    faults = "\n".join(caught.value.details["faults"])
    assert "'hh' is not an input of the model; did you mean 'h'?" in faults
    assert "hold sequences" in faults
    assert "input 'x' wants an array" in faults


def test_sequences_and_single_steps_do_not_mix() -> None:
    with pytest.raises(DataError, match="some samples are sequences and some single steps"):
        opened([{"x": SEQUENCES[:1]}, {"x": SEQUENCES[:1, 0]}])


def test_kept_samples_may_have_axes_of_any_size() -> None:
    cache = TensorSpec("h", "float32", ("past", 2))
    items = ({"x": SEQUENCES[0, k : k + 1], "h": np.ones((k, 2), np.float32)} for k in range(4))
    samples = kept_samples(items, (X, cache), "here")
    assert samples.source == "here"
    assert [feeds["h"].shape for feeds in samples.feeds()] == [(k, 2) for k in range(4)]
    assert samples.subset(2).digest() != samples.digest()


OUT = TensorSpec("y", "float32", (1, 4))


@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 4)])
def test_what_a_judge_sees_of_sequences(shape: tuple[int, ...]) -> None:
    answers = {"y": RNG.normal(size=(T, *shape)), "hn": np.zeros((2, 1, H))}
    outputs = (TensorSpec("y", "float32", shape), TensorSpec("hn", "float32", (2, 1, H)))
    rows = answers["y"].reshape(T, 4)
    last = TimeView(outputs, frozenset({"hn"}))
    np.testing.assert_array_equal(last.compared(answers)["y"], rows)
    np.testing.assert_array_equal(last.measured(answers)["y"], rows[-1:])
    assert [spec.shape for spec in last.face] == [(1, 4)]
    every = TimeView(outputs, frozenset({"hn"}), each_step=True)
    np.testing.assert_array_equal(every.measured(answers)["y"], rows[None])
    assert [spec.shape for spec in every.face] == [(1, "steps", 4)]
    assert set(every.compared(answers)) == {"y"}


def test_single_answers_are_seen_as_they_are_but_for_states() -> None:
    answers = {"y": np.zeros((1, 4)), "hn": np.zeros((2, 1, H))}
    view = View((OUT,), frozenset({"hn"}))
    assert set(view.compared(answers)) == {"y", "hn"}
    assert set(view.measured(answers)) == {"y"}


@pytest.mark.parametrize(
    ("labels", "each"),
    [
        (np.zeros(N, np.int64), False),
        (np.zeros((N, T), np.int64), True),
        (np.zeros((N, T), np.float32), True),
        (np.zeros((N, 4), np.float32), False),
        (np.zeros((N, T, 4), np.float32), True),
    ],
)
def test_labels_of_sequences_or_of_steps(labels: Any, each: bool) -> None:
    assert sees_each_step(labels, [T] * N, [OUT]) is each


def test_labels_that_are_neither() -> None:
    with pytest.raises(DataError, match=r"labels \[5, 6\] for 5 sequences of 7 steps") as caught:
        sees_each_step(np.zeros((N, 6), np.int64), [T] * N, [OUT])
    assert "[5]" in caught.value.hint
    assert "[5, 7]" in caught.value.hint
