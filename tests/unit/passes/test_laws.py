"""What every pass of the catalog must keep, on every kind of graph."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from graphs import Listed, nothing, outputs, random_model, samples, sqnr_db

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect
from edgebm.backends.placement import place
from edgebm.backends.qdq import lower
from edgebm.ir.annotate import annotated, quant_of, range_of
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Pass
from edgebm.passes.catalog import AnyStep
from edgebm.passes.choose_ranges import ChooseRanges
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.distill import Distill
from edgebm.passes.driver import run_passes
from edgebm.passes.drop_blocks import DropBlocks
from edgebm.passes.equalize_channels import EqualizeChannels
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.gptq import Gptq
from edgebm.passes.gru_reset_before import GruResetBefore
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.passes.prune import Prune
from edgebm.passes.qat import Qat
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_recurrent import QuantizeRecurrent
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.passes.recognize_cells import RecognizeCells
from edgebm.passes.smooth_activations import SmoothActivations
from edgebm.passes.sparsify_2_4 import Sparsify24
from edgebm.passes.split_directions import SplitDirections

# Error of the outputs a pass may make, relative to the output's norm. Decisions change
# nothing; folding, equalizing and smoothing multiply weights in float32 (24 bits, a few hundred
# terms). Gptq, CorrectBias and Qat change the function on purpose, but only where something was
# decided before; what they do then is in their own tests, and so is what is cut.
BOUNDS = {
    RecognizeCells: 1e-5,
    SplitDirections: 1e-6,
    FoldBatchNorm: 1e-5,
    EqualizeChannels: 1e-5,
    SmoothActivations: 1e-5,
    QuantizeWeights: 0.0,
    QuantizeActivations: 0.0,
    QuantizeRecurrent: 0.0,
    QuantizeWeightsOnly: 0.0,
    ChooseRanges: 0.0,
    CorrectBias: 0.0,
    LearnRounding: 0.0,
    Qat: 0.0,
    Gptq: 0.0,
    # Another form of the cell, or none: what it asks of itself on samples that were held out.
    GruResetBefore: 10 ** (-GruResetBefore().min_sqnr_db / 20),
    # Its own teacher: nothing comes nearer than the start.
    Distill: 0.0,
    DropBlocks: 0.0,
    Prune: 0.0,
    # Half of all weights are gone on purpose.
    Sparsify24: 2.0,
}
SHORT: dict[type, Pass] = {
    GruResetBefore: GruResetBefore(steps=20),
    Distill: Distill(steps=3),
    DropBlocks: DropBlocks(sparsity=0.0),
    Prune: Prune(sparsity=0.0),
    LearnRounding: LearnRounding(steps=3),
    Qat: Qat(steps=3),
}
# Smoothing or equalizing what was may move a little more.
IDEMPOTENT = set(BOUNDS) - {SmoothActivations, EqualizeChannels}
# The same steps, where they find more to do than with their defaults.
EAGER: list[Pass] = [
    EqualizeChannels(gain=1.0),
    SmoothActivations(alpha="search"),
    CorrectBias(method="empirical"),
]

GRAPHS = {
    "cnn": (
        """g (float[1,3,8,8] x) => (float[1,5] y) {
          c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
          n1 = BatchNormalization(c1, g1, b2, m1, v1)
          r1 = Relu(n1)
          c2 = Conv<group=4, pads=[1,1,1,1]>(r1, w2)
          n2 = BatchNormalization<epsilon=0.01>(c2, g2, b3, m2, v2)
          s = Add(n2, r1)
          p = GlobalAveragePool(s)
          f = Flatten(p)
          y = Gemm<transB=1>(f, w3, b4)
        }""",
        {
            "w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 1, 3, 3), "w3": (5, 4), "b4": (5,),
            "g1": (4,), "b2": (4,), "m1": (4,), "v1": (4,),
            "g2": (4,), "b3": (4,), "m2": (4,), "v2": (4,),
        },
    ),
    "shared weight": (
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) {
          c1 = Conv<pads=[1,1,1,1]>(x, w, b)
          n1 = BatchNormalization(c1, g, bb, m, v)
          y = Relu(n1)
          z = Conv<pads=[1,1,1,1]>(y, w, b)
        }""",
        {"w": (4, 4, 3, 3), "b": (4,), "g": (4,), "bb": (4,), "m": (4,), "v": (4,)},
    ),
    "attention": (
        """g (int64[1,6] ids) => (float[1,6,8] y) {
          e = Gather(table, ids)
          q = MatMul(e, wq)
          k = MatMul(e, wk)
          kt = Transpose<perm=[0,2,1]>(k)
          s = MatMul(q, kt)
          p = Softmax<axis=-1>(s)
          a = MatMul(p, e)
          o = MatMul(a, wo)
          y = Add(o, e)
        }""",
        {"table": (600, 8), "wq": (8, 8), "wk": (8, 8), "wo": (8, 8)},
    ),
    "outliers": (
        """g (float[1,6,8] x) => (float[1,6,8] y, float[1,6,4] z) {
          n = LayerNormalization<axis=-1>(x, scale, shift)
          h = MatMul(n, w1)
          r = Relu(h)
          d = Mul(r, vlarge)
          y = MatMul(d, w2)
          k = MatMul(d, w3)
          z = Add(k, k)
        }""",
        {
            "scale": (8,), "shift": (8,), "w1": (8, 16), "vlarge": (16,), "w2": (16, 8),
            "w3": (16, 4),
        },
    ),
    "recurrent": (
        """g (float[5,1,4] x) => (float[5,1,1,3] y, float[1,5] z) {
          y, h = GRU<hidden_size=3, linear_before_reset=1>(x, w, r, b)
          s = Squeeze(h)
          u = Unsqueeze(s, zero)
          z = MatMul(u, wz)
        }""",
        {"w": (1, 9, 4), "r": (1, 9, 3), "b": (1, 18), "wz": (3, 5)},
    ),
    "long memory": (
        """g (float[5,1,4] x) => (float[5,1,1,3] y, float[1,1,3] c) {
          y1, h1, c1 = LSTM<hidden_size=3>(x, w, r, b)
          s = Squeeze(y1, one)
          y, h, c = LSTM<hidden_size=3>(s, w2, r2, b2)
        }""",
        {
            "w": (1, 12, 4), "r": (1, 12, 3), "b": (1, 24),
            "w2": (1, 12, 3), "r2": (1, 12, 3), "b2": (1, 24),
        },
    ),
    "written out": (
        """g (float[2,4] x, float[2,3] h) => (float[2,3] y) {
          p = MatMul(x, w)
          q = Gemm(h, r, b)
          pz, pr, pn = Split<axis=1, num_outputs=3>(p)
          qz, qr, qn = Split<axis=1, num_outputs=3>(q)
          az = Add(pz, qz)
          z = Sigmoid(az)
          ar = Add(pr, qr)
          s = Sigmoid(ar)
          rn = Mul(s, qn)
          an = Add(pn, rn)
          n = Tanh(an)
          d = Sub(h, n)
          e = Mul(z, d)
          y = Add(e, n)
        }""",
        {"w": (4, 9), "r": (3, 9), "b": (9,)},
    ),
    "bidirectional": (
        """g (float[5,1,4] x, float[2,1,3] h) => (float[5,2,1,3] y, float[2,1,3] c) {
          y, k, c = LSTM<hidden_size=3, direction="bidirectional">(x, w, r, b, , h)
        }""",
        {"w": (2, 12, 4), "r": (2, 12, 3), "b": (2, 24)},
    ),
}  # fmt: skip


