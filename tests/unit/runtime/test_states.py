"""What a manifest may say about states, and what a stream does with an engine that misbehaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed, BundleFormat, InputShape, StateError
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST
from edgebm.runtime.engines import OWN, Buffers
from edgebm.runtime.npy import npy_bytes
from edgebm.runtime.runner import Session
from edgebm.runtime.schema import check_manifest
from edgebm.runtime.session import load
from edgebm.spec import EngineConfig, Manifest, Shapes, StateSpec, TensorSpec, Variant

DATA = Path(__file__).parents[2] / "device" / "data"
VARIANT = Variant("t", "echo", "f32", {}, EngineConfig(), "1")


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def manifest(
    fed: TensorSpec, made: TensorSpec, *states: tuple[str, str], **fields: Any
) -> Manifest:
    return Manifest(
        "m",
        "0",
        (spec("x", "n", 4), fed),
        (spec("y", "n", 4), made),
        (VARIANT,),
        states=tuple(StateSpec(*pair) for pair in states or [("h", "h_out")]),
        axes={"n": (1, 4), "past": (0, 8)},
        **fields,
    )


@pytest.mark.parametrize(
    ("fed", "made"),
    [
        (spec("h", 1, 4), spec("h_out", 1, 4)),
        (spec("h", 1, "n"), spec("h_out", 1, "n")),
        (spec("h", 1, "n"), spec("h_out", 1, "unknown_0")),
        (spec("h", 1, 4), spec("h_out", "unknown_0", 4)),
        (spec("h", 1, "past"), spec("h_out", 1, "total")),
        (spec("h", 1, "past"), spec("h_out", 1, 8)),
        (spec("h", dtype="int64"), spec("h_out", dtype="int64")),
    ],
)
def test_states_whose_two_ends_agree_are_accepted(fed: TensorSpec, made: TensorSpec) -> None:
    check_manifest(manifest(fed, made), "m")


@pytest.mark.parametrize(
    ("fed", "made", "words"),
    [
        (
            spec("h", 1, 4),
            spec("h_out", 1, 5),
            r"changes its shape: \[1, 4\] goes in and \[1, 5\]",
        ),
        (spec("h", 1, 4), spec("h_out", 4), "changes its rank"),
        (spec("h", 1, 4), spec("h_out", "n", 4), "changes its shape"),
        (spec("h", "n", 4), spec("h_out", 1, 4), "changes its shape"),
        (spec("h", "n", 4), spec("h_out", "past", 4), "changes its shape"),
        (spec("h", 1, "past"), spec("h_out", 1, 9), "changes its shape"),
        (spec("h", 1), spec("h_out", 1, dtype="float64"), "as float32 and comes out as float64"),
    ],
)
def test_states_whose_two_ends_differ_are_refused(
    fed: TensorSpec, made: TensorSpec, words: str
) -> None:
    with pytest.raises(BundleFormat, match=words):
        check_manifest(manifest(fed, made), "m")


def test_all_faults_of_the_pairs_are_told_at_once() -> None:
    h, h_out = spec("h", "n", 4), spec("h_out", "n", 4)
    pairs = [("h", "h_out"), ("h", "y"), ("x", "y"), ("z", "y")]
    with pytest.raises(BundleFormat) as caught:
        check_manifest(manifest(h, h_out, *pairs), "m")
    for words in (
        "the input 'h' is given for two states",
        "the output 'y' is given for two states",
        "every input is a state",
        "'z' from 'y' is no input and output",
    ):
        assert words in str(caught.value)
    missing = replace(manifest(h, h_out), states=(StateSpec("h", "h_out", "states/0.npy"),))
    with pytest.raises(BundleFormat, match=r"'states/0.npy' is no member"):
        check_manifest(missing, "m")


def with_initial(tmp_path: Path, array: np.ndarray[Any, Any], bundle: str = "chunks") -> Path:
    """A copy of a bundle whose state `h` begins with `array`."""
    opened = read_bundle(DATA / f"{bundle}.edgebm")
    members = {name: bytes(data) for name, data in opened.members.items() if name != MANIFEST}
    (name,) = (state.initial for state in opened.manifest.states if state.input == "h")
    members[name] = npy_bytes(array)
    return write_bundle(tmp_path / "other.edgebm", opened.manifest, members, force=True)


@pytest.mark.row(11)
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 1, 2), np.float32), r"is float32\[1, 1, 2\], the state is h: float32\[1, n"),
        (np.zeros((1, 4, 3), np.float32), r"is float32\[1, 4, 3\]"),
        (np.zeros((1, 3), np.float32), r"is float32\[1, 3\]"),
        (np.zeros((1, 1, 3)), "is float64"),
        (np.full((1, 1, 3), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_an_initial_state_that_does_not_fit_is_refused_at_load(
    array: np.ndarray[Any, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleFormat, match=words):
        load(with_initial(tmp_path, array))


def test_an_initial_state_for_a_batch_of_its_own_takes_that_batch_only(tmp_path: Path) -> None:
    start = np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 10
    with load(with_initial(tmp_path, start)) as session, session.stream() as stream:
        np.testing.assert_array_equal(stream.states["h"], start)
        with pytest.raises(
            InputShape, match="n is 1 in this step, the model's initial state is f"
        ):
            stream.step(np.zeros((1, 1, 4), np.float32))
        assert stream.step(np.zeros((1, 2, 4), np.float32))["y"].shape == (1, 2, 3)
        stream.reset({"h": start[:, :1], "seen": np.array([0])})
        stream.step(np.zeros((1, 1, 4), np.float32))
        stream.reset()
        np.testing.assert_array_equal(stream.states["h"], start)


class CountRequest:
    """y = x + n and the states n and m grow by 1; fails, or gives `bad`, when it is told to."""

    carry = None

    def __init__(self, engine: CountEngine, shapes: Shapes, buffers: Buffers) -> None:
        self.engine = engine
        self.inputs = tuple(
            buffers.inputs.get(s.name, np.zeros(shapes[s.name], s.dtype)) for s in engine.inputs
        )
        y = np.zeros(shapes["x"], np.float32)
        self.outputs = (buffers.outputs["n_out"], y, buffers.outputs["m_out"])
        self.fixed = self.outputs

    def infer(self) -> None:
        x, n, m = self.inputs
        self.outputs[0][...], self.outputs[1][...] = n + 1, x + n[0]
        self.outputs[2][...] = m + 1 if self.engine.bad is None else self.engine.bad
        if self.engine.fails:
            raise BackendFailed("the vendor raised")


class CountEngine:
    runtime, version = "count", "1"

    def __init__(self, width: int | str = 1) -> None:
        x = spec("x", 2 if isinstance(width, int) else width)
        self.inputs = (x, spec("n", 3, dtype="int32"), spec("m", width))
        self.fails, self.bad = False, None
        self.made = 0

    def request(
        self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False
    ) -> CountRequest:
        assert not growing
        self.made += 1
        return CountRequest(self, shapes, buffers)

    def executed(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


def counting(width: int | str = 1) -> tuple[Session, CountEngine]:
    engine = CountEngine(width)
    x, _, m = engine.inputs
    outputs = (spec("n_out", 3, dtype="int32"), spec("y", *x.shape), spec("m_out", *m.shape))
    states = (StateSpec("m", "m_out"), StateSpec("n", "n_out"))
    axes = {"b": (1, 4)}
    made = Manifest("c", "0", engine.inputs, outputs, (VARIANT,), states=states, axes=axes)
    return Session(made, engine, {}), engine  # type: ignore[arg-type]


def test_states_of_several_dtypes_are_kept_together() -> None:
    session, _ = counting()
    with session.stream() as stream:
        for t in range(3):
            assert stream.step(np.ones(2, np.float32))["y"].tolist() == [1 + t, 1 + t]
        assert {name: x.tolist() for name, x in stream.states.items()} == {
            "m": [3.0],
            "n": [3, 3, 3],
        }
        assert stream.states["n"].dtype == np.int32


def test_the_first_step_after_a_reset_settles_the_batch_in_the_fast_way_too() -> None:
    session, _ = counting("b")
    two, three = (np.ones(size, np.float32) for size in (2, 3))
    with session.stream() as stream:
        fresh = stream.snapshot()
        for _ in range(2):
            stream.step(two)
            stream.step(two)
            with pytest.raises(InputShape, match="b is 3 here and 2 in this stream"):
                stream.step(three)
            stream.reset()
            assert stream.snapshot() == fresh
            stream.step(two)
            with pytest.raises(InputShape, match="b is 3 here and 2 in this stream"):
                stream.step(three)
            stream.reset()
        stream.step(three)
        assert stream.states["m"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_no_state_is_kept_when_one_of_them_is_not_finite(bad: float) -> None:
    session, engine = counting()
    with session.stream() as stream:
        x = np.ones(2, np.float32)
        stream.step(x)
        engine.bad = bad
        with pytest.raises(StateError, match="'m_out' has 1 values") as caught:
            stream.step(x)
        assert caught.value.details["states"] == {"m_out": {"count": 1, "first": (0,)}}
        engine.bad = None
        assert stream.step(x)["y"].tolist() == [2, 2]


def test_a_request_that_raised_is_replaced_and_the_state_kept() -> None:
    session, engine = counting()
    with session.stream() as stream:
        x = np.ones(2, np.float32)
        stream.step(x)
        engine.fails, made = True, engine.made
        with pytest.raises(BackendFailed):
            stream.step(x)
        engine.fails = False
        assert stream.step(x)["y"].tolist() == [2, 2]
        assert engine.made == made + 1
