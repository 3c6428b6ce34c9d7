"""Cross-layer equalization: what it may not change, and what it takes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import Listed, decide, nothing, outputs, parse, random_model, samples

import edgebm.demo
from edgebm.backends.dialects import OPENVINO_CPU, Dialect, Grid, cpu_dialects
from edgebm.backends.qdq import lower
from edgebm.errors import DataError
from edgebm.exec.collect import FloatRunner
from edgebm.exec.compare import Sqnr
from edgebm.importers import import_model
from edgebm.ir.edit import const, set_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.equalize_channels import EqualizeChannels
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.recipe import load_recipe
from edgebm.search.build import values_to_observe

CNN = """g (float[1,3,8,8] x) => (float[1,5,8,8] y) {
  [a] h = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(h)
  [b] i = Conv<pads=[1,1,1,1]>(r, w2, b2)
  s = Relu(i)
  [c] y = Conv(s, w3, b3)
}"""
SHAPES = {
    "w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,),
    "w3": (5, 16, 1, 1), "b3": (5,),
}  # fmt: skip
KIND = EqualizeChannels.kind
DEMO = Path(edgebm.demo.__file__).parent


def harden(model: Model, spread: float = 1000.0, seed: int = 0) -> Model:
    """Rescale the channels between each pair Conv, Relu, Conv; the function is the same."""
    hard, rng = model.clone(), np.random.default_rng(seed)
    for relu in hard.nodes("Relu"):
        first = relu.inputs[0].producer() if relu.inputs[0] else None
        uses = tuple(relu.outputs[0].uses())
        if first is None or first.op_type != "Conv" or len(uses) != 1:
            continue
        second = uses[0].node
        if second.op_type != "Conv" or second.attributes.get_int("group", 1) != 1:
            continue
        w, b, v = const(first.inputs[1]), const(first.inputs[2]), const(second.inputs[1])
        assert w is not None
        assert b is not None
        assert v is not None
        factor = (spread ** rng.uniform(0, 1, len(b))).astype(np.float32)
        set_const(first, 1, w * factor.reshape(-1, *[1] * (w.ndim - 1)), suffix="hard")
        set_const(first, 2, b * factor, suffix="hard")
        set_const(second, 1, v / factor.reshape(1, -1, 1, 1), suffix="hard")
    return hard


def kept_db(
    model: Model, given: Listed, dialect: Dialect, test: Listed, *, equalize: bool = False
) -> float:
    """SQNR of the worst output that the recipe int8 keeps, simulated; with or without the step."""
    steps = [step for step in load_recipe("int8").steps if equalize or step.kind != KIND]
    ctx = Context(
        samples=given,
        observe=lambda m: values_to_observe(m, [dialect.runtime], nothing),
        lower=lambda m: lower(m, dialect, nothing)[0],
    )
    decided, _ = run_passes(model, steps, ctx)
    names = [v.name for v in model.graph.graph.outputs if v.name]
    plain = FloatRunner(model, names)
    rounded = FloatRunner(lower(decided, dialect, nothing)[0], names, plain=True)
    found = Sqnr(names)
    for feeds in test.feeds():
        found.add(plain.run(feeds), rounded.run(feeds))
    return min(found.db.values())


def equalized(model: Model, given: Listed, step: EqualizeChannels | None = None) -> Model:
    return run_passes(model, [step or EqualizeChannels()], Context(samples=given))[0]


GRIDS = [Grid(8, 8), Grid(7, 8), Grid(8, 7)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_network_made_hard_keeps_what_the_original_keeps(grid: Grid) -> None:
    model = random_model(CNN, **SHAPES)
    hard = harden(model)
    given, test = samples(model, 32), samples(model, 60, seed=7)
    for feeds in samples(model, 2, seed=3).feeds():
        np.testing.assert_allclose(outputs(hard, feeds)["y"], outputs(model, feeds)["y"],
                                   rtol=1e-3, atol=1e-4)  # fmt: skip
    dialect = cpu_dialects("openvino", grid)[0]
    before, without = (kept_db(m, given, dialect, test) for m in (model, hard))
    after = kept_db(hard, given, dialect, test, equalize=True)
    assert without < before - 10
    assert after > before - 1


@pytest.mark.parametrize("grid", GRIDS[:2], ids=str)
def test_a_trained_network_made_hard(grid: Grid) -> None:
    model = import_model(DEMO / "digits_cnn.onnx")
    model, _ = run_passes(model, [FoldBatchNorm()], Context())
    (name,) = [v.name for v in model.graph.graph.inputs]
    sets = []
    for file, count in (("calibration", 64), ("test", 150)):
        with np.load(DEMO / f"{file}.npz") as held:
            rows = held[name or ""][:count].astype(np.float32)
        sets.append(Listed([{name or "": row[None]} for row in rows]))
    given, test = sets
    dialect = cpu_dialects("openvino", grid)[0]
    hard = harden(model)
    before, without = (kept_db(m, given, dialect, test) for m in (model, hard))
    after = kept_db(hard, given, dialect, test, equalize=True)
    assert without < before - 10
    assert after > before - 2


def test_even_channels_are_left_alone_with_a_reason() -> None:
    model = random_model(CNN, **SHAPES)
    ctx = Context(samples=samples(model, 16))
    after, _ = run_passes(model, [EqualizeChannels()], ctx)
    assert after.to_bytes() == model.to_bytes()
    assert [skip.node for skip in ctx.skips] == ["a", "b"]
    assert all("even enough: " in skip.reason for skip in ctx.skips)


def test_an_obstacle_is_a_reason() -> None:
    model = random_model(
        """g (float[1,3,8,8] x) => (float[1,5,4,4] y) {
          [a] h = Conv(x, w1, b1)
          k = Concat<axis=1>(h, h)
          y = Conv(k, w2)
        }""",
        w1=(4, 3, 3, 3), b1=(4,), w2=(5, 8, 3, 3),
    )  # fmt: skip
    ctx = Context(samples=samples(model, 4))
    run_passes(model, [EqualizeChannels(gain=1.0)], ctx)
    assert [skip.node for skip in ctx.skips] == ["a"]
    assert "puts other channels beside it" in ctx.skips[0].reason


def test_layers_that_stay_in_float_have_nothing_to_gain() -> None:
    hard = harden(random_model(CNN, **SHAPES))
    ctx = Context(samples=samples(hard, 4), is_ignored=lambda name, op: name in {"b", "c"})
    after, _ = run_passes(hard, [EqualizeChannels()], ctx)
    assert after.to_bytes() == hard.to_bytes()
    assert {skip.reason for skip in ctx.skips} == {
        "every layer that reads it is on the ignored list"
    }


@pytest.mark.parametrize("given", [None, Listed([])])
def test_no_samples(given: Listed | None) -> None:
    with pytest.raises(DataError, match="equalization needs calibration samples"):
        run_passes(random_model(CNN, **SHAPES), [EqualizeChannels()], Context(samples=given))


def test_nothing_to_rescale_needs_no_samples() -> None:
    model = random_model("g (float[1,6] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(6, 4))
    after, _ = run_passes(model, [EqualizeChannels()], Context())
    assert after.to_bytes() == model.to_bytes()


# Channel 0 reaches the limit on the samples, 1 comes to 3, 2 to 0.006.
LIMITED = """g (float[1,3,4,4] x) => (float[1,3,4,4] y) <float lo = {0.0}, float hi = {6.0}> {
  [a] h = Conv(x, w1)
  r = Clip(h, lo, hi)
  [b] y = Conv(r, w2)
}"""
GAINS = np.array([20.0, 3.0, 0.006], np.float32)


def limited() -> Model:
    first = (np.eye(3) * GAINS).astype(np.float32).reshape(3, 3, 1, 1)
    mix = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.5], [0.3, 1.0, -1.0]])
    second = (mix / GAINS).astype(np.float32).reshape(3, 3, 1, 1)
    return parse(LIMITED, w1=first, w2=second)


def inside(count: int = 16) -> Listed:
    """Samples between -1 and 1; the largest value of each channel is 1 in the first."""
    rng = np.random.default_rng(0)
    drawn = [rng.uniform(-1, 1, (1, 3, 4, 4)).astype(np.float32) for _ in range(count)]
    drawn[0][0, :, 0, 0] = 1.0
    return Listed([{"x": x} for x in drawn])


def test_a_relu6_keeps_its_function_on_what_was_seen() -> None:
    model, given = limited(), inside()
    after = equalized(model, given)
    assert after.to_bytes() != model.to_bytes()
    for feeds in inside(32).feeds():
        want = outputs(model, feeds)["y"]
        np.testing.assert_allclose(outputs(after, feeds)["y"], want, rtol=1e-5, atol=1e-5)


def test_channels_at_the_limit_of_a_relu6_stay_and_none_is_raised_above_it() -> None:
    model, given = limited(), inside()
    before, after = (
        FloatRunner(m, ["r"]).run({"x": np.concatenate([f["x"] for f in given.feeds()])[:1]})["r"]
        for m in (model, equalized(model, given))
    )
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    peak = after.max(axis=(0, 2, 3))
    assert peak[2] > 100 * before[0, 2].max()
    assert (peak <= 6.0 + 1e-5).all()


def test_beyond_what_was_seen_a_raised_channel_is_cut_off_earlier() -> None:
    """As its calibrated range would cut it off; the channel at the limit is as it was."""
    model, given = limited(), inside()
    after = equalized(model, given)
    far = np.full((1, 3, 4, 4), 50.0, np.float32)
    want, got = (FloatRunner(m, ["r"]).run({"x": far})["r"][0, :, 0, 0] for m in (model, after))
    np.testing.assert_allclose(want, [6.0, 6.0, 0.3], rtol=1e-5)
    assert got[0] == want[0] == 6.0
    assert (got <= 6.0).all()
    seen = FloatRunner(after, ["r"]).run(next(iter(given.feeds())))["r"][0, :, 0, 0]
    assert got[2] >= seen[2]  # never below what was seen


def test_progress_counts_the_samples() -> None:
    told: list[tuple[str, int, int]] = []
    ctx = Context(
        samples=samples(random_model(CNN, **SHAPES), 5),
        progress=lambda step, done, total: told.append((step, done, total)),
    )
    run_passes(random_model(CNN, **SHAPES), [EqualizeChannels()], ctx)
    assert told == [("equalize_channels", k, 5) for k in range(1, 6)]


def test_the_placement_does_not_change() -> None:
    model = random_model(CNN, **SHAPES)
    hard, given = harden(model), samples(model, 8)
    plans = [
        lower(decide(m, [OPENVINO_CPU], given)[0], OPENVINO_CPU, nothing)[1]
        for m in (model, equalized(hard, given))
    ]
    names = [sorted(node.name or "" for node in plan.nodes) for plan in plans]
    assert names[0] == names[1] == ["a", "b", "c"]
