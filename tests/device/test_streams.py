"""Streams on a device: the same file for every runtime, with numpy and one runtime only."""

from __future__ import annotations

import importlib.util
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgebm
from edgebm.errors import (
    Busy,
    EdgebmError,
    InputDType,
    InputNonFinite,
    InputPort,
    InputRange,
    InputShape,
    InputType,
    StateError,
)
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.runtime.runner import Session

DATA = Path(__file__).parent / "data"
INSTALLED = [name for name in CPU_RUNTIMES if importlib.util.find_spec(name)]
RNG = np.random.default_rng(11)
FRAMES = RNG.normal(size=(40, 1, 1, 4)).astype(np.float32)
Array = np.ndarray[Any, Any]


def by_hand(session: Session, frames: Any, **states: Array) -> list[dict[str, Array]]:
    """Every output of each frame, with the states handed on by the caller."""
    answers = []
    with session.stream() as fresh:
        states = {**fresh.states, **states}
    for x in frames:
        answers.append(session.run({"x": x, **states}))
        states = {state.input: answers[-1][state.output] for state in session.states}
    return answers


@pytest.mark.parametrize("bundle", ["lstm", "chunks", "decoder"])
def test_steps_are_bit_equal_to_runs_with_states_handed_on(bundle: str, runtime: str) -> None:
    frames = FRAMES[:20]
    with edgebm.load(DATA / f"{bundle}.edgebm", target=runtime) as session:
        expected = by_hand(session, frames)
        fed = [state.output for state in session.states]
        with session.stream() as stream:
            assert [spec.name for spec in stream.inputs] == ["x"]
            for x, want in zip(frames, expected, strict=True):
                got = stream.step(x)
                assert list(got) == [spec.name for spec in session.outputs if spec.name not in fed]
                for name, y in got.items():
                    np.testing.assert_array_equal(y, want[name])
            for state in session.states:
                np.testing.assert_array_equal(
                    stream.states[state.input], expected[-1][state.output]
                )


def test_the_first_step_starts_from_the_stored_state_and_from_zeros(lstm: Session) -> None:
    with lstm.stream() as stream:
        assert np.abs(stream.states["h"]).max() > 0.1
        assert not stream.states["c"].any()
        first = stream.step(FRAMES[0])["y"]
        stream.step(FRAMES[1])
        stream.reset()
        np.testing.assert_array_equal(stream.step(FRAMES[0])["y"], first)
        stream.reset({"h": np.zeros((2, 1, 3), np.float32), "c": np.zeros((2, 1, 3), np.float32)})
        assert np.abs(stream.step(FRAMES[0])["y"] - first).max() > 1e-4


def test_all_ways_to_give_a_frame(lstm: Session) -> None:
    answers = []
    with lstm.stream() as stream:
        for how in range(4):
            stream.reset()
            stream.step(FRAMES[0])
            x, buffer = FRAMES[1], np.zeros((1, 1, 3), np.float32)
            if how == 0:
                answers.append(stream.step(x)["y"])
            elif how == 1:
                answers.append(stream.step({"x": x})["y"])
            elif how == 2:
                answers.append(stream.step(x=x[:, :, ::-1].copy()[:, :, ::-1])["y"])
            else:
                assert stream.step(x, out={"y": buffer})["y"] is buffer
                answers.append(buffer)
    for y in answers[1:]:
        np.testing.assert_array_equal(y, answers[0])


def test_the_answer_belongs_to_the_caller_and_states_are_copies(lstm: Session) -> None:
    with lstm.stream() as stream:
        first = stream.step(FRAMES[0])["y"]
        kept, states = first.copy(), stream.states
        stream.step(FRAMES[1])
        np.testing.assert_array_equal(first, kept)
        first[...] = 9
        assert np.abs(stream.states["h"] - states["h"]).max() > 0
        with pytest.raises(ValueError, match="read-only"):
            states["h"][...] = 0


def test_interleaved_streams_do_not_touch_each_other(lstm: Session) -> None:
    sequences = [RNG.permutation(FRAMES) for _ in range(5)]
    expected = [[y["y"] for y in by_hand(lstm, frames)] for frames in sequences]
    streams = [lstm.stream() for _ in sequences]
    for t in range(len(FRAMES)):
        for k in RNG.permutation(len(streams)):
            np.testing.assert_array_equal(streams[k].step(sequences[k][t])["y"], expected[k][t])
        np.testing.assert_array_equal(
            lstm.run(x=FRAMES[0], **streams[0].states)["y"],
            lstm.run(x=FRAMES[0], **streams[0].states)["y"],
        )


