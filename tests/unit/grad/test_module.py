from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, outputs, parse, random_model, samples

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.errors import UnsupportedModel, UsageError  # noqa: E402
from edgebm.grad.module import GraphModule, write_back  # noqa: E402
from edgebm.ir.annotate import annotated, set_quant  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402
from edgebm.quant.params import QuantParams  # noqa: E402

RECURRENT = {
    "lstm, both ways, states and lengths given": (
        """g (float[5,2,4] x, int32[2] n, float[2,2,3] h, float[2,2,3] c)
            => (float[5,2,2,3] y, float[2,2,3] yh, float[2,2,3] yc) {
          y, yh, yc = LSTM<hidden_size=3, direction="bidirectional">(x, w, r, b, n, h, c)
        }""",
        {"w": (2, 12, 4), "r": (2, 12, 3), "b": (2, 24)},
    ),
    "lstm, reverse, without bias": (
        """g (float[5,2,4] x, int32[2] n) => (float[5,1,2,3] y, float[1,2,3] yh, float[1,2,3] yc) {
          y, yh, yc = LSTM<hidden_size=3, direction="reverse">(x, w, r, , n)
        }""",
        {"w": (1, 12, 4), "r": (1, 12, 3)},
    ),
    "gru, reset behind the product, both ways": (
        """g (float[5,2,4] x, int32[2] n, float[2,2,3] h) => (float[5,2,2,3] y, float[2,2,3] yh) {
          y, yh = GRU<hidden_size=3, direction="bidirectional", linear_before_reset=1>(
            x, w, r, b, n, h)
        }""",
        {"w": (2, 9, 4), "r": (2, 9, 3), "b": (2, 18)},
    ),
    "gru, reset before the product, both ways": (
        """g (float[5,2,4] x, int32[2] n, float[2,2,3] h) => (float[5,2,2,3] y, float[2,2,3] yh) {
          y, yh = GRU<hidden_size=3, direction="bidirectional">(x, w, r, b, n, h)
        }""",
        {"w": (2, 9, 4), "r": (2, 9, 3), "b": (2, 18)},
    ),
    "gru, reset before the product, reverse": (
        """g (float[5,2,4] x, int32[2] n) => (float[5,1,2,3] y, float[1,2,3] yh) {
          y, yh = GRU<hidden_size=3, direction="reverse">(x, w, r, , n)
        }""",
        {"w": (1, 9, 4), "r": (1, 9, 3)},
    ),
    "rnn, both ways": (
        """g (float[5,2,4] x, int32[2] n) => (float[5,2,2,3] y, float[2,2,3] yh) {
          y, yh = RNN<hidden_size=3, direction="bidirectional">(x, w, r, b, n)
        }""",
        {"w": (2, 3, 4), "r": (2, 3, 3), "b": (2, 6)},
    ),
    "rnn of rectifiers": (
        """g (float[5,2,4] x) => (float[5,1,2,3] y, float[1,2,3] yh) {
          y, yh = RNN<hidden_size=3, activations=["Relu"]>(x, w, r, b)
        }""",
        {"w": (1, 3, 4), "r": (1, 3, 3), "b": (1, 6)},
    ),
}
WHOLE = {
    "classifier of sequences": (
        """g (float[2,6,4] x) => (float[2,3] logits) <int64[1] one = {1}, int64[1] two = {2},
            int64[1] zero = {0}, int64[2] joined = {2, 10}> {
          t = Transpose<perm=[1,0,2]>(x)
          y1, h1 = GRU<hidden_size=5, direction="bidirectional", linear_before_reset=1>(
            t, w1, r1, b1)
          yt = Transpose<perm=[0,2,1,3]>(y1)
          shape = Shape<start=0, end=2>(x)
          ten = Constant<value_ints=[10]>()
          n, steps = Split<num_outputs=2>(shape)
          size = Concat<axis=0>(steps, n, ten)
          seq = Reshape(yt, size)
          y2, h2, c2 = LSTM<hidden_size=4>(seq, w2, r2, b2)
          last = Squeeze(h2, zero)
          mean = ReduceMean<keepdims=0>(y2, zero)
          flat = Squeeze(mean, zero)
          both = Concat<axis=-1>(last, flat)
          hidden = Gemm<transB=1>(both, w3, b3)
          active = Relu(hidden)
          scores = MatMul(active, w4)
          logits = LogSoftmax<axis=-1>(scores)
        }""",
        {
            "w1": (2, 15, 4), "r1": (2, 15, 5), "b1": (2, 30), "w2": (1, 16, 10),
            "r2": (1, 16, 4), "b2": (1, 32), "w3": (6, 8), "b3": (6,), "w4": (6, 3),
        },
    ),
    "one step of a stream": (
        """g (float[1,4] x, float[1,1,5] h) => (float[1,2] y, float[1,1,5] next)
            <int64[1] zero = {0}> {
          t = Unsqueeze(x, zero)
          s, next = GRU<hidden_size=5, linear_before_reset=0>(t, w, r, b, , h)
          last = Squeeze(next, zero)
          a = MatMul(last, wo)
          y = Sigmoid(a)
        }""",
        {"w": (1, 15, 4), "r": (1, 15, 5), "b": (1, 30), "wo": (5, 2)},
    ),
}  # fmt: skip


