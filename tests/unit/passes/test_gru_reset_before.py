from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from graphs import Array, Listed, outputs, random_model, sqnr_db

from edgebm.errors import DataError
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of
from edgebm.passes import gru_reset_before
from edgebm.passes.base import Context, Skip
from edgebm.passes.driver import run_passes
from edgebm.passes.gru_reset_before import GruResetBefore

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)

TWO_LAYERS = """g (float[batch,20,6] x) => (float[batch,3] y) <int64[1] last = {0}> {
  t = Transpose<perm=[1,0,2]>(x)
  e = Elu(t)
  s1, h1 = GRU<hidden_size=16, linear_before_reset=1>(e, w1, r1, b1)
  q = Squeeze(s1, one)
  s2, h2 = GRU<hidden_size=16, linear_before_reset=1>(q, w2, r2, b2)
  k = Squeeze(h2, last)
  y = MatMul(k, wo)
}""".replace("{0}> {", "{0}, int64[1] one = {1}> {")
SHAPES = {
    "w1": (1, 48, 6), "r1": (1, 48, 16), "b1": (1, 96), "w2": (1, 48, 16), "r2": (1, 48, 16),
    "b2": (1, 96), "wo": (16, 3),
}  # fmt: skip
STREAM = """g (float[1,6] x, float[1,1,16] h) => (float[1,16] y, float[1,1,16] next)
    <int64[1] zero = {0}> {
  t = Unsqueeze(x, zero)
  s, next = GRU<hidden_size=16, linear_before_reset=1>(t, w1, r1, b1, , h)
  y = Squeeze(next, zero)
}"""


def two_layers() -> Model:
    return random_model(TWO_LAYERS, seed=3, **SHAPES)


def sequences(count: int, steps: int = 20, seed: int = 0) -> list[Array]:
    """Slow signals: random walks of `steps` steps."""
    rng = np.random.default_rng(seed)
    return [
        (0.5 * rng.normal(size=(1, steps, 6)).cumsum(1)).astype(np.float32) for _ in range(count)
    ]


def clips(count: int, seed: int = 0) -> Listed:
    return Listed([{"x": x} for x in sequences(count, seed=seed)])


def form(model: Model) -> list[int]:
    return [n.attributes.get_int("linear_before_reset", 0) for n in model.nodes("GRU")]


def turned(
    model: Model, step: GruResetBefore, samples: Listed, seed: int = 0
) -> tuple[Model, list[Skip]]:
    ctx = Context(samples=samples, seed=seed)
    return run_passes(model, [step], ctx)[0], ctx.skips


@pytest.fixture(autouse=True)
def one_thread() -> None:
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@needs_torch
def test_all_cells_are_turned_and_the_function_is_nearly_kept() -> None:
    model = two_layers()
    after, skips = turned(model, GruResetBefore(steps=80), clips(80))
    assert skips == []
    assert form(after) == [0, 0]
    for node in after.nodes("GRU"):
        cell = cell_of(node)
        assert cell is not None
        assert not cell.resets_after
    fresh = {"x": np.concatenate(sequences(40, seed=9))}
    want, got = outputs(model, fresh)["y"], outputs(after, fresh)["y"]
    copied = model.clone()
    for node in copied.nodes("GRU"):
        node.attributes.pop("linear_before_reset")
    # Over the old weights in the new form, and over what a user needs.
    assert sqnr_db(want, got) > sqnr_db(want, outputs(copied, fresh)["y"]) + 6
    assert sqnr_db(want, got) > 18


@needs_torch
def test_only_weights_and_the_form_of_the_cells_change() -> None:
    model = two_layers()
    after, _ = turned(model, GruResetBefore(steps=2, min_sqnr_db=0), clips(20))
    kept = model.graph.graph.initializers["wo"].const_value
    assert after.graph.graph.initializers["wo"].const_value is kept
    assert set(after.graph.graph.initializers) == set(model.graph.graph.initializers)
    assert [n.op_type for n in after.nodes()] == [n.op_type for n in model.nodes()]


@needs_torch
def test_a_cell_of_low_fidelity_stays_as_it_was() -> None:
    model = two_layers()
    after, skips = turned(model, GruResetBefore(steps=2, min_sqnr_db=90.0), clips(20))
    assert after.to_bytes() == model.to_bytes()
    assert len(skips) == 2
    assert "dB SQNR after 2 steps of training, less than the 90 asked for" in skips[0].reason


@needs_torch
def test_equal_seeds_give_equal_models_and_others_do_not() -> None:
    model, step = two_layers(), GruResetBefore(steps=6, min_sqnr_db=0)
    first, second, other = (turned(model, step, clips(20), seed)[0] for seed in (0, 0, 1))
    assert first.to_bytes() == second.to_bytes()
    assert first.to_bytes() != other.to_bytes()


@needs_torch
def test_a_training_that_the_clock_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gru_reset_before, "_SLOWEST", 0)
    ctx = Context(samples=clips(20))
    after = run_passes(two_layers(), [GruResetBefore(steps=9, min_sqnr_db=0)], ctx)[0]
    assert form(after) == [0, 0]
    assert ctx.skips == []
    assert "dB SQNR after 1 steps of training; the clock stopped it before step 9" in ctx.notes[0]


