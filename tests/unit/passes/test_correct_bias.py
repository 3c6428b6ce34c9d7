"""Bias correction: the mean error against the truth, and what it buys at the outputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from graphs import Listed, nothing, parse, random_model, samples

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect
from edgebm.backends.qdq import lower
from edgebm.errors import DataError
from edgebm.exec.collect import FloatRunner
from edgebm.exec.compare import Sqnr
from edgebm.ir.annotate import quant_of, shift_of
from edgebm.ir.bias import subtract_from_bias
from edgebm.ir.edit import const, set_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Pass
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.quant.params import fake_quantize
from edgebm.search.build import values_to_observe

CNN = """g (float[1,3,8,8] x) => (float[1,5,8,8] y) {
  [a] h = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(h)
  m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(r)
  [b] i = Conv<pads=[1,1,1,1]>(m, w2)
  s = Relu(i)
  [c] y = Conv(s, w3, b3)
}"""
SHAPES = {
    "w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "w3": (5, 16, 1, 1), "b3": (5,),
}  # fmt: skip


def context(given: Listed | None, dialect: Dialect = OPENVINO_CPU) -> Context:
    return Context(
        samples=given,
        observe=lambda m: values_to_observe(m, [dialect.runtime], nothing),
        lower=lambda m: lower(m, dialect, nothing)[0],
    )


def quantized(model: Model, bits: int, ctx: Context, *more: Pass) -> Model:
    steps = [FoldBatchNorm(), QuantizeWeights(bits=bits), QuantizeActivations(), *more]
    return run_passes(model, steps, ctx)[0]


def kept_db(model: Model, decided: Model, test: Listed, dialect: Dialect = OPENVINO_CPU) -> float:
    names = [v.name for v in model.graph.graph.outputs if v.name]
    plain = FloatRunner(model, names)
    rounded = FloatRunner(lower(decided, dialect, nothing)[0], names, plain=True)
    found = Sqnr(names)
    for feeds in test.feeds():
        found.add(plain.run(feeds), rounded.run(feeds))
    return min(found.db.values())


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_four_bits_gain_a_decibel_on_samples_that_were_not_seen(dialect: Dialect) -> None:
    model = random_model(CNN, **SHAPES)
    given, test = samples(model, 100), samples(model, 60, seed=9)
    ctx = context(given, dialect)
    without = kept_db(model, quantized(model, 4, ctx), test, dialect)
    corrected = quantized(model, 4, ctx, CorrectBias())
    assert kept_db(model, corrected, test, dialect) > without + 1
    assert [skip for skip in ctx.skips if skip.step == "correct_bias"] == []


@pytest.mark.parametrize("seed", range(4))
def test_eight_bits_lose_nothing(seed: int) -> None:
    model = random_model(CNN, seed=seed, **SHAPES)
    given, test = samples(model, 100), samples(model, 60, seed=9)
    ctx = context(given)
    without = kept_db(model, quantized(model, 8, ctx), test)
    assert kept_db(model, quantized(model, 8, ctx, CorrectBias()), test) > without - 0.1


def test_what_gains_nothing_is_taken_back_and_said() -> None:
    """Weights on their grid, inputs of few levels: there is nothing to correct."""
    weight = np.array([[127, -64], [3, 127]], np.float32) / 127
    model = parse("g (float[1,4,2] x) => (float[1,4,2] y) { h = MatMul(x, w)\n y = Add(h, b) }",
                  w=weight, b=np.ones(2, np.float32))  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [{"x": rng.integers(0, 2, (1, 4, 2)).astype(np.float32)} for _ in range(20)]
    ctx = context(Listed(rows))
    before = quantized(model, 8, ctx)
    after = run_passes(before, [CorrectBias()], ctx)[0]
    assert written(after).to_bytes() == before.to_bytes()
    (skip,) = ctx.skips
    assert skip.step == "correct_bias"
    assert skip.reason == "the worst output gains 0.00 dB by it, less than 0.1"


def norm_model(flatten: bool = False) -> tuple[Model, np.ndarray, np.ndarray]:
    """Conv-BatchNormalization-ReLU-layer whose norm's output really is normal, and its moments.

    The input is normal and the first convolution has one tap, so its output is normal; the
    statistics of the norm are the true ones.
    """
    rng = np.random.default_rng(0)
    w1 = rng.normal(size=(6, 8, 1, 1)).astype(np.float32)
    gamma, beta = rng.normal(size=6).astype(np.float32), rng.normal(size=6).astype(np.float32)
    var = (w1**2).sum(axis=(1, 2, 3))
    tail = "f = Flatten(r)\n [b] y = Gemm(f, w2, c)" if flatten else "[b] y = Conv(r, w2)"
    out = "1,7" if flatten else "1,7,4,4"
    weights = {"w2": rng.normal(size=(7, 6, 1, 1)).astype(np.float32)}
    if flatten:
        weights = {
            "w2": rng.normal(size=(96, 7)).astype(np.float32),
            "c": np.zeros(7, np.float32),
        }
    model = parse(
        f"""g (float[1,8,4,4] x) => (float[{out}] y) {{
          h = Conv(x, w1)
          n = BatchNormalization<epsilon=0.0>(h, g, b, m, v)
          r = Relu(n)
          {tail}
        }}""",
        w1=w1, g=gamma, b=beta, m=np.zeros(6, np.float32), v=var.astype(np.float32), **weights,
    )  # fmt: skip
    return model, beta, gamma


def written(model: Model) -> Model:
    """A copy in which every layer has the bias that it would have on integers."""
    out = model.clone()
    for node in out.nodes("Conv", "Gemm", "MatMul"):
        if (shift := shift_of(node.outputs[0])) is not None:
            subtract_from_bias(node, shift)
    return out


def bias_of(model: Model, label: str) -> np.ndarray:
    node = next(node for node in written(model).nodes() if node.name == label)
    value = const(node.inputs[2])
    assert value is not None
    return value


@pytest.mark.parametrize("flatten", [False, True], ids=["conv", "flatten, gemm"])
def test_the_analytic_shift_is_the_true_one(flatten: bool) -> None:
    model, beta, gamma = norm_model(flatten)
    ctx = Context()
    steps: list[Pass] = [FoldBatchNorm(), QuantizeWeights(bits=4), CorrectBias(method="analytic")]
    after, _ = run_passes(model, steps, ctx)
    node = next(node for node in after.nodes() if node.name == "b")
    weight, params = const(node.inputs[1]), quant_of(node.inputs[1])
    assert weight is not None
    assert params is not None
    rng = np.random.default_rng(1)
    draws = np.maximum(beta + gamma * rng.normal(size=(200_000, 6)), 0)
    off = (fake_quantize(weight, params) - weight).astype(np.float64)
    off = off.reshape(6, 16, 7).sum(axis=1) if flatten else off.reshape(7, 6).T
    error = draws @ off
    chance = error.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(-bias_of(after, "b") - error.mean(axis=0)) < 5 * chance).all()
    assert (np.abs(bias_of(after, "b")) > 20 * chance).any()  # there was something to correct
    # The layer that reads the model's input is not known to have a mean.
    assert [(skip.node != "b", skip.reason[:22]) for skip in ctx.skips] == [
        (True, "no BatchNormalization ")
    ]


def test_the_analytic_shift_brings_the_output_nearer() -> None:
    model, _, _ = norm_model()
    steps: list[Pass] = [FoldBatchNorm(), QuantizeWeights(bits=4)]
    decided, _ = run_passes(model, steps, Context())
    corrected = written(run_passes(decided, [CorrectBias(method="analytic")], Context())[0])
    errors = []
    for graph in (decided, corrected):
        rounded = graph.clone()
        for node in rounded.nodes("Conv"):
            weight, params = const(node.inputs[1]), quant_of(node.inputs[1])
            assert weight is not None
            assert params is not None
            if node.name == "b":
                set_const(node, 1, fake_quantize(weight, params), suffix="rounded")
        test = samples(model, 40, seed=4)
        plain, other = FloatRunner(model, ["y"]), FloatRunner(rounded, ["y"])
        found = Sqnr(["y"])
        for feeds in test.feeds():
            found.add(plain.run(feeds), other.run(feeds))
        errors.append(found.db["y"])
    assert errors[1] > errors[0] + 1


def test_auto_is_empirical_where_it_can_be() -> None:
    model, _, _ = norm_model()
    alone, _ = run_passes(model, [FoldBatchNorm(), QuantizeWeights(bits=4)], Context())
    results = [
        written(run_passes(alone, [CorrectBias(method=method)], context(given))[0]).to_bytes()
        for method, given in (("auto", None), ("auto", samples(model, 9)), ("analytic", None))
    ]
    assert results[0] == results[1] == results[2] != alone.to_bytes()
    ctx = context(samples(model, 64))
    ranged = quantized(model, 4, ctx)
    auto, empirical, analytic = (
        written(run_passes(ranged, [CorrectBias(method=method)], ctx)[0]).to_bytes()
        for method in ("auto", "empirical", "analytic")
    )
    assert auto == empirical != analytic


def test_empirical_without_samples_or_ranges() -> None:
    model, _, _ = norm_model()
    step = CorrectBias(method="empirical")
    with pytest.raises(DataError, match="empirical bias correction needs calibration") as caught:
        run_passes(model, [step], context(None))
    assert "method: analytic" in caught.value.hint
    ctx = context(samples(model, 4))
    after, _ = run_passes(model, [QuantizeWeights(), step], ctx)
    assert ctx.skips[-1].reason == "no activation was quantized before it"
    assert after.to_bytes() == model.to_bytes()


def test_a_layer_without_a_bias_gets_one_that_both_runtimes_take_as_theirs() -> None:
    model = random_model(CNN, **SHAPES)
    for dialect in (OPENVINO_CPU, ONNXRUNTIME_CPU):
        ctx = context(samples(model, 60), dialect)
        lowered = [
            lower(quantized(model, 4, ctx, *more), dialect, nothing)[0]
            for more in ((), (CorrectBias(),))
        ]
        kinds = [sorted(n.op_type for n in graph.nodes()) for graph in lowered]
        extra = ["DequantizeLinear"] if dialect.int32_bias else []  # it is stored as int32
        assert kinds[1] == sorted([*kinds[0], *extra])
        node = next(n for n in lowered[1].nodes("Conv") if n.name == "b")
        assert node.inputs[2] is not None


def corrected(text: str, **shapes: tuple[int, ...]) -> tuple[Model, Model, Context]:
    """4-bit weights, before and after the empirical correction."""
    model = random_model(text, **shapes)
    ctx = context(samples(model, 60))
    before = quantized(model, 4, ctx)
    return before, written(run_passes(before, [CorrectBias()], ctx)[0]), ctx


def changed(before: Model, after: Model) -> list[tuple[int, ...]]:
    """Shapes of the constants that the correction made."""
    old = {k: v.const_value for k, v in before.graph.graph.initializers.items()}
    new = {k: v.const_value for k, v in after.graph.graph.initializers.items()}
    return sorted(
        tuple(v.numpy().shape)
        for k, v in new.items()
        if v is not None
        and ((o := old.get(k)) is None or not np.array_equal(o.numpy(), v.numpy()))
    )


def test_the_constant_behind_a_matmul_takes_it() -> None:
    before, after, ctx = corrected(
        """g (float[1,6,8] x) => (float[1,6,7] y) {
          h = MatMul(x, w1)
          b = Add(b1, h)
          r = Relu(b)
          i = MatMul(r, w2)
          y = Add(i, b2)
        }""",
        w1=(8, 16), b1=(16,), w2=(16, 7), b2=(1, 7),
    )  # fmt: skip
    assert (1, 7) in changed(before, after)
    assert [skip.reason for skip in ctx.skips] == []


def test_products_without_a_constant_behind_them_say_so() -> None:
    _, _, ctx = corrected(
        """g (float[1,6,8] x) => (float[1,6,8] y, float[1,6,8] z) {
          a = Abs(x)
          h = MatMul(a, w1)
          y = Add(h, a)
          z = MatMul(a, w2)
        }""",
        w1=(8, 8), w2=(8, 8),
    )  # fmt: skip
    assert {skip.reason for skip in ctx.skips if skip.node != "?"} == {
        "no constant is added to its output",
    }


def test_layers_that_share_a_bias_get_their_own() -> None:
    before, after, _ = corrected(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z) {
          a = Abs(x)
          [p] y = Conv(a, w1, b)
          [q] z = Conv(a, w2, b)
        }""",
        w1=(4, 4, 1, 1), w2=(4, 4, 1, 1), b=(4,),
    )  # fmt: skip
    assert len({next(n for n in before.nodes() if n.name == k).inputs[2] for k in "pq"}) == 1
    assert not np.array_equal(bias_of(after, "p"), bias_of(after, "q"))


def test_progress_comes_to_its_end() -> None:
    model = random_model(CNN, **SHAPES)
    ctx = context(samples(model, 30))
    decided = quantized(model, 4, ctx)
    told: list[tuple[str, int, int]] = []
    ctx.progress = lambda step, done, total: told.append((step, done, total))
    run_passes(decided, [CorrectBias(samples=10)], ctx)
    assert told[0][0] == "correct_bias"
    assert [done for _, done, _ in told] == list(range(1, told[-1][2] + 1))
    assert all(a[2] == b[2] for a, b in pairwise(told))