def ran(module: GraphModule, feeds: dict[str, Array]) -> dict[str, Array]:
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    return {name: value.detach().numpy() for name, value in module(tensors).items()}


def feeds_of(model: Model, seed: int) -> dict[str, Array]:
    (feeds,) = samples(model, 1, seed=seed).feeds()
    if "n" in feeds:
        return {**feeds, "n": np.array([3, 5], np.int32)}
    return dict(feeds)


@pytest.mark.parametrize("case", [*RECURRENT, *WHOLE])
def test_it_answers_as_onnx_runtime_does(case: str) -> None:
    text, shapes = {**RECURRENT, **WHOLE}[case]
    model = random_model(text, **shapes)
    module = GraphModule(model)
    for seed in (1, 2):
        feeds = feeds_of(model, seed)
        got, want = ran(module, feeds), outputs(model, feeds)
        assert list(got) == list(want)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("lengths", [None, [2, 4]])
def test_gradients_of_the_gru_that_resets_before(lengths: list[int] | None) -> None:
    from edgebm.grad.recurrent import _masked_states

    torch.manual_seed(0)
    given, initial, r = (
        torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in ((4, 2, 9), (2, 3), (9, 3))
    )
    n = None if lengths is None else torch.tensor(lengths)
    assert torch.autograd.gradcheck(
        lambda *args: _masked_states(*args, n), (given, initial, r), raise_exception=True
    )


@pytest.mark.parametrize("case", WHOLE)
def test_every_weight_gets_a_gradient(case: str) -> None:
    text, shapes = WHOLE[case]
    model = random_model(text, **shapes)
    module = GraphModule(model)
    feeds = {k: torch.from_numpy(v) for k, v in feeds_of(model, 1).items()}
    torch.stack([value.sum() for value in module(feeds).values()]).sum().backward()
    assert set(module.trained) == set(shapes)
    for name, weight in module.trained.items():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


def test_values_between_nodes_are_fetched_and_given() -> None:
    text, shapes = WHOLE["classifier of sequences"]
    model = random_model(text, **shapes)
    module = GraphModule(model)
    feeds = {k: torch.from_numpy(v) for k, v in feeds_of(model, 1).items()}
    got = module(feeds, ["y1", "logits", "x"])
    assert set(got) == {"y1", "logits", "x"}
    assert got["x"] is feeds["x"]
    # What lies in front of a given value is not computed, and its value is not replaced.
    again = module({**feeds, "y1": 2 * got["y1"]}, ["logits", "y1"])
    assert torch.equal(again["y1"], 2 * got["y1"])
    assert not torch.allclose(again["logits"], got["logits"])
    tail = module({"both": got["y1"].new_ones(2, 8)}, ["logits"])
    assert tail["logits"].shape == (2, 3)


def test_unknown_names_and_missing_inputs_are_listed() -> None:
    text, shapes = WHOLE["one step of a stream"]
    module = GraphModule(random_model(text, **shapes))
    with pytest.raises(UsageError, match=r"\['h', 'nothing', 'x'\]"):
        module({}, ["y", "nothing"])


