from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, Listed, outputs, random_model, samples, sqnr_db

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect
from edgebm.errors import BackendUnavailable
from edgebm.exec.collect import FloatRunner
from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.annotate import annotated, cell_params_of, quant_of, range_of, shift_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.passes import distill
from edgebm.passes.base import Context
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.distill import Losses
from edgebm.passes.driver import run_passes
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.passes.qat import Qat
from edgebm.passes.quantize_recurrent import QuantizeRecurrent

torch = pytest.importorskip("torch", reason="torch is not installed")
torch.set_num_threads(1)

from trained_digits import context, decided, digits, digits_model, rows  # noqa: E402

SHORT = Qat(steps=60, rate=1e-3, losses=Losses(features=0))


class Labelled(Listed):
    def __init__(self, feeds: list[dict[str, Array]], labels: Array) -> None:
        super().__init__(feeds)
        self.labels = labels


def answers(model: Model, given: Listed) -> Array:
    label = model.graph.graph.outputs[0].name
    runner = FloatRunner(model, [label], plain=True)
    return np.concatenate([runner.run(feeds)[label] for feeds in given.feeds()])


def divergence(want: Array, got: Array) -> float:
    """Mean KL of the classes, teacher to student."""

    def logs(x: Array) -> Array:
        shifted = x - x.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    return float((np.exp(logs(want)) * (logs(want) - logs(got))).sum(1).mean())


def trained(model: Model, ctx: Context, *steps: object, bits: int = 3) -> tuple[Model, Model]:
    """What was decided, and what came of it."""
    ctx.teacher = model
    nearest = run_passes(decided(model, ctx, bits), [CorrectBias()], ctx)[0]
    return nearest, run_passes(nearest, list(steps) or [SHORT], ctx)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_samples_it_has_not_seen_diverge_less_from_the_teacher(dialect: Dialect) -> None:
    model, ctx = digits_model(), context(rows(0, 400), dialect)
    nearest, after = trained(model, ctx)
    fresh = rows(1200, 1500)
    want = answers(model, fresh)
    before = divergence(want, answers(ctx.lower(nearest), fresh))
    assert divergence(want, answers(ctx.lower(after), fresh)) < 0.5 * before
    assert "the loss on those held out fell from" in ctx.notes[0]


def test_what_is_lowered_is_what_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgebm.grad import qat

    held = []
    train = qat.train
    monkeypatch.setattr(qat, "train", lambda *args: held.append(train(*args)) or held[-1])
    model, ctx = digits_model(), context(rows(0, 300))
    _, after = trained(model, ctx)
    fresh = rows(1200, 1300)
    module = np.concatenate([each["y"] for each in held[0].answers(list(fresh.feeds()))])
    lowered = answers(ctx.lower(after), fresh)
    # Equal but for values half way between two integers, in a few places of a few samples.
    same = np.abs(module - lowered).max(1) < 1e-3 * np.abs(module).max()
    assert same.mean() > 0.9
    assert sqnr_db(module, lowered) > sqnr_db(answers(model, fresh), module) + 10


def test_weights_steps_and_ranges_are_trained_and_stay_decided() -> None:
    model, ctx = digits_model(), context(rows(0, 300))
    nearest, after = trained(model, ctx)
    assert annotated(after) == annotated(nearest)
    for old, new in zip(nearest.nodes("Conv", "Gemm"), after.nodes("Conv", "Gemm"), strict=True):
        (was, now), (w, v) = ([f(n.inputs[1]) for n in (old, new)] for f in (quant_of, const))
        assert was is not None
        assert now is not None
        assert (was.bits, was.axis) == (now.bits, now.axis)
        assert not np.array_equal(was.scale, now.scale)
        assert not np.array_equal(w, v)
        assert not np.array_equal(const(old.inputs[2]), const(new.inputs[2]))
        assert shift_of(new.outputs[0]) is None
    spans = [{v.name: range_of(v) for n in m.nodes() for v in n.outputs} for m in (nearest, after)]
    assert spans[0].keys() == spans[1].keys()
    assert any(spans[0][k] != spans[1][k] for k in spans[0])
    assert {k for k, v in spans[0].items() if v} == {k for k, v in spans[1].items() if v}


def test_it_starts_from_what_was_learned_before() -> None:
    model, ctx = digits_model(), context(rows(0, 300))
    learned = LearnRounding(steps=60)
    _, after = trained(model, ctx, learned, Qat(steps=1, rate=1e-6))
    nearest, rounded = trained(model, context(rows(0, 300)), learned)
    fresh = rows(1200, 1300)
    want = answers(model, fresh)
    figures = [sqnr_db(want, answers(ctx.lower(m), fresh)) for m in (nearest, rounded, after)]
    assert figures[1] > figures[0] + 3
    assert abs(figures[2] - figures[1]) < 1