def model_of(label: str) -> Model:
    text, shapes = GRAPHS[label]
    if "zero" in text:
        text = text.replace(
            "=> (float[5,1,1,3] y, float[1,5] z) {",
            "=> (float[5,1,1,3] y, float[1,5] z) <int64[1] zero = {0}> {",
        )
    if "one)" in text:
        text = text.replace("float[1,1,3] c) {", "float[1,1,3] c) <int64[1] one = {1}> {")
    return random_model(text, **shapes)


def steps() -> list[Pass]:
    """Every pass of the catalog, with its defaults; training is cut short."""
    union = get_args(AnyStep)[0]
    return [SHORT.get(step) or step() for step in get_args(union)]


def every_step() -> list[Pass]:
    return [*steps(), *EAGER]


def context(model: Model, dialect: Dialect = OPENVINO_CPU) -> Context:
    def observe(m: Model) -> frozenset[str]:
        plan = place(m, dialect, lambda name, op: False, decided=False)
        return frozenset(v.name for v in plan.points.values() if v.name)

    def lowered(m: Model) -> Model:
        return lower(m, dialect, nothing)[0]

    return Context(samples=samples(model, 3), teacher=model, observe=observe, lower=lowered)


@pytest.fixture(params=list(GRAPHS))
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(request.param)