def test_all_missing_ops_are_listed_at_once() -> None:
    model = random_model(
        """g (float[1,2,4,4] x, float[3,1,4] s) => (float[1,2,4,4] y, float[1,1,3] h) {
          c = DeformConv<kernel_shape=[1,1]>(x, w, x)
          y = Det(c)
          a, h = GRU<hidden_size=3, clip=3.0>(s, wg, r)
        }""",
        w=(2, 2, 1, 1), wg=(1, 9, 4), r=(1, 9, 3),
    )  # fmt: skip
    with pytest.raises(UnsupportedModel) as found:
        GraphModule(model)
    faults = found.value.details["faults"]
    assert [fault.split()[0] for fault in faults] == ["DeformConv", "Det", "GRU"]
    assert "clip" in faults[2]


def test_weights_of_dtypes_torch_lacks_are_refused() -> None:
    model = parse(
        "g (uint16[2] x) => (uint16[2] y) { y = Where(c, x, w) }",
        c=np.array([True, False]), w=np.array([1, 2], np.uint16),
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="'w' is uint16"):
        GraphModule(model)


def test_untrained_weights_are_written_back_bit_for_bit() -> None:
    text, shapes = WHOLE["classifier of sequences"]
    model = random_model(text, **shapes)
    before = model.to_bytes()
    copy = model.clone()
    assert write_back(GraphModule(model), copy) == []
    assert copy.to_bytes() == before


def test_a_trained_weight_is_written_under_its_name() -> None:
    text, shapes = WHOLE["classifier of sequences"]
    model = random_model(text, **shapes)
    params = QuantParams(8, True, np.ones((), np.float32), np.zeros((), np.int32), None)
    for name in ("w3", "w4"):
        set_quant(model.graph.graph.initializers[name], params)
    copy = model.clone()
    module = GraphModule(model, trainable=lambda name: name in ("w4", "b3"))
    assert set(module.trained) == {"w4", "b3"}
    with torch.no_grad():
        module.trained["w4"] += 1
    assert write_back(module, copy) == ["w4"]
    held = copy.graph.graph.initializers
    assert list(held) == list(model.graph.graph.initializers) or set(held) == set(
        model.graph.graph.initializers
    )
    old = model.graph.graph.initializers["w4"].const_value.numpy()
    np.testing.assert_array_equal(held["w4"].const_value.numpy(), old + 1)
    # The clone it came from is as it was, and only the new weight lost its decision.
    assert annotated(model) == {"w3", "w4"}
    assert annotated(copy) == {"w3"}
    feeds = feeds_of(model, 1)
    want = ran(module, feeds)["logits"]
    np.testing.assert_allclose(outputs(copy, feeds)["logits"], want, rtol=1e-4, atol=1e-5)


def test_weights_of_another_model_are_refused() -> None:
    text, shapes = WHOLE["one step of a stream"]
    module = GraphModule(random_model(text, **shapes))
    other = random_model(
        text.replace("float[1,4] x", "float[1,3] x"), **{**shapes, "w": (1, 15, 3)}
    )
    with pytest.raises(UsageError, match=r"'w' is \[1, 15, 4\] in the module and \[1, 15, 3\]"):
        write_back(module, other)


def test_names_with_dots_are_kept() -> None:
    model = parse(
        "g (float[1,2] x) => (float[1,2] y) { y = PRelu(x, w) }",
        w=np.array([2, 3], np.float32),
    )
    model.graph.graph.initializers["w"].name = "layers.0.training"
    module = GraphModule(model)
    assert list(module.trained) == ["layers.0.training"]


def test_what_reads_a_value_reads_its_tap() -> None:
    model = parse(
        "g (float[n,2] x) => (float[n,2] y) { h = Mul(x, w)  y = Relu(h) }",
        w=np.array([2.0, -1.0], np.float32),
    )
    module = GraphModule(model)
    x = torch.tensor([[1.0, 2.0]])
    module.taps.update(x=lambda v: v + 1, w=lambda v: v * 10, h=lambda v: v.clamp(max=30))
    assert module({"x": x})["y"].tolist() == [[30.0, 0.0]]
    assert module({"x": x}, ["h", "w"])["w"].tolist() == [20.0, -10.0]
    module.taps.clear()
    assert module({"x": x})["y"].tolist() == [[2.0, 0.0]]
