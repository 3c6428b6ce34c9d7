from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from graphs import Listed, random_model, samples, sqnr_db

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect, Grid
from edgebm.exec.collect import FloatRunner
from edgebm.ir.annotate import quant_of, rounded_of, shift_of
from edgebm.ir.edit import const, dequantized
from edgebm.ir.model import Model
from edgebm.passes import learn_rounding
from edgebm.passes.base import Context
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.driver import run_passes
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.quant.params import fake_quantize, with_bits

torch = pytest.importorskip("torch", reason="torch is not installed")
torch.set_num_threads(1)

from trained_digits import context, decided, digits_model, rows  # noqa: E402

SHORT = LearnRounding(steps=60, samples=200)
LAYERS = ("stem", "inner", "outer", "head")


def lowered_weights(model: Model) -> dict[str, np.ndarray]:
    found = {node.name: dequantized(node.inputs[1]) for node in model.nodes("Conv", "Gemm")}
    return {label: array for label, array in found.items() if array is not None}


def error_db(model: Model, lowered: Model, given: Listed) -> float:
    runners = FloatRunner(model, ["y"]), FloatRunner(lowered, ["y"], plain=True)
    want, got = ([runner.run(feeds)["y"] for feeds in given.feeds()] for runner in runners)
    flat = [np.concatenate([y.reshape(-1) for y in each]) for each in (want, got)]
    return sqnr_db(*flat)


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_samples_it_has_not_seen_come_nearer_to_the_float_model(dialect: Dialect) -> None:
    model, ctx = digits_model(), context(rows(0, 300), dialect)
    nearest = run_passes(decided(model, ctx), [CorrectBias()], ctx)[0]
    learned, _ = run_passes(nearest, [SHORT], ctx)
    fresh = rows(1200, 1400)
    before = error_db(model, ctx.lower(nearest), fresh)
    assert error_db(model, ctx.lower(learned), fresh) > before + 4
    assert "rounding was learned in" in ctx.notes[-1]


def test_every_weight_is_on_the_grid_one_step_away_at_most() -> None:
    model, ctx = digits_model(), context(rows(0, 300))
    nearest = decided(model, ctx)
    learned, _ = run_passes(nearest, [SHORT], ctx)
    before, after = lowered_weights(ctx.lower(nearest)), lowered_weights(ctx.lower(learned))
    assert set(after) == set(LAYERS)
    changed = 0
    for node in learned.nodes("Conv", "Gemm"):
        params, weight = quant_of(node.inputs[1]), const(node.inputs[1])
        assert params is not None
        assert weight is not None
        rounded = after[node.name]
        np.testing.assert_array_equal(fake_quantize(rounded, params), rounded)
        step = params.scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert (np.abs(rounded - weight) < step * 1.001).all()
        changed += int((rounded != before[node.name]).sum())
    assert changed > 50


def test_the_float_model_stays_exact_and_layers_in_float_have_their_own_weights() -> None:
    model, ctx = digits_model(), context(rows(0, 200))
    nearest = decided(model, ctx)
    learned, _ = run_passes(nearest, [SHORT], ctx)
    assert learned.to_bytes() == nearest.to_bytes()
    for node in learned.nodes("Conv", "Gemm"):
        assert shift_of(node.outputs[0]) is not None
    other = Grid(7, 8)  # of an engine with fewer bits: it rounds to the nearest
    for node in learned.nodes("Conv"):
        params = quant_of(node.inputs[1])
        assert params is not None
        assert rounded_of(node.inputs[1], params) is not None
        assert rounded_of(node.inputs[1], with_bits(params, 3)) is None
    assert other.weight_bits == 7


def test_equal_seeds_give_equal_integers_and_others_do_not() -> None:
    model = digits_model()
    found = []
    for seed in (0, 0, 1):
        ctx = context(rows(0, 120), seed=seed)
        learned, _ = run_passes(decided(model, ctx), [LearnRounding(steps=20)], ctx)
        found.append(lowered_weights(ctx.lower(learned)))
    for label, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][label])
    assert any((array != found[2][label]).any() for label, array in found[0].items())


def test_a_stage_that_gets_no_better_rounds_to_the_nearest() -> None:
    model, ctx = digits_model(), context(rows(0, 60))
    nearest = decided(model, ctx, bits=8)
    # So slow that nothing changes but what is undecided, and that by chance.
    learned, _ = run_passes(nearest, [LearnRounding(steps=1, rate=1e-9)], ctx)
    assert {skip.node for skip in ctx.skips} >= set(LAYERS)
    assert "rounds to nearest" in ctx.skips[-1].reason
    before, after = (lowered_weights(ctx.lower(each)) for each in (nearest, learned))
    for label, array in before.items():
        np.testing.assert_array_equal(array, after[label])


