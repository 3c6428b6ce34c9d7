from __future__ import annotations

import numpy as np
import pytest
from graphs import parse, random_model

from edgebm.ir.learned import learned

# Text, shapes of the constants, and which of them are weights.
CASES = {
    "convolutions and a norm": (
        """g (float[n,3,8,8] x) => (float[n,4,16,16] y) {
          a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
          c = BatchNormalization(a, scale, shift, mean, variance)
          r = Relu(c)
          y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(r, w2, b2)
        }""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "scale": (4,), "shift": (4,), "mean": (4,),
         "variance": (4,), "w2": (4, 4, 2, 2), "b2": (4,)},
        {"w1", "scale", "shift", "w2", "b2"},
    ),
    "a bias that is read elsewhere too": (
        """g (float[n,3,8,8] x) => (float[n,4,8,8] y) {
          a = Conv<kernel_shape=[1,1]>(x, w1, b1)
          c = BatchNormalization(a, scale, shift, mean, variance)
          y = Add(a, c)
        }""",
        {"w1": (4, 3, 1, 1), "b1": (4,), "scale": (4,), "shift": (4,), "mean": (4,),
         "variance": (4,)},
        {"w1", "b1", "scale", "shift"},
    ),
    "preprocessing": (
        """g (float[n,3,8,8] x) => (float[n,4,8,8] y) {
          c = Sub(x, mean)
          d = Div(c, deviation)
          e = Mul(d, gain)
          f = Add(e, offset)
          y = Conv<kernel_shape=[1,1]>(f, w)
        }""",
        {"mean": (3, 1, 1), "deviation": (3, 1, 1), "gain": (3, 1, 1), "offset": (3, 1, 1),
         "w": (4, 3, 1, 1)},
        {"w"},
    ),
    "an encoder": (
        """g (int64[n,5] ids) => (float[n,5,6] y) <float[1] root = {2.0}> {
          e = Gather(table, ids)
          p = Add(e, places)
          l = LayerNormalization<axis=-1>(p, gain, shift)
          q = MatMul(l, wq)
          qb = Add(q, bq)
          k = Transpose<perm=[0,2,1]>(l)
          s = MatMul(qb, k)
          d = Div(s, root)
          m = Add(d, mask)
          a = Softmax(m)
          o = MatMul(a, l)
          w = MatMul(o, wo)
          b = Add(w, bo)
          y = Mul(b, layer_scale)
        }""",
        {"table": (9, 6), "places": (1, 5, 6), "gain": (6,), "shift": (6,), "wq": (6, 6),
         "bq": (6,), "mask": (1, 1, 5), "wo": (6, 6), "bo": (6,), "layer_scale": (6,)},
        {"table", "gain", "shift", "wq", "bq", "wo", "bo", "layer_scale"},
    ),
    "a norm written out": (
        """g (float[n,6] x) => (float[n,6] y) <float[1] two = {2.0}, float[1] tiny = {0.001}> {
          mean = ReduceMean(x, axes)
          c = Sub(x, mean)
          s = Pow(c, two)
          v = ReduceMean(s, axes)
          e = Add(v, tiny)
          r = Sqrt(e)
          d = Div(c, r)
          g = Mul(d, gain)
          y = Add(g, shift)
        }""",
        {"gain": (6,), "shift": (6,)},
        {"gain", "shift"},
    ),
    "recurrent": (
        """g (float[3,2,4] x) => (float[1,2,5] h) {
          y, h, c = LSTM<hidden_size=5>(x, w, r, b, , h0, c0)
        }""",
        {"w": (1, 20, 4), "r": (1, 20, 5), "b": (1, 40), "h0": (1, 2, 5), "c0": (1, 2, 5)},
        {"w", "r", "b"},
    ),
    "limits, fills and scales": (
        """g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float low = {0.0}, float high = {6.0},
            int64[8] pads = {0,0,1,1,0,0,1,1}, float fill = {0.5}> {
          c = Clip(x, low, high)
          p = Pad(c, pads, fill)
          a = PRelu(p, slope)
          y = Resize<mode="nearest">(a, , scales)
        }""",
        {"slope": (2, 1, 1)},
        {"slope"},
    ),
}  # fmt: skip
FIXED = {"axes": np.array([-1]), "scales": np.array([1, 1, 8 / 6, 8 / 6], np.float32)}


@pytest.mark.parametrize("case", CASES)
def test_weights_are_told_from_settings(case: str) -> None:
    text, shapes, expected = CASES[case]
    rng = np.random.default_rng(0)
    weights = {k: rng.uniform(0.5, 1.5, shape).astype(np.float32) for k, shape in shapes.items()}
    weights |= {k: array for k, array in FIXED.items() if f"{k})" in text}
    model = parse(text, **weights)
    assert set(shapes) <= set(model.graph.graph.initializers)
    assert learned(model) == expected


def test_a_constant_that_is_a_weight_and_a_moment_is_no_weight() -> None:
    model = random_model(
        """g (float[n,3] x) => (float[n,3] y) {
          a = BatchNormalization(x, vs, b, m, vs)
          y = Relu(a)
        }""",
        vs=(3,), b=(3,), m=(3,),
    )  # fmt: skip
    assert learned(model) == {"b"}
