"""Every op's rule on a small graph: which groups there are, and that cutting is masking."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import random_model, samples
from pruning_checks import check_places, check_removed, described, share_of

from edgebm.pruning.groups import find_groups

# Name: graph, shapes of its weights, and the groups as `name kind units`.
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], list[str]]] = {
    "conv_norm_activation": (
        """g (float[N,3,8,8] x) => (float[N,4] y) {
          [a] c = Conv<pads=[1,1,1,1]>(x, w, b)
          n = BatchNormalization(c, g, s, m, v)
          r = Relu(n)
          p = MaxPool<kernel_shape=[2,2]>(r)
          q = GlobalAveragePool(p)
          f = Flatten(q)
          [head] y = Gemm<transB=1>(f, u, d)
        }""",
        {"w": (16, 3, 3, 3), "b": (16,), "g": (16,), "s": (16,), "m": (16,), "v": (16,),
         "u": (4, 16), "d": (4,)},
        ["a channels 16"],
    ),
    "residual_sum": (
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
          [a] c = Conv(x, w)
          [b] d = Conv(c, w1)
          s = Add(c, d)
          r = Relu(s)
          [head] y = Conv(r, u)
        }""",
        {"w": (12, 3, 1, 1), "w1": (12, 12, 1, 1), "u": (4, 12, 1, 1)},
        ["a channels 12"],
    ),
    "depthwise_with_multiplier": (
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [a] c = Conv(x, w, b)
          [deep] d = Conv<group=8>(c, w1, b1)
          [head] y = Conv(d, u)
        }""",
        {"w": (8, 3, 1, 1), "b": (8,), "w1": (16, 1, 3, 3), "b1": (16,), "u": (4, 16, 1, 1)},
        ["a channels 8"],
    ),
    "many_groups_go_whole": (
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [a] c = Conv(x, w)
          [deep] d = Conv<group=8>(c, w1, b1)
          [head] y = Conv(d, u)
        }""",
        {"w": (16, 3, 1, 1), "w1": (24, 2, 3, 3), "b1": (24,), "u": (4, 24, 1, 1)},
        ["a channels 8"],
    ),
    "few_groups_stay_equally_wide": (
        """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
          [a] c = Conv(x, w)
          [deep] d = Conv<group=2>(c, w1, b1)
          [head] y = Conv(d, u)
        }""",
        {"w": (16, 3, 1, 1), "w1": (24, 8, 3, 3), "b1": (24,), "u": (4, 24, 1, 1)},
        ["a channels 8", "deep channels 12"],
    ),
    "conv_transpose": (
        """g (float[1,3,4,4] x) => (float[1,4,8,8] y) {
          [a] c = Conv(x, w)
          [up] d = ConvTranspose<strides=[2,2]>(c, w1, b1)
          [head] y = Conv(d, u)
        }""",
        {"w": (8, 3, 1, 1), "w1": (8, 12, 2, 2), "b1": (12,), "u": (4, 12, 1, 1)},
        ["a channels 8", "up channels 12"],
    ),
    "conv_transpose_in_groups": (
        """g (float[1,3,4,4] x) => (float[1,4,8,8] y) {
          [a] c = Conv(x, w)
          [up] d = ConvTranspose<strides=[2,2],group=2>(c, w1, b1)
          [deep] e = ConvTranspose<group=12>(d, w2)
          [head] y = Conv(e, u)
        }""",
        {"w": (8, 3, 1, 1), "w1": (8, 6, 2, 2), "b1": (12,), "w2": (12, 1, 1, 1),
         "u": (4, 12, 1, 1)},
        ["a channels 4", "up channels 6"],
    ),
    "one_dimension": (
        """g (float[N,3,12] x) => (float[N,4,8] y) {
          [a] c = Conv<dilations=[2]>(x, w)
          r = Sigmoid(c)
          [head] y = Conv(r, u)
        }""",
        {"w": (8, 3, 3), "u": (4, 8, 1)},
        ["a channels 8"],
    ),
    "gemm_both_ways": (
        """g (float[N,6] x) => (float[N,4] y) {
          [a] h = Gemm<alpha=0.5>(x, w, b)
          r = LeakyRelu(h)
          [c] i = Gemm<transB=1, beta=2.0>(r, w1, b1)
          t = Tanh(i)
          [head] y = MatMul(t, u)
        }""",
        {"w": (6, 16), "b": (1, 16), "w1": (12, 16), "b1": (12,), "u": (12, 4)},
        ["a neurons 16", "c neurons 12"],
    ),
    "constant_on_the_left": (
        """g (float[1,6,5] x) => (float[1,4,5] y) {
          [a] h = MatMul(w, x)
          r = Relu(h)
          [head] y = MatMul(u, r)
        }""",
        {"w": (16, 6), "u": (4, 16)},
        ["a neurons 16"],
    ),
    "constants_beside": (
        """g (float[1,5,6] x) => (float[1,5,4] y) <float two = {2}> {
          [a] h = MatMul(x, w)
          b0 = Add(h, b)
          p = Pow(b0, two)
          q = PRelu(p, s)
          k = Greater(q, limit)
          z = Where(k, q, other)
          [head] y = MatMul(z, u)
        }""",
        {"w": (6, 16), "b": (16,), "s": (16,), "limit": (1, 1, 16), "other": (5, 1), "u": (16, 4)},
        ["a neurons 16"],
    ),
    "one_head": (
        """g (float[1,5,6] x) => (float[1,5,4] y) {
          [q] a = MatMul(x, wq)
          [k] b = MatMul(x, wk)
          t = Transpose<perm=[0,2,1]>(b)
          s = MatMul(a, t)
          p = Softmax<axis=-1>(s)
          [v] c = MatMul(x, wv)
          o = MatMul(p, c)
          [head] y = MatMul(o, u)
        }""",
        {"wq": (6, 8), "wk": (6, 8), "wv": (6, 12), "u": (12, 4)},
        ["q neurons 8", "v neurons 12"],
    ),
    "few_keys_for_many_queries": (
        """g (float[N,5,6] x) => (float[N,5,4] y)
          <int64[4] four = {0, 5, 4, 3}, int64[4] two = {0, 5, 2, 3}, int64[1] axis = {2},
           int64[5] more = {1, 1, 1, 2, 1}, int64[4] again = {0, 5, 4, 3},
           int64[3] back = {0, 5, 12}> {
          [q] a = MatMul(x, wq)
          a4 = Reshape(a, four)
          aq = Transpose<perm=[0,2,1,3]>(a4)
          [k] b = MatMul(x, wk)
          b4 = Reshape(b, two)
          b5 = Unsqueeze(b4, axis3)
          be = Expand(b5, more)
          bf = Reshape(be, again)
          bk = Transpose<perm=[0,2,3,1]>(bf)
          s = MatMul(aq, bk)
          p = Softmax<axis=-1>(s)
          [v] c = MatMul(x, wv)
          c4 = Reshape(c, four)
          cv = Transpose<perm=[0,2,1,3]>(c4)
          o = MatMul(p, cv)
          ot = Transpose<perm=[0,2,1,3]>(o)
          of = Reshape(ot, back)
          [head] y = MatMul(of, u)
        }""".replace("int64[1] axis = {2}", "int64[1] axis3 = {3}"),
        {"wq": (6, 12), "wk": (6, 6), "wv": (6, 12), "u": (12, 4)},
        ["q heads 2"],
    ),
    "equation": (
        """g (float[2,5,6] x) => (float[2,5,4] y) {
          [q] a = Einsum<equation="btc,chd->bthd">(x, wq)
          [k] b = Einsum<equation="btc,chd->bthd">(x, wk)
          s = Einsum<equation="bthd,bshd->bhts">(a, b)
          p = Softmax<axis=-1>(s)
          o = Einsum<equation="bhts,bshd->bthd">(p, b)
          [head] y = Einsum<equation="bthd,hde->bte">(o, u)
        }""",
        {"wq": (6, 4, 3), "wk": (6, 4, 3), "u": (4, 3, 4)},
        ["q neurons 4", "q#2 neurons 3"],
    ),
    "layer_norm": (
        """g (float[N,5,6] x) => (float[N,5,4] y) {
          [a] h = MatMul(x, w)
          n = LayerNormalization<axis=-1, epsilon=0.1>(h, g, b)
          [head] y = MatMul(n, u)
        }""",
        {"w": (6, 16), "g": (16,), "b": (16,), "u": (16, 4)},
        ["a neurons 16"],
    ),
    "layer_norm_over_two_axes": (
        """g (float[1,6,8] x) => (float[1,4,8] y) {
          [a] h = Conv(x, w)
          n = LayerNormalization<axis=1>(h, g, b)
          [head] y = Conv(n, u)
        }""",
        {"w": (12, 6, 1), "g": (12, 8), "b": (12, 1), "u": (4, 12, 1)},
        ["a channels 12"],
    ),
    "layer_norm_written_out": (
        """g (float[1,5,6] x) => (float[1,5,4] y)
          <int64[1] last = {-1}, float two = {2}, float least = {0.01}> {
          [a] h = MatMul(x, w)
          m = ReduceMean(h, last)
          d = Sub(h, m)
          s = Pow(d, two)
          q = ReduceMean(s, last)
          e = Add(q, least)
          r = Sqrt(e)
          n = Div(d, r)
          k = Mul(n, g)
          o = Add(k, b)
          [head] y = MatMul(o, u)
        }""",
        {"w": (6, 16), "g": (16,), "b": (16,), "u": (16, 4)},
        ["a neurons 16"],
    ),
    "instance_norm": (
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
          [a] h = Conv(x, w)
          n = InstanceNormalization(h, g, b)
          [head] y = Conv(n, u)
        }""",
        {"w": (12, 3, 1, 1), "g": (12,), "b": (12,), "u": (4, 12, 1, 1)},
        ["a channels 12"],
    ),
    "local_response_norm": (
        """g (float[1,3,6,6] x) => (float[1,4,6,6] y) {
          [a] h = Conv(x, w)
          n = LRN<size=3, alpha=1.0, beta=0.75, bias=1.0>(h)
          [head] y = Conv(n, u)
        }""",
        {"w": (12, 3, 1, 1), "u": (4, 12, 1, 1)},
        ["a channels 12"],
    ),
    "over_channels": (
        """g (float[1,3,6,6] x) => (float[1,5,6,6] y) <int64[1] one = {1}> {
          [a] h = Conv(x, w)
          m = ReduceMean(h, one)
          s = ReduceSum(h, one)
          t = ReduceMax(h, one)
          l = ReduceMin(h, one)
          e = ReduceL2(h, one)
          y = Concat<axis=1>(m, s, t, l, e)
        }""",
        {"w": (12, 3, 1, 1)},
        ["a channels 12"],
    ),
    "softmax_of_channels": (
        """g (float[1,5,6] x) => (float[1,5,4] y) {
          [a] h = MatMul(x, w)
          p = Softmax<axis=-1>(h)
          l = LogSoftmax<axis=-1>(p)
          [head] y = MatMul(l, u)
        }""",
        {"w": (6, 16), "u": (16, 4)},
        ["a neurons 16"],
    ),
    "squeeze_and_excite": (
        """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
          <int64[2] flat = {0, 16}, int64[4] wide = {0, 16, 1, 1}> {
          [a] h = Conv(x, w)
          p = GlobalAveragePool(h)
          f = Reshape(p, flat)
          [down] d = Gemm(f, w1, b1)
          r = Relu(d)
          [up] e = Gemm(r, w2, b2)
          s = HardSigmoid(e)
          t = Reshape(s, wide)
          m = Mul(h, t)
          [head] y = Conv(m, u)
        }""",
        {"w": (16, 3, 1, 1), "w1": (16, 6), "b1": (6,), "w2": (6, 16), "b2": (16,),
         "u": (4, 16, 1, 1)},
        ["a channels 16", "down neurons 6"],
    ),
    "two_branches_are_weighed": (
        """g (float[1,3,6,6] x) => (float[1,4,6,6] y)
          <int64[5] five = {1, 2, 8, 1, 1}, int64[1] one = {1}> {
          [a] h = Conv(x, w)
          [b] i = Conv(x, w1)
          s = Add(h, i)
          p = GlobalAveragePool(s)
          [c] z = Conv(p, w2)
          k = Reshape(z, five)
          q = Softmax<axis=1>(k)
          h5 = Unsqueeze(h, one)
          i5 = Unsqueeze(i, one)
          j = Concat<axis=1>(h5, i5)
          m = Mul(j, q)
          t = ReduceSum<keepdims=0>(m, one)
          [head] y = Conv(t, u)
        }""",
        {"w": (8, 3, 1, 1), "w1": (8, 3, 1, 1), "w2": (16, 8, 1, 1), "u": (4, 8, 1, 1)},
        ["a channels 8"],
    ),
    "joined_split_picked": (
        """g (float[1,3,6,6] x) => (float[1,4,6,6] y)
          <int64[1] from = {0}, int64[1] to = {24}, int64[1] one = {1}, int64[1] two = {2},
           int64[12] order = {11, 3, 5, 1, 0, 2, 4, 6, 10, 8, 7, 9}> {
          [a] h = Conv(x, w)
          [b] i = Conv(x, w1)
          j = Concat<axis=1>(h, i)
          even = Slice(j, from, to, one, two)
          g = Gather<axis=1>(even, order)
          k, l = Split<axis=1, num_outputs=2>(g)
          [head] y1 = Conv(k, u)
          [tail] y2 = Conv(l, u2)
          y = Add(y1, y2)
        }""",
        {"w": (16, 3, 1, 1), "w1": (8, 3, 1, 1), "u": (4, 6, 1, 1), "u2": (4, 6, 1, 1)},
        ["a channels 5", "a#2 channels 8", "a#3 channels 3", "b channels 3", "b#2 channels 4"],
    ),
    "shuffled_unevenly": (
        """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
          <int64[5] five = {0, 3, 4, 6, 6}, int64[4] four = {0, 12, 6, 6}> {
          [a] h = Conv(x, w)
          s = Reshape(h, five)
          t = Transpose<perm=[0,2,1,3,4]>(s)
          f = Reshape(t, four)
          [deep] d = Conv<group=12>(f, w1)
          [head] y = Conv(d, u)
        }""",
        {"w": (12, 3, 1, 1), "w1": (12, 1, 1, 1), "u": (4, 12, 1, 1)},
        ["a channels 12"],
    ),
    "zeros_beside_channels": (
        """g (float[1,3,6,6] x) => (float[1,4,6,6] y)
          <int64[8] pads = {0, 4, 0, 0, 0, 2, 0, 0}> {
          [a] h = Conv(x, w)
          p = Pad(h, pads)
          [b] i = Conv(x, w1)
          s = Add(p, i)
          [head] y = Conv(s, u)
        }""",
        {"w": (10, 3, 1, 1), "w1": (16, 3, 1, 1), "u": (4, 16, 1, 1)},
        ["a channels 10", "b channels 6"],
    ),
    "blocks_of_pixels": (
        """g (float[1,3,4,4] x) => (float[1,4,4,4] y) {
          [a] h = Conv(x, w)
          d = DepthToSpace<blocksize=2, mode="CRD">(h)
          r = Relu(d)
          s = SpaceToDepth<blocksize=2>(r)
          [b] i = Conv(s, w1)
          e = DepthToSpace<blocksize=2>(i)
          t = SpaceToDepth<blocksize=2>(e)
          [head] y = Conv(t, u)
        }""",
        {"w": (24, 3, 1, 1), "w1": (16, 24, 1, 1), "u": (4, 16, 1, 1)},
        ["a channels 6", "b channels 4"],
    ),
    "flattened": (
        """g (float[N,3,4,4] x) => (float[N,4] y) {
          [a] h = Conv(x, w)
          f = Flatten(h)
          [head] y = Gemm(f, u)
        }""",
        {"w": (12, 3, 1, 1), "u": (192, 4)},
        ["a channels 12"],
    ),
    "channels_last": (
        """g (float[N,3,4,4] x) => (float[N,4] y) <int64[2] flat = {0, 192}> {
          [a] h = Conv(x, w)
          t = Transpose<perm=[0,2,3,1]>(h)
          n = LayerNormalization(t, g)
          f = Reshape(n, flat)
          [head] y = Gemm(f, u)
        }""",
        {"w": (12, 3, 1, 1), "g": (12,), "u": (192, 4)},
        ["a channels 12"],
    ),
    "resized_and_padded": (
        """g (float[1,3,4,4] x) => (float[1,4,10,10] y)
          <int64[4] size = {1, 12, 8, 8}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
          [a] h = Conv(x, w)
          r = Resize<mode="nearest">(h, , , size)
          p = Pad<mode="reflect">(r, pads)
          [head] y = Conv(p, u)
        }""",
        {"w": (12, 3, 1, 1), "u": (4, 12, 1, 1)},
        ["a channels 12"],
    ),
    "spread_by_a_shape": (
        """g (float[N,6] x) => (float[N,5,4] y) <int64[3] to = {1, 5, 12}, int64[1] one = {1}> {
          [a] h = MatMul(x, w)
          e = Unsqueeze(h, one)
          s = Expand(e, to)
          t = Mul(s, places)
          [head] y = MatMul(t, u)
        }""",
        {"w": (6, 12), "places": (5, 12), "u": (12, 4)},
        ["a neurons 12"],
    ),
    "tables": (
        """g (int64[N,T] ids) => (float[N,T,4] y) {
          [words] e = Gather(table, ids)
          [a] h = MatMul(e, w)
          g = Gelu(h)
          [b] k = MatMul(g, w1)
          s = Add(e, k)
          [head] y = MatMul(s, u)
        }""",
        {"table": (20, 12), "w": (12, 24), "w1": (24, 12), "u": (12, 4)},
        ["words embedding 12", "a neurons 24"],
    ),
    "one_table_twice": (
        """g (int64[N,T] ids, int64[N,T] more) => (float[N,T,4] y) {
          [words] e = Gather(table, ids)
          [other] f = Gather(table, more)
          [head] y1 = MatMul(e, u)
          [tail] y2 = MatMul(f, u2)
          y = Add(y1, y2)
        }""",
        {"table": (20, 12), "u": (12, 4), "u2": (12, 4)},
        ["words embedding 12"],
    ),
    "cell_written_out": (
        """g (float[1,2,6] x) => (float[1,4] y)
          <int64[1] one = {1}, int64[1] zero = {0}, int64[4] quarters = {8, 8, 8, 8},
           int64 first = {0}, int64 second = {1}> {
          x0 = Gather<axis=1>(x, first)
          [cell0] a0 = MatMul(x0, w)
          i0, f0, o0, g0 = Split<axis=1>(a0, quarters)
          is0 = Sigmoid(i0)
          gs0 = Tanh(g0)
          fs0 = Sigmoid(f0)
          e0 = Mul(is0, gs0)
          c0 = Add(e0, fs0)
          os0 = Sigmoid(o0)
          ct0 = Tanh(c0)
          h0 = Mul(os0, ct0)
          x1 = Gather<axis=1>(x, second)
          xh = Concat<axis=1>(x1, h0)
          [cell1] a1 = MatMul(xh, w1)
          i1, f1, o1, g1 = Split<axis=1>(a1, quarters)
          is1 = Sigmoid(i1)
          fs1 = Sigmoid(f1)
          gs1 = Tanh(g1)
          n1 = Mul(is1, gs1)
          k1 = Mul(fs1, c0)
          c1 = Add(n1, k1)
          os1 = Sigmoid(o1)
          ct1 = Tanh(c1)
          h1 = Mul(os1, ct1)
          [head] y = MatMul(h1, u)
        }""",
        {"w": (6, 32), "w1": (14, 32), "u": (8, 4)},
        ["cell0 neurons 8"],
    ),
    "recurrent_outputs": (
        """g (float[7,3,6] x) => (float[3,4] y) <int64[1] zero = {0}> {
          [lstm] s, h, c = LSTM<hidden_size=8>(x, w, r, b, , h0, c0, p)
          a = Squeeze(h, zero)
          d = Squeeze(c, zero)
          j = Concat<axis=1>(a, d)
          [head] y = MatMul(j, u)
        }""",
        {"w": (1, 32, 6), "r": (1, 32, 8), "b": (1, 64), "h0": (1, 3, 8), "c0": (1, 3, 8),
         "p": (1, 24), "u": (16, 4)},
        ["lstm hidden 8"],
    ),
    "recurrent_in_both_directions": (
        """g (float[7,3,6] x) => (float[7,3,4] y) <int64[3] flat = {7, 3, 16}> {
          [gru] s = GRU<hidden_size=8, direction="bidirectional">(x, w, r, b)
          t = Transpose<perm=[0,2,1,3]>(s)
          f = Reshape(t, flat)
          [head] y = MatMul(f, u)
        }""",
        {"w": (2, 24, 6), "r": (2, 24, 8), "b": (2, 48), "u": (16, 4)},
        ["gru hidden 8"],
    ),
    "plain_recurrent": (
        """g (float[7,3,6] x) => (float[7,3,4] y) <int64[1] one = {1}> {
          [rnn] s = RNN<hidden_size=8, activations=["Relu"]>(x, w, r)
          t = Squeeze(s, one)
          [head] y = MatMul(t, u)
        }""",
        {"w": (1, 8, 6), "r": (1, 8, 8), "u": (8, 4)},
        ["rnn hidden 8"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_cutting_is_masking(case: str) -> None:
    text, shapes, wanted = CASES[case]
    model = random_model(text, **shapes)
    found = find_groups(model)
    assert described(found) == wanted
    check_places(model, found)
    feeds = list(samples(model, 2).feeds())
    for seed, share in ((0, 0.3), (1, 0.6)):
        small = check_removed(model, share_of(found, share, seed), *feeds)
        # A Slice whose rest does not lie in a row has a Gather before it.
        assert {n.name for n in small.nodes()} <= {n.name for n in model.nodes()} | {"Slice_0.1"}


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_is_left_can_be_cut_again(case: str) -> None:
    text, shapes, _ = CASES[case]
    model = random_model(text, **shapes)
    first = find_groups(model)
    small = check_removed(model, share_of(first, 0.2, 2))
    again = find_groups(small)
    names = {group.name for group in again.groups}
    assert names <= {group.name for group in first.groups}
    if names:
        check_removed(small, share_of(again, 0.2, 3), *samples(model, 1).feeds())


def test_numbers_of_units_follow_the_first_layer() -> None:
    text, shapes, _ = CASES["shuffled_unevenly"]
    (group,) = find_groups(random_model(text, **shapes)).groups
    at = {place.name: place.index[:, 0] for place in (*group.writes, *group.reads)}
    np.testing.assert_array_equal(at["w"], np.arange(12))
    np.testing.assert_array_equal(at["w1"], np.argsort(np.arange(12).reshape(3, 4).T.reshape(-1)))
    np.testing.assert_array_equal(at["u"], at["w1"])