@pytest.mark.row(44)
@pytest.mark.parametrize("bundle", ["lstm", "decoder"])
def test_streams_in_threads_give_what_they_give_alone(bundle: str, runtime: str) -> None:
    wrong: list[object] = []
    with edgebm.load(DATA / f"{bundle}.edgebm", target=runtime) as session:
        sequences = [RNG.permutation(FRAMES)[:20] for _ in range(6)]
        expected = [[y["y"] for y in by_hand(session, frames)] for frames in sequences]

        def work(k: int) -> None:
            try:
                with session.stream() as stream:
                    for _ in range(5):
                        stream.reset()
                        for x, want in zip(sequences[k], expected[k], strict=True):
                            if not np.array_equal(stream.step(x)["y"], want):
                                wrong.append(k)
            except EdgebmError as error:
                wrong.append(error)

        workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


@pytest.mark.row(44)
def test_one_stream_in_two_threads_is_busy_and_never_mixed(lstm: Session) -> None:
    """Whatever was refused never happened: the frames that went through tell the state."""
    went: list[Array] = []
    refused: list[Busy] = []
    with lstm.stream() as stream:

        def work() -> None:
            for _ in range(300):
                try:
                    went.append(stream.step(FRAMES[0])["y"])
                except Busy as error:
                    refused.append(error)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        final = stream.states
    assert len(went) + len(refused) == 600
    expected = by_hand(lstm, [FRAMES[0]] * len(went))
    assert {y.tobytes() for y in went} <= {each["y"].tobytes() for each in expected}
    np.testing.assert_array_equal(final["c"], expected[-1]["c_out"])


def test_a_stream_that_is_in_use_says_busy(lstm: Session) -> None:
    with lstm.stream() as stream:
        taken = stream._idle.pop()
        calls = (
            lambda: stream.step(FRAMES[0]),
            stream.snapshot,
            stream.reset,
            lambda: stream.states,
        )
        for call in calls:
            with pytest.raises(Busy, match="another thread") as caught:
                call()
            assert "stream of its own" in caught.value.hint
        stream._idle.append(taken)
        stream.step(FRAMES[0])


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((1, 4), "the batch axis is missing: x[None] fits"),
        ((4,), "batch and time axes are missing: x[None, None] fits"),
        ((3, 1, 4), "one sample at a time: x[i : i + 1] for each i"),
        ((1, 3, 4), "one step at a time: x[:, i : i + 1] for each i"),
        ((1, 0, 4), "an empty array has no answer"),
        ((3, 3, 4), ""),
        ((1, 3, 5), ""),
    ],
)
def test_a_sequence_in_the_place_of_a_step(
    lstm: Session, shape: tuple[int, ...], hint: str
) -> None:
    with lstm.stream() as stream, pytest.raises(InputShape) as caught:
        stream.step(np.zeros(shape, np.float32))
    assert caught.value.hint == hint


@pytest.mark.row(35)
def test_a_bad_frame_in_mid_stream_changes_nothing(lstm: Session) -> None:
    bad = FRAMES[1].copy()
    bad[0, 0, 2] = np.nan
    faults: list[tuple[Any, type[EdgebmError], str]] = [
        (bad, InputNonFinite, r"'x' has 1 of 4 values .* the first at \[0, 0, 2\]"),
        (bad.astype(np.float64), InputDType, "expected float32"),
        (FRAMES[1][0], InputShape, r"\[1, 4\]"),
        ([1.0], InputType, "list"),
        ({"x": FRAMES[1], "h": FRAMES[1]}, InputPort, r"unknown inputs \['h'\]"),
        ({"z": FRAMES[1]}, InputPort, "missing"),
    ]
    expected = [y["y"] for y in by_hand(lstm, FRAMES[:12])]
    with lstm.stream() as stream:
        for t in range(12):
            wrong, kind, words = faults[t % len(faults)]
            with pytest.raises(kind, match=words):
                stream.step(wrong)
            np.testing.assert_array_equal(stream.step(FRAMES[t])["y"], expected[t])
        with pytest.raises(InputPort) as caught:
            stream.step({"x": FRAMES[1], "h": FRAMES[1]})
        assert "'h' is a state" in caught.value.hint


@pytest.mark.row(35)
def test_a_state_that_is_not_finite_is_not_kept(echo: Session) -> None:
    huge = np.full((1, 4), 3e38, np.float32)
    one = np.ones((1, 4), np.float32)
    with echo.stream() as stream:
        stream.step(huge)
        # Finite, though the sum of its squares is not.
        np.testing.assert_array_equal(stream.states["h_in"], huge)
        for _ in range(2):
            with pytest.raises(StateError, match=r"'h_out' has 4 values .* the first at \[0, 0\]"):
                stream.step(huge)
            np.testing.assert_array_equal(stream.states["h_in"], huge)
        np.testing.assert_array_equal(stream.step(-one)["y"], -huge)
        with pytest.raises(StateError, match="NaN or infinite"):
            stream.step(x=huge, out={"y": one.copy()})
        stream.reset()
        np.testing.assert_array_equal(stream.step(one)["y"], one)