def test_it_refuses_itself_where_the_loss_did_not_fall() -> None:
    model, ctx = digits_model(), context(rows(0, 100))
    nearest, after = trained(model, ctx, Qat(steps=2, rate=3.0), bits=8)
    assert after.to_bytes() == nearest.to_bytes()
    assert "the loss on those held out had not fallen; nothing is changed" in ctx.skips[-1].reason
    for old, new in zip(nearest.nodes("Conv"), after.nodes("Conv"), strict=True):
        assert quant_of(old.inputs[1]) == quant_of(new.inputs[1])


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    found = []
    for seed in (0, 0, 1):
        ctx = context(rows(0, 150), seed=seed)
        found.append(trained(digits_model(), ctx, Qat(steps=6, rate=1e-3))[1].to_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_labels_and_the_task_can_count_too() -> None:
    x, y = digits()
    model = digits_model()
    given = Labelled([{"x": each[None]} for each in x[:300]], y[:300])
    ctx = context(given)
    step = Qat(steps=60, rate=1e-3, losses=Losses(outputs=0, features=0, labels=1))
    nearest, after = trained(model, ctx, step, bits=2)
    fresh, classes = rows(1200, 1700), y[1200:1700]
    before, now = (
        float((answers(ctx.lower(m), fresh).argmax(1) == classes).mean()) for m in (nearest, after)
    )
    assert now > before + 0.02


def test_a_transformer_block_and_shared_weights() -> None:
    model = random_model(
        """g (int64[N,6] ids) => (float[N,6,24] y) {
          e = Gather(table, ids)
          q = MatMul(e, wq)
          k = MatMul(e, wk)
          kt = Transpose<perm=[0,2,1]>(k)
          s = MatMul(q, kt)
          p = Softmax<axis=-1>(s)
          a = MatMul(p, e)
          o = MatMul(a, wq)
          b = Add(o, bias)
          r = Add(b, e)
          y = LayerNormalization<axis=-1>(r, gain, shift)
        }""",
        table=(600, 24), wq=(24, 24), wk=(24, 24), bias=(24,), gain=(24,), shift=(24,),
    )  # fmt: skip
    ctx = context(samples(model, 200, rows=600))
    step = Qat(steps=150, rate=1e-2, losses=Losses(features=0))
    nearest, after = trained(model, ctx, step)
    fresh = samples(model, 20, seed=5, rows=600)
    want = answers(model, fresh)
    before, now = (sqnr_db(want, answers(ctx.lower(m), fresh)) for m in (nearest, after))
    assert now > before + 0.3  # random weights of random inputs: all matter alike
    first, last = (n for n in after.nodes("MatMul") if n.inputs[1].name == "wq")
    assert first.inputs[1] is last.inputs[1]


def test_recurrent_cells_are_trained_with_their_weights_and_inputs_rounded() -> None:
    model = random_model(
        """g (float[T,N,4] x) => (float[N,5] y) <int64[1] zero = {0}> {
          s, h, c = LSTM<hidden_size=12>(x, w, r, b)
          k = Squeeze(h, zero)
          y = Gemm(k, wo, bo)
        }""",
        w=(1, 48, 4), r=(1, 48, 12), b=(1, 96), wo=(12, 5), bo=(5,),
    )  # fmt: skip
    generator = np.random.default_rng(0)
    walks = generator.normal(size=(260, 7, 1, 4)).astype("f4").cumsum(1)
    given, fresh = (Listed([{"x": x} for x in part]) for part in (walks[:200], walks[200:]))
    ctx = context(given)
    ctx.teacher = model
    nearest = run_passes(decided(model, ctx, bits=3), [QuantizeRecurrent()], ctx)[0]
    step = Qat(steps=150, rate=3e-3, losses=Losses(features=0))
    after, _ = run_passes(nearest, [step], ctx)
    want = answers(model, fresh)
    before, now = (
        sqnr_db(want, answers(with_rounded_cells(ctx.lower(m)), fresh)) for m in (nearest, after)
    )
    assert now > before + 1
    (old,), (new,) = nearest.nodes("LSTM"), after.nodes("LSTM")
    assert cell_params_of(new) is cell_params_of(old)
    assert not np.array_equal(const(old.inputs[2]), const(new.inputs[2]))


def test_the_float_graph_alone_is_still_near_the_original() -> None:
    model, ctx = digits_model(), context(rows(0, 300))
    _, after = trained(model, ctx, bits=4)
    feeds = next(iter(rows(1200, 1201).feeds()))
    assert sqnr_db(outputs(model, feeds)["y"], outputs(after, feeds)["y"]) > 10


def test_why_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ctx = digits_model(), context(rows(0, 20))
    run_passes(model, [Qat()], ctx)
    assert ctx.skips[-1].reason == "no activation was quantized before it"
    nearest = decided(model, ctx)
    bare = Context(ctx.samples, observe=ctx.observe, lower=lambda m: m.clone())
    run_passes(nearest, [Qat()], bare)
    assert bare.skips[-1].reason == "nothing of the model is lowered to integers"
    monkeypatch.setattr(distill.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="needs torch"):
        run_passes(nearest, [Qat()], ctx)
