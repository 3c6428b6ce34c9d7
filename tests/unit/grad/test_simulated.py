from __future__ import annotations

import numpy as np
import pytest
from graphs import random_model, samples

torch = pytest.importorskip("torch", reason="torch is not installed")
torch.set_num_threads(1)

from trained_digits import context, decided  # noqa: E402

from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU, Dialect  # noqa: E402
from edgebm.exec.collect import FloatRunner  # noqa: E402
from edgebm.grad.distill import Conditions  # noqa: E402
from edgebm.grad.fake_quantize import tap_points  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.qat import _tap_weights, train  # noqa: E402
from edgebm.grad.schedule import Schedule  # noqa: E402
from edgebm.grad.simulated import simulated  # noqa: E402
from edgebm.grad.teaching import Teaching  # noqa: E402
from edgebm.ir.annotate import quant_of, set_rounded  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402
from edgebm.passes.correct_bias import CorrectBias  # noqa: E402
from edgebm.passes.driver import run_passes  # noqa: E402

CNN = """g (float[N,3,8,8] x) => (float[N,5] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  b = Conv<pads=[1,1,1,1], group=2>(p, w2, b2)
  s = Add(b, p)
  f = Flatten(s)
  g = Gemm(f, w3, b3)
  y = Gemm<transB=1>(g, w4)
}"""
SHAPES = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 4, 3, 3), "b2": (8,), "w3": (128, 8), "b3": (8,),
    "w4": (5, 8),
}  # fmt: skip


def model() -> Model:
    return random_model(CNN, **SHAPES)


@pytest.mark.parametrize("dialect", [OPENVINO_CPU, ONNXRUNTIME_CPU], ids=lambda d: d.name)
def test_with_its_taps_it_answers_as_the_lowered_graph(dialect: Dialect) -> None:
    given = samples(model(), 8)
    ctx = context(given, dialect)
    floats = run_passes(decided(model(), ctx), [CorrectBias()], ctx)[0]
    lowered = ctx.lower(floats)
    graph = simulated(lowered, floats)
    assert not list(graph.model.nodes("QuantizeLinear", "DequantizeLinear"))
    module = GraphModule(graph.model)
    tap_points(module, graph.points)
    _tap_weights(module, graph.weights, {})
    runner = FloatRunner(lowered, ["y"], plain=True)
    for feeds in given.feeds():
        with torch.no_grad():
            got = module({"x": torch.from_numpy(feeds["x"])})["y"].numpy()
        np.testing.assert_allclose(got, runner.run(feeds)["y"], rtol=1e-3, atol=1e-3)


def test_points_behind_what_moves_values_have_the_source_of_their_range() -> None:
    ctx = context(samples(model(), 8), ONNXRUNTIME_CPU)
    floats = decided(model(), ctx)
    graph = simulated(ctx.lower(floats), floats)
    sources = [point.source for point in graph.points]
    assert sources.count("r") > 1  # before and behind the pooling
    assert None not in sources


def test_a_weight_that_is_read_in_float_too_is_there_twice() -> None:
    both = random_model(
        """g (float[1,8] x) => (float[1,8] y, float[1,8] z) {
          [a] y = MatMul(x, w)
          [b] z = MatMul(x, w)
        }""",
        w=(8, 8),
    )
    ctx = context(samples(both, 8))
    floats = decided(both, ctx)

    def lowered(ignored: str) -> Model:
        from edgebm.backends.qdq import lower

        return lower(floats, OPENVINO_CPU, lambda name, op: name == ignored)[0]

    (one,) = simulated(lowered(""), floats).weights
    assert one.readers == ("a", "b")
    graph = simulated(lowered("b"), floats)
    (alone,) = graph.weights
    assert alone.readers == ("a",)
    first, second = graph.model.nodes("MatMul")
    assert first.inputs[1].name != second.inputs[1].name


def test_learned_integers_are_where_training_starts() -> None:
    ctx = context(samples(model(), 8))
    floats = decided(model(), ctx)
    for node in floats.nodes("Gemm"):
        params = quant_of(node.inputs[1])
        assert params is not None
        set_rounded(node.inputs[1], params, np.ones(node.inputs[1].shape.numpy(), np.int8))
    lowered = ctx.lower(floats)
    plain, learned = (simulated(lowered, floats, as_learned=each) for each in (False, True))
    for weight in learned.weights:
        held = learned.model.graph.graph.initializers[weight.label].const_value.numpy()
        before = plain.model.graph.graph.initializers[weight.label].const_value.numpy()
        if weight.label in ("w3", "w4"):
            np.testing.assert_array_equal(held, np.broadcast_to(weight.step, held.shape))
        else:
            np.testing.assert_array_equal(held, before)


def test_one_graph_on_other_grids_is_another_training() -> None:
    ctx = context(samples(model(), 8))
    teaching = Teaching(Schedule(1), batch=4)
    graphs = []
    for bits in (4, 4, 8):
        floats = decided(model(), ctx, bits)
        graph = simulated(ctx.lower(floats), floats)
        train(graph, model(), ctx.given("it"), teaching, Conditions(precision="f32"))
        graphs.append(graph.model.to_bytes())
    assert graphs[0] == graphs[1]
    assert graphs[0] != graphs[2]