def test_a_wrong_buffer_leaves_the_state_as_it_was(lstm: Session, chunks: Session) -> None:
    for session, kind in ((lstm, InputDType), (chunks, InputShape)):
        with session.stream() as stream:
            stream.step(FRAMES[0])
            before = stream.snapshot()
            wrong = {"y": np.zeros((1, 1, 2), np.float64 if kind is InputDType else np.float32)}
            with pytest.raises(kind):
                stream.step(FRAMES[1], out=wrong)
            with pytest.raises(InputPort, match="h_out"):
                stream.step(FRAMES[1], out={"h_out": np.zeros((1, 1, 3), np.float32)})
            assert stream.snapshot() == before


def test_the_first_step_settles_the_batch_until_reset(chunks: Session) -> None:
    three = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    with chunks.stream() as stream:
        y = stream.step(three)["y"]
        assert y.shape == (2, 3, 3)
        assert stream.states["h"].shape == (1, 3, 3)
        with pytest.raises(InputShape, match="n is 1 here and 3 in this stream") as caught:
            stream.step(three[:, :1])
        assert "reset()" in caught.value.hint
        alone = [by_hand(chunks, [three[:, k : k + 1]])[0]["y"] for k in range(3)]
        np.testing.assert_allclose(y, np.concatenate(alone, axis=1), rtol=1e-5, atol=1e-6)
        stream.reset()
        np.testing.assert_array_equal(stream.step(three[:, :1])["y"], alone[0])
        with pytest.raises(InputShape, match="n is 3 here and 1 in this stream"):
            stream.step(three)
        stream.reset({"h": np.zeros((1, 2, 3), np.float32), "seen": np.array([5])})
        with pytest.raises(InputShape, match="n is 3 here and 2 in this stream"):
            stream.step(three)
        stream.step(three[:, :2])
        assert stream.states["seen"] == [6]


def test_a_sequence_may_come_in_chunks_of_any_allowed_length(chunks: Session) -> None:
    x = RNG.normal(size=(21, 1, 4)).astype(np.float32)
    with chunks.stream() as stream:
        whole = np.concatenate([stream.step(x[t : t + 1])["y"] for t in range(21)])
        stream.reset()
        cuts = [0, 1, 7, 9, 15, 16, 20, 21]
        parts = [stream.step(x[a:b])["y"] for a, b in itertools.pairwise(cuts)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
        before = stream.snapshot()
        for wrong in (x[:0], x[:7]):
            with pytest.raises(InputShape, match="t from 1 to 6"):
                stream.step(wrong)
        assert stream.snapshot() == before


def test_a_cache_grows_to_its_bound_and_says_so(decoder: Session) -> None:
    with decoder.stream() as stream:
        assert stream.states["k"].shape == (1, 0, 4)
        expected = by_hand(decoder, FRAMES[:21])
        for t in range(21):
            np.testing.assert_array_equal(stream.step(FRAMES[t])["y"], expected[t]["y"])
            assert stream.states["k"].shape == (1, t + 1, 4)
        before = stream.snapshot()
        for _ in range(2):
            with pytest.raises(StateError, match="past is 21, the model takes 0 to 20") as caught:
                stream.step(FRAMES[21])
            assert "reset()" in caught.value.hint
        assert stream.snapshot() == before
        with decoder.stream() as other:
            other.restore(before)
            assert other.states["pos"] == [21]
        stream.reset()
        np.testing.assert_array_equal(stream.step(FRAMES[0])["y"], expected[0]["y"])


@pytest.mark.row(42)
def test_a_state_that_indexes_a_table_stays_inside(decoder: Session) -> None:
    empty = np.zeros((1, 0, 4), np.float32)
    with decoder.stream() as stream:
        with pytest.raises(InputRange, match="'pos'"):
            stream.reset({"k": empty, "v": empty, "pos": np.array([24])})
        stream.reset({"k": empty, "v": empty, "pos": np.array([23])})
        stream.step(FRAMES[0])
        with pytest.raises(StateError, match=r"'pos' .* holds 24, the model has rows 0..23"):
            stream.step(FRAMES[0])
        assert stream.states["k"].shape == (1, 1, 4)


def test_states_that_are_given_are_checked_as_inputs_are(lstm: Session) -> None:
    good = np.zeros((2, 1, 3), np.float32)
    with lstm.stream() as stream:
        stream.step(FRAMES[0])
        before = stream.snapshot()
        for given, kind in (
            ({"h": good}, InputPort),
            ({"h": good, "c": good, "x": good}, InputPort),
            ({"h": good, "c": good[0]}, InputShape),
            ({"h": good, "c": good.astype(np.float64)}, InputDType),
            ({"h": good, "c": good + np.float32(np.inf)}, InputNonFinite),
        ):
            with pytest.raises(kind):
                stream.reset(given)
        assert stream.snapshot() == before
