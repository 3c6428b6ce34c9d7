"""Channels that can be rescaled: which are found, why others are not, and that nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, Feeds, outputs, random_model, samples

from edgebm.exec.collect import FloatRunner
from edgebm.ir.channels import channel_groups
from edgebm.ir.layers import Channels
from edgebm.ir.model import Model
from edgebm.ir.rescale import divide

CONV = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "b2": (5,)}
IMAGE = "float[1,3,8,8] x"
# name: (graph, shapes, names of the writers and readers of each group)
FREE: dict[str, tuple[str, dict[str, tuple[int, ...]], list[tuple[str, str]]]] = {
    "relu": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          [b] y = Conv(r, w2, b2)
        }}""",
        CONV,
        [("a", "b")],
    ),
    "no bias, leaky, pool and pad": (
        f"""g ({IMAGE}) => (float[1,5,2,2] y) <int64[8] p = {{0,0,1,1,0,0,0,0}}> {{
          [a] h = Conv(x, w1)
          r = LeakyRelu<alpha=0.1>(h)
          m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
          q = Pad(m, p)
          [b] y = Conv(q, w2)
        }}""",
        {"w1": (4, 3, 3, 3), "w2": (5, 4, 3, 3)},
        [("a", "b")],
    ),
    "prelu and average pool": (
        f"""g ({IMAGE}) => (float[1,5,1,1] y) {{
          [a] h = Conv(x, w1, b1)
          r = PRelu(h, s)
          m = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r)
          [b] y = Conv(m, w2, b2)
        }}""",
        {**CONV, "s": (4, 1, 1)},
        [("a", "b")],
    ),
    "residual": (
        f"""g ({IMAGE}) => (float[1,5,2,2] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          [b] i = Conv<pads=[1,1,1,1]>(r, w3)
          s = Add(i, r)
          [c] j = Conv<pads=[1,1,1,1]>(s, w4)
          t = Add(s, j)
          u = Relu(t)
          [d] v = Conv(u, w2, b2)
          y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(v)
        }}""",
        {**CONV, "w3": (4, 4, 3, 3), "w4": (4, 4, 3, 3)},
        [("abc", "bcd")],
    ),
    "depthwise": (
        f"""g ({IMAGE}) => (float[1,5,2,2] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          [b] i = Conv<group=4>(r, wd)
          s = Relu(i)
          [c] y = Conv(s, w2, b2)
        }}""",
        {**CONV, "wd": (4, 1, 3, 3)},
        [("a", "b"), ("b", "c")],
    ),
    "grouped": (
        f"""g ({IMAGE}) => (float[1,6,2,2] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          [b] i = Conv<group=2>(r, wg)
          s = Relu(i)
          [c] y = Conv<group=3>(s, wh)
        }}""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "wg": (6, 2, 3, 3), "wh": (6, 2, 3, 3)},
        [("a", "b"), ("b", "c")],
    ),
    "transposed": (
        f"""g ({IMAGE}) => (float[1,5,12,12] y) {{
          [a] h = ConvTranspose(x, wt, b1)
          r = Relu(h)
          [b] y = ConvTranspose(r, wu, b2)
        }}""",
        {"wt": (3, 4, 3, 3), "b1": (4,), "wu": (4, 5, 3, 3), "b2": (5,)},
        [("a", "b")],
    ),
    "read by a grouped transposed": (
        f"""g ({IMAGE}) => (float[1,6,8,8] y) {{
          [a] h = Conv(x, w1, b1)
          [b] y = ConvTranspose<group=2>(h, wu)
        }}""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "wu": (4, 3, 3, 3)},
        [("a", "b")],
    ),
    "batch norm not folded": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y, float[1,4,6,6] z) {{
          [a] z = Conv(x, w1, b1)
          [n] h = BatchNormalization(z, g, b, m, v)
          r = Relu(h)
          [b] y = Conv(r, w2, b2)
        }}""",
        {**CONV, "g": (4,), "b": (4,), "m": (4,), "v": (4,)},
        [("n", "b")],
    ),
    "flatten into gemm": (
        f"""g ({IMAGE}) => (float[1,7] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          f = Flatten(r)
          [b] i = Gemm<transB=1>(f, w5, b5)
          s = Relu(i)
          [c] y = Gemm<alpha=0.5, beta=2.0>(s, w6, b6)
        }}""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w5": (6, 144), "b5": (6,), "w6": (6, 7), "b6": (1,)},
        [("a", "b"), ("b", "c")],
    ),
    "mean into gemm": (
        f"""g ({IMAGE}) => (float[1,7] y) <int64[2] ax = {{2, 3}}, int64[2] to = {{1, 4}}> {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          f = ReduceMean<keepdims=1>(r, ax)
          e = Reshape(f, to)
          [b] y = Gemm(e, w5)
        }}""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w5": (4, 7)},
        [("a", "b")],
    ),
    "matmul with a bias": (
        """g (float[2,6,8] x) => (float[2,6,7] y) {
          [a] h = MatMul(x, w1)
          b = Add(h, b1)
          r = Relu(b)
          [c] y = MatMul(r, w2)
        }""",
        {"w1": (8, 5), "b1": (5,), "w2": (5, 7)},
        [("a", "c")],
    ),
    "gates": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          r = Relu(h)
          p = GlobalAveragePool(r)
          [b] i = Conv(p, ws)
          s = Relu(i)
          [c] j = Conv(s, wt)
          k = Sigmoid(j)
          q = Mul(r, k)
          [d] y = Conv(q, w2, b2)
        }}""",
        {**CONV, "ws": (2, 4, 1, 1), "wt": (4, 2, 1, 1)},
        [("a", "bd"), ("b", "c")],
    ),
    "a product by a constant, less another": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          q = Mul(h, s)
          d = Sub(q, t)
          [b] y = Conv(d, w2, b2)
        }}""",
        {**CONV, "s": (4, 1, 1), "t": (1, 4, 1, 1)},
        [("a", "b")],
    ),
    "two computed factors": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          [b] i = Conv(x, w3)
          q = Mul(h, i)
          [c] y = Conv(q, w2, b2)
        }}""",
        {**CONV, "w3": (4, 3, 3, 3)},
        [("a", "c")],
    ),
}
# name: (graph, shapes, what the reason says)
BLOCKED: dict[str, tuple[str, dict[str, tuple[int, ...]], str]] = {
    "concat": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          [k] k = Concat<axis=1>(h, h)
          y = Conv(k, w2, b2)
        }}""",
        {**CONV, "w2": (5, 8, 3, 3)},
        "'k' puts other channels beside it",
    ),
    "a model output": (
        f"""g ({IMAGE}) => (float[1,4,6,6] h, float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          y = Conv(h, w2, b2)
        }}""",
        CONV,
        "it is a model output",
    ),
    "sigmoid": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          s = Sigmoid(h)
          y = Conv(s, w2, b2)
        }}""",
        CONV,
        "no factor passes through Sigmoid",
    ),
    "a clip to both sides": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) <float lo = {{-1.0}}, float hi = {{1.0}}> {{
          [a] h = Conv(x, w1, b1)
          [c] s = Clip(h, lo, hi)
          y = Conv(s, w2, b2)
        }}""",
        CONV,
        "the limits of 'c' do not scale",
    ),
    "a shared weight": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y, float[1,5,4,4] z) {{
          [a] h = Conv(x, w1, b1)
          [b] i = Conv(x, w3)
          s = Sigmoid(i)
          y = Conv(h, w2, b2)
          z = Conv(s, w2, b2)
        }}""",
        {**CONV, "w3": (4, 3, 3, 3)},
        "is shared with another layer",
    ),
    "its square": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          q = Mul(h, h)
          y = Conv(q, w2, b2)
        }}""",
        CONV,
        "multiplied by itself",
    ),
    "added to the input": (
        f"""g ({IMAGE}) => (float[1,5,6,6] y) {{
          [a] h = Conv<pads=[1,1,1,1]>(x, w3)
          q = Add(h, x)
          y = Conv(q, w4)
        }}""",
        {"w3": (3, 3, 3, 3), "w4": (5, 3, 3, 3)},
        "added to a model input or a constant",
    ),
    "spread over the channels": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) {{
          [a] h = Conv(x, w1, b1)
          [o] o = Conv(x, w3)
          q = Add(h, o)
          y = Conv(q, w2, b2)
        }}""",
        {**CONV, "w3": (1, 3, 3, 3)},
        "spreads another value over its channels",
    ),
    "a zero that is none": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y)
          <int64[8] p = {{0,0,1,1,0,0,1,1}}, float one = {{1.0}}> {{
          [a] h = Conv<strides=[2,2]>(x, w1, b1)
          q = Pad(h, p, one)
          r = MaxPool<kernel_shape=[2,2]>(q)
          y = Conv<pads=[1,1,1,1]>(r, w2, b2)
        }}""",
        CONV,
        "no factor passes through Pad",
    ),
    "the mean of all": (
        f"""g ({IMAGE}) => (float[1,5,4,4] y) <int64[3] ax = {{1, 2, 3}}> {{
          [a] h = Conv(x, w1, b1)
          m = ReduceMean(h, ax)
          d = Mul(h, m)
          y = Conv(d, w2, b2)
        }}""",
        CONV,
        "no factor passes through ReduceMean",
    ),
}


def named(text: str, shapes: dict[str, tuple[int, ...]]) -> Model:
    used = {k: s for k, s in shapes.items() if any(f"{k}{c}" in text for c in ",)")}
    return random_model(text, **used)


@pytest.mark.parametrize("label", FREE)
def test_groups_are_found(label: str) -> None:
    text, shapes, want = FREE[label]
    groups = [group for group in channel_groups(named(text, shapes)) if not group.obstacle]
    found = [
        (
            "".join(sorted(node.name or "?" for node in group.writers)),
            "".join(sorted(reader.node.name or "?" for reader in group.readers)),
        )
        for group in groups
    ]
    assert found == want


@pytest.mark.parametrize("label", FREE)
def test_dividing_channels_keeps_the_function(label: str) -> None:
    text, shapes, _ = FREE[label]
    model = named(text, shapes)
    rng = np.random.default_rng(3)
    before = model.clone()
    for group in channel_groups(model):
        if not group.obstacle:
            divide(group, 2.0 ** rng.uniform(-4, 4, group.channels))
    assert model.to_bytes() != before.to_bytes()
    for feeds in samples(model, 3, seed=5).feeds():
        want, got = outputs(before, feeds), outputs(model, feeds)
        for name in want:
            error = np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
            assert error < 2e-6, name


@pytest.mark.parametrize("label", FREE)
def test_the_values_in_between_are_divided(label: str) -> None:
    """What the readers see is what they saw, over the factor: else nothing would be gained."""
    text, shapes, _ = FREE[label]
    model = named(text, shapes)
    group = next(group for group in channel_groups(model) if not group.obstacle)
    factor = np.arange(1.0, group.channels + 1)
    feeds = next(iter(samples(model, 1, seed=5).feeds()))
    before = {v.name: seen(model, v.name or "", feeds) for v in group.values}
    divide(group, factor)
    for value, where in group.values.items():
        shape = [1] * before[value.name].ndim
        shape[where.axis] = -1
        want = before[value.name] / np.repeat(factor, where.repeat).reshape(shape)
        np.testing.assert_allclose(
            seen(model, value.name or "", feeds), want, rtol=2e-5, atol=1e-5
        )


def seen(model: Model, name: str, feeds: Feeds) -> Array:
    return FloatRunner(model, [name]).run(feeds)[name]


@pytest.mark.parametrize("label", BLOCKED)
def test_every_reason_not_to(label: str) -> None:
    text, shapes, reason = BLOCKED[label]
    groups = channel_groups(named(text, shapes))
    first = next(group for group in groups if group.label == "a")
    assert reason in first.obstacle


def test_the_second_factor_of_a_product_is_told_about_the_first() -> None:
    text, shapes, _ = FREE["two computed factors"]
    first, second = channel_groups(named(text, shapes))
    assert not first.obstacle
    assert "the factors of 'a' already" in second.obstacle


def test_the_head_of_a_model_is_no_group() -> None:
    model = random_model("g (float[1,6] x) => (float[1,4] y) { y = MatMul(x, w) }", w=(6, 4))
    assert channel_groups(model) == []


def test_where_the_channels_lie_behind_a_flatten() -> None:
    text, shapes, _ = FREE["flatten into gemm"]
    group = channel_groups(named(text, shapes))[0]
    held = {value.name: where for value, where in group.values.items()}
    assert held == {"h": Channels(1), "r": Channels(1), "f": Channels(1, 36)}


def test_a_relu6_leaves_its_limit() -> None:
    model = random_model(
        f"""g ({IMAGE}) => (float[1,5,4,4] y) <float lo = {{0.0}}, float hi = {{6.0}}> {{
          h = Conv(x, w1, b1)
          r = Clip(h, lo, hi)
          y = Conv(r, w2, b2)
        }}""",
        **CONV,
    )
    (group,) = channel_groups(model)
    assert not group.obstacle
    assert {value.name: limit for value, limit in group.limits.items()} == {"r": 6.0}