def test_the_laws_cover_the_whole_catalog() -> None:
    assert {type(step) for step in steps()} == set(BOUNDS)


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.kind)
def test_the_function_is_kept(step: Pass, model: Model) -> None:
    after, _ = run_passes(model, [step], context(model))
    for feeds in samples(model, 2, seed=9).feeds():
        before, now = outputs(model, feeds), outputs(after, feeds)
        for name, want in before.items():
            error = np.linalg.norm(now[name] - want) / np.linalg.norm(want)
            assert error <= BOUNDS[type(step)], name


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.kind)
def test_the_input_model_is_untouched(step: Pass, model: Model) -> None:
    before = model.to_bytes()
    arrays = {
        name: value.const_value.numpy().copy()
        for name, value in model.graph.graph.initializers.items()
        if value.const_value is not None
    }
    run_passes(model, [step], context(model))
    assert model.to_bytes() == before
    assert annotated(model) == frozenset()
    for name, kept in arrays.items():
        held = model.graph.graph.initializers[name].const_value
        assert held is not None
        np.testing.assert_array_equal(held.numpy(), kept, err_msg=name)


@pytest.mark.parametrize(
    "step", [s for s in steps() if type(s) in IDEMPOTENT], ids=lambda step: step.kind
)
def test_running_it_again_changes_nothing(step: Pass, model: Model) -> None:
    ctx = context(model)
    once, _ = run_passes(model, [step], ctx)
    twice, _ = run_passes(once, [step], ctx)
    assert twice.to_bytes() == once.to_bytes()
    assert decisions(twice) == decisions(once)


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.kind)
def test_equal_runs_give_equal_results(step: Pass, model: Model) -> None:
    first, _ = run_passes(model, [step], context(model))
    second, _ = run_passes(model, [step], context(model))
    assert first.to_bytes() == second.to_bytes()
    assert decisions(first) == decisions(second)


def test_equalizing_finds_something_to_do() -> None:
    changed = []
    for label in GRAPHS:
        model = run_passes(model_of(label), [FoldBatchNorm()], Context())[0]
        after, _ = run_passes(model, [EqualizeChannels(gain=1.0)], context(model))
        changed += [label] if after.to_bytes() != model.to_bytes() else []
    assert {"cnn", "outliers"} <= set(changed)


@pytest.mark.parametrize("dialect", [ONNXRUNTIME_CPU, OPENVINO_CPU], ids=lambda d: d.name)
def test_decisions_survive_every_later_step(dialect: Dialect, model: Model) -> None:
    ctx = context(model, dialect)
    decided, seconds = run_passes(model, steps(), ctx)
    assert len(seconds) == len(steps())
    plan = place(decided, dialect, lambda name, op: False, decided=False)
    for value in plan.points.values():
        assert range_of(value) is not None, value.name
    again, _ = run_passes(decided, [], ctx)
    assert decisions(again) == decisions(decided)


def test_a_longer_calibration_set_widens_minmax() -> None:
    model = model_of("cnn")
    few, many = context(model), context(model)
    everything = list(samples(model, 40, seed=5).feeds())
    few.samples, many.samples = Listed(everything[:2]), Listed(everything)
    step = QuantizeActivations(observer="minmax")
    narrow, wide = (run_passes(model, [step], ctx)[0] for ctx in (few, many))
    for name in annotated(narrow):
        a, b = (range_of(value_of(m, name)) for m in (narrow, wide))
        assert a is not None
        assert b is not None
        assert b.low <= a.low
        assert a.high <= b.high


def test_weight_rounding_keeps_thirty_five_decibels() -> None:
    # 8 bits: 6.02 * 8 + 1.8 dB for a sine that fills the grid, less the crest of normal weights.
    from edgebm.quant.params import fake_quantize

    model = model_of("cnn")
    decided, _ = run_passes(model, [QuantizeWeights()], context(model))
    for value in decided.graph.graph.initializers.values():
        params = quant_of(value)
        if params is not None and value.const_value is not None:
            weight = value.const_value.numpy()
            assert sqnr_db(weight, fake_quantize(weight, params)) > 35


def decisions(model: Model) -> dict[str, str]:
    return {name: repr_of(model, name) for name in annotated(model)}


def repr_of(model: Model, name: str) -> str:
    value = value_of(model, name)
    return repr(quant_of(value) or range_of(value))


def value_of(model: Model, name: str):
    graph = model.graph.graph
    values = {v.name: v for node in graph for v in node.outputs}
    values |= {v.name: v for v in graph.inputs}
    values |= dict(graph.initializers)
    return values[name]
