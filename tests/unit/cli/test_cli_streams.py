from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.cli.main import main
from edgebm.cli.sequences import stream_through
from edgebm.runtime.engines import OWN, Buffers
from edgebm.runtime.session import Session, load
from edgebm.spec import EngineConfig, Manifest, Shapes, StateSpec, TensorSpec, Variant

DATA = Path(__file__).parents[2] / "device" / "data"
LSTM, CHUNKS, DECODER = (str(DATA / f"{n}.edgebm") for n in ("lstm", "chunks", "decoder"))
RNG = np.random.default_rng(5)
Array = np.ndarray[Any, Any]


def run(bundle: str, tmp_path: Path, **arrays: Array) -> dict[str, Array]:
    np.savez(tmp_path / "x.npz", **arrays)
    out = tmp_path / "y.npz"
    command = ["run", bundle, "-i", str(tmp_path / "x.npz"), "-o", str(out), "--force"]
    assert main(command) == 0
    with np.load(out) as found:
        return dict(found)


def streamed(bundle: str, frames: Any, **states: Array) -> list[Array]:
    with load(bundle) as session, session.stream() as stream:
        if states:
            stream.reset(states)
        return [stream.step(x)["y"] for x in frames]


def test_an_axis_more_is_time_and_each_sample_a_stream(tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 6, 1, 4)).astype(np.float32)
    found = run(LSTM, tmp_path, x=x)
    assert list(found) == ["y"]
    assert found["y"].shape == (3, 6, 1, 3)
    for sample in range(3):
        expected = streamed(LSTM, [x[sample : sample + 1, t] for t in range(6)])
        np.testing.assert_array_equal(found["y"][sample], np.concatenate(expected))


def test_one_unnamed_array_is_the_input_that_is_no_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = RNG.normal(size=(2, 5, 1, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert main(["run", LSTM, "-i", str(tmp_path / "x.npy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calls"] == 10
    assert found["outputs"]["y"]["shape"] == [2, 5, 1, 3]


def test_states_left_out_are_the_initial_ones_and_given_ones_are_used(tmp_path: Path) -> None:
    x = RNG.normal(size=(2, 1, 4)).astype(np.float32)
    alone = [streamed(LSTM, [x[k : k + 1]])[0] for k in range(2)]
    np.testing.assert_array_equal(run(LSTM, tmp_path, x=x)["y"], np.concatenate(alone))
    h, c = (np.tanh(RNG.normal(size=(2, 2, 1, 3))).astype(np.float32) for _ in "hc")
    whole = run(LSTM, tmp_path, x=x[:1], h=h[0], c=c[0])
    assert list(whole) == ["y", "h_out", "c_out"]
    frames = RNG.normal(size=(2, 3, 1, 4)).astype(np.float32)
    found = run(LSTM, tmp_path, x=frames, h=h, c=c)["y"]
    for k in range(2):
        expected = streamed(LSTM, frames[k][:, None], h=h[k], c=c[k])
        np.testing.assert_array_equal(found[k], np.concatenate(expected))


def test_an_input_without_a_batch_in_front_is_one_sample_of_chunks(tmp_path: Path) -> None:
    chunks = RNG.normal(size=(5, 2, 3, 4)).astype(np.float32)
    found = run(CHUNKS, tmp_path, x=chunks)
    np.testing.assert_array_equal(found["y"], np.stack(streamed(CHUNKS, chunks)))


class SumRequest:
    """h_out = y = x + h for any batch."""

    carry = None

    def __init__(self, buffers: Buffers, shapes: Shapes) -> None:
        self.inputs = (np.zeros(shapes["x"], np.float32), buffers.inputs["h"])
        self.outputs = self.fixed = (np.zeros(shapes["x"], np.float32), buffers.outputs["h_out"])

    def infer(self) -> None:
        for made in self.outputs:
            made[...] = self.inputs[0] + self.inputs[1]


class SumEngine:
    runtime, version = "sum", "1"

    def request(
        self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False
    ) -> SumRequest:
        return SumRequest(buffers, shapes)

    def close(self) -> None: ...


def test_a_batch_that_states_share_goes_through_one_stream_at_once() -> None:
    x, h, y, h_out = (TensorSpec(name, "float32", ("n", 2)) for name in ("x", "h", "y", "h_out"))
    variant = Variant("t", "sum", "f32", {}, EngineConfig(), "1")
    states = (StateSpec("h", "h_out"),)
    made = Manifest("s", "0", (x, h), (y, h_out), (variant,), states=states, axes={"n": (1, 8)})
    session = Session(made, SumEngine(), {})  # type: ignore[arg-type]
    frames = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    found, steps = stream_through(session, {"x": frames})
    assert steps == 5
    np.testing.assert_allclose(found["y"], np.cumsum(frames, axis=1), rtol=1e-5, atol=1e-6)
    found, steps = stream_through(session, {"x": frames[:, 0]})
    assert (steps, found["y"].shape) == (1, (3, 2))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((2, 0, 1, 4), np.float32)}, "no frames"),
        ({"x": np.zeros((2, 3, 1, 5), np.float32)}, "expected [1, 1, 4]"),
        ({"x": np.zeros((2, 3, 5), np.float32)}, "expected [1, 1, 4]"),
        ({"x": np.zeros((5, 3, 4), np.float32)}, "x [5, 3, 4] holds 3 steps where the model takes "
         "one\nhint:  give [samples, time, 1, 4]: x[:, :, None]\n"),
        ({"x": np.zeros((2, 3, 1, 4), np.float32), "z": np.zeros((2, 3))}, "differ in samples"),
        ({"x": np.zeros((1, 3, 1, 4), np.float32), "h": np.zeros((2, 1, 3), np.float32)},
         "missing inputs ['c']"),
        ({"x": np.zeros((3, 2, 1, 4), np.float32), "h": np.zeros((2, 2, 1, 3), np.float32),
          "c": np.zeros((2, 2, 1, 3), np.float32)}, "fewer states than samples"),
    ],
)  # fmt: skip
def test_wrong_sequences_end_with_2(
    arrays: dict[str, Array], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    assert main(["run", LSTM, "-i", str(tmp_path / "x.npz")]) == 2
    assert words in capsys.readouterr().err


def test_bench_says_that_it_times_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", DECODER, "--seconds", "0.05"]) == 0
    assert "steps of a stream" in capsys.readouterr().out
    assert main(["bench", LSTM, "--seconds", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["of"] == "steps of a stream"


def test_inspect_and_verify_show_states(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", LSTM]) == 0
    out = capsys.readouterr().out
    assert "h      h_out  2x1x3  states/0.npy 2x1x3, " in out
    assert "c      c_out  2x1x3  zeros" in out
    assert main(["verify", LSTM]) == 0
    assert "as one stream" in capsys.readouterr().out