@needs_torch
def test_the_plan_is_in_steps_of_the_model_and_the_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gru_reset_before, "_SLOWEST", 1e6)  # however busy this machine is

    def steps(seconds: float) -> int:
        said: list[tuple[str, int, int]] = []
        ctx = Context(samples=clips(20), progress=lambda *at: said.append(at))
        run_passes(two_layers(), [GruResetBefore(seconds=seconds)], ctx)
        total = said[0][2]
        assert said == [("gru_reset_before", n, total) for n in range(1, total + 1)]
        return total // 2

    # Two cells of 16 units, batches of 16 sequences of 20 steps: about 2 ms a step.
    assert steps(1e-6) == 50
    assert 50 < steps(0.3) < 100


@needs_torch
def test_sequences_of_different_lengths() -> None:
    text = TWO_LAYERS.replace("float[batch,20,6]", "float[batch,steps,6]")
    model = random_model(text, seed=3, **SHAPES)
    rng = np.random.default_rng(0)
    feeds = [{"x": x[:, : int(rng.integers(3, 21))]} for x in sequences(60)]
    after, skips = turned(model, GruResetBefore(steps=60), Listed(feeds))
    assert (skips, form(after)) == ([], [0, 0])
    fresh = {"x": np.concatenate(sequences(40, seed=9))}
    assert sqnr_db(outputs(model, fresh)["y"], outputs(after, fresh)["y"]) > 12


@needs_torch
def test_single_steps_with_their_states() -> None:
    model = random_model(STREAM, seed=3, w1=(1, 48, 6), r1=(1, 48, 16), b1=(1, 96))
    feeds = []
    for x in sequences(20):
        h = np.zeros((1, 1, 16), np.float32)
        for frame in x[0]:
            feeds.append({"x": frame[None], "h": h})
            h = outputs(model, feeds[-1])["next"]
    after, skips = turned(model, GruResetBefore(steps=60), Listed(feeds))
    assert (skips, form(after)) == ([], [0])
    want, got = [], []
    states = [np.zeros((1, 1, 16), np.float32)] * 2
    for frame in sequences(1, seed=9)[0][0]:
        for index, (kept, each) in enumerate(((want, model), (got, after))):
            found = outputs(each, {"x": frame[None], "h": states[index]})
            states[index] = found["next"]
            kept.append(found["y"])
    assert sqnr_db(np.array(want), np.array(got)) > 12


@needs_torch
def test_both_directions_of_a_cell() -> None:
    text = """g (float[20,1,6] x) => (float[20,2,1,16] y) {
      y = GRU<hidden_size=16, direction="bidirectional", linear_before_reset=1>(x, w, r)
    }"""
    model = random_model(text, seed=3, w=(2, 48, 6), r=(2, 48, 16))
    feeds = [{"x": x.transpose(1, 0, 2)} for x in sequences(60)]
    after, skips = turned(model, GruResetBefore(steps=60), Listed(feeds))
    assert (skips, form(after)) == ([], [0])
    fresh = {"x": sequences(1, seed=9)[0].transpose(1, 0, 2)}
    assert sqnr_db(outputs(model, fresh)["y"], outputs(after, fresh)["y"]) > 15


@needs_torch
def test_too_few_sequences() -> None:
    after, skips = turned(two_layers(), GruResetBefore(), clips(1))
    assert form(after) == [1, 1]
    assert "fewer than two sequences" in skips[0].reason


@needs_torch
@pytest.mark.parametrize(
    ("attributes", "weights", "reason"),
    [
        ("hidden_size=3, linear_before_reset=1, clip=2.0", "w", "activations, clipping"),
        ("hidden_size=3, linear_before_reset=1", "wx", "its weights are computed"),
    ],
)
def test_cells_it_cannot_turn_are_named(attributes: str, weights: str, reason: str) -> None:
    model = random_model(
        f"""g (float[4,4,2] x, float[1,9,2] u) => (float[1,4,3] h) {{
          wx = Add(w, u)
          s, h = GRU<{attributes}>(x, {weights}, r)
        }}""",
        w=(1, 9, 2), r=(1, 9, 3),
    )  # fmt: skip
    after, skips = turned(model, GruResetBefore(), Listed([]))
    assert after.to_bytes() == model.to_bytes()
    assert reason in skips[0].reason


def test_models_without_such_a_cell_need_neither_samples_nor_torch() -> None:
    model = random_model(
        "g (float[4,1,2] x) => (float[1,1,3] h) { s, h = GRU<hidden_size=3>(x, w, r) }",
        w=(1, 9, 2), r=(1, 9, 3),
    )  # fmt: skip
    after, skips = turned(model, GruResetBefore(), Listed([]))
    assert after.to_bytes() == model.to_bytes()
    assert skips == []


@needs_torch
def test_without_samples_it_is_refused() -> None:
    with pytest.raises(DataError, match="turning GRUs"):
        run_passes(two_layers(), [GruResetBefore()], Context())


@needs_torch
def test_ignored_cells_stay() -> None:
    model = two_layers()
    first = next(model.nodes("GRU")).name
    ctx = Context(samples=clips(20), is_ignored=lambda name, op_type: name == first)
    after, _ = run_passes(model, [GruResetBefore(steps=2, min_sqnr_db=0)], ctx)
    assert form(after) == [1, 0]


def test_without_torch_the_report_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    after, skips = turned(two_layers(), GruResetBefore(), clips(4))
    assert form(after) == [1, 1]
    assert "pip install 'edgebm[train]'" in skips[0].reason