def test_grids_of_fewer_bits_than_decided_are_learned_for() -> None:
    from dataclasses import replace

    narrow = replace(OPENVINO_CPU, grid=Grid(7, 8))
    model, ctx = digits_model(), context(rows(0, 200), narrow)
    nearest = decided(model, ctx, bits=8)
    learned, _ = run_passes(nearest, [SHORT], ctx)
    fresh = rows(1200, 1400)
    before = error_db(model, ctx.lower(nearest), fresh)
    assert error_db(model, ctx.lower(learned), fresh) > before + 1


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (
            """g (float[1,3,6,6] x) => (float[1,4,12,12] y) {
              a = Relu(x)
              h = ConvTranspose<strides=[2,2], kernel_shape=[2,2]>(a, w, b)
              y = Relu(h) }""",
            {"w": (3, 4, 2, 2), "b": (4,)},
        ),
        (
            """g (float[1,5,8] x) => (float[1,5,8] y) {
              h = MatMul(x, w)
              a = Add(h, b)
              r = Relu(a)
              k = MatMul(r, w2)
              y = Add(k, x) }""",
            {"w": (8, 16), "b": (16,), "w2": (16, 8)},
        ),
        (
            """g (float[1,6,3] x) => (float[1,6,8] y) <int64[1] one = {1}> {
              t = Transpose<perm=[1,0,2]>(x)
              s, h, c = LSTM<hidden_size=16>(t, w, r)
              q = Squeeze(s, one)
              b = Transpose<perm=[1,0,2]>(q)
              y = MatMul(b, w2) }""",
            {"w": (1, 64, 3), "r": (1, 64, 16), "w2": (16, 8)},
        ),
    ],
    ids=["transposed", "products", "behind a recurrent layer"],
)
def test_all_kinds_of_layers(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    model = random_model(text, **shapes)
    ctx = context(samples(model, 60))
    nearest = decided(model, ctx)
    learned, _ = run_passes(nearest, [LearnRounding(steps=60)], ctx)
    fresh = samples(model, 20, seed=9)
    before = error_db(model, ctx.lower(nearest), fresh)
    assert error_db(model, ctx.lower(learned), fresh) > before + 0.2


def test_samples_of_different_lengths_are_learned_from() -> None:
    model = random_model(
        """g (float[1,T,8] x) => (float[1,T,6] y) {
          h = MatMul(x, w)
          r = Relu(h)
          y = MatMul(r, v)
        }""",
        w=(8, 16),
        v=(16, 6),
    )
    generator = np.random.default_rng(0)
    given = Listed(
        [{"x": generator.normal(size=(1, 3 + i % 3, 8)).astype("f4")} for i in range(60)]
    )
    ctx = context(given)
    nearest = decided(model, ctx)
    learned, _ = run_passes(nearest, [LearnRounding(steps=60)], ctx)
    before = error_db(model, ctx.lower(nearest), given)
    assert error_db(model, ctx.lower(learned), given) > before + 0.5


def test_a_weight_of_two_stages_rounds_to_the_nearest() -> None:
    model = random_model(
        "g (float[1,8] x) => (float[1,8] y) { [a] h = MatMul(x, w)\n [b] y = MatMul(h, w) }",
        w=(8, 8),
    )
    ctx = context(samples(model, 20))
    run_passes(decided(model, ctx), [LearnRounding(steps=2)], ctx)
    assert {skip.node for skip in ctx.skips} == {"a", "b"}
    assert "has the same weight" in ctx.skips[0].reason


def test_why_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ctx = digits_model(), context(rows(0, 20))
    run_passes(model, [LearnRounding()], ctx)
    assert ctx.skips[-1].reason == "no activation was quantized before it"
    nearest = decided(model, ctx)
    one = context(rows(0, 1))
    run_passes(nearest, [LearnRounding()], one)
    assert one.skips[-1].reason == "it learns from 2 samples or more"
    bare = Context(ctx.samples, observe=ctx.observe, lower=lambda m: m.clone())
    run_passes(nearest, [LearnRounding()], bare)
    assert bare.skips[-1].reason == "no layer with a decided weight is lowered to integers"
    monkeypatch.setattr(learn_rounding.importlib.util, "find_spec", lambda name: None)
    after, _ = run_passes(nearest, [LearnRounding()], ctx)
    assert ctx.skips[-1].reason == "learning needs torch: pip install 'edgebm[train]'"
    assert after.to_bytes() == nearest.to_bytes()
    assert importlib.util is learn_rounding.importlib.util


def test_progress_reaches_the_end_and_the_plan_follows_the_seconds() -> None:
    model, ctx = digits_model(), context(rows(0, 40))
    seen: list[tuple[str, int, int]] = []
    ctx.progress = lambda *at: seen.append(at)
    nearest = decided(model, ctx)
    run_passes(nearest, [LearnRounding(seconds=1e-3)], ctx)
    mine = [(done, total) for step, done, total in seen if step == "learn_rounding"]
    assert mine[-1] == (3 * 50, 3 * 50)  # three stages of the fewest steps
    assert [done for done, _ in mine] == sorted(done for done, _ in mine)
