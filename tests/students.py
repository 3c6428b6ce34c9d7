"""Small teachers and students of each family, and samples for them."""

from __future__ import annotations

import numpy as np
from graphs import Listed, random_model

from edgebm.ir.model import Model

_CNN = """g (float[N,1,8,8] x) => (float[N,10] y) {
    c1 = Conv<pads=[1,1,1,1]>(x, w1)
    n1 = BatchNormalization(c1, s1, b1, m1, v1)
    r1 = Relu(n1)
    c2 = Conv<pads=[1,1,1,1]>(r1, w2)
    n2 = BatchNormalization(c2, s2, b2, m2, v2)
    r2 = Relu(n2)
    c3 = Conv<pads=[1,1,1,1]>(r2, w3)
    a3 = Add(c3, r1)
    r3 = Relu(a3)
    p = GlobalAveragePool(r3)
    f = Flatten(p)
    y = Gemm<transB=1>(f, w4, b4) }"""
_GRU = """g (float[N,T,3] x) => (float[N,4] y) <int64[1] zero = {0}> {
    t = Transpose<perm=[1,0,2]>(x)
    s, h = GRU<hidden_size=%d, linear_before_reset=1>(t, w, r, b)
    q = Squeeze(h, zero)
    y = MatMul(q, wy) }"""
_BERT = """g (int64[N,T] ids, int64[N,T] mask) => (float[N,16] y)
    <int64[4] split = {0,0,2,8}, int64[3] merge = {0,0,16}, int64[2] axes = {1,2},
     int64[1] last = {2}, int64[1] one = {1}, float low = {-10000}, float unit = {1}> {
    e = Gather(table, ids)
    kept = Cast<to=1>(mask)
    away = Sub(unit, kept)
    penalty = Mul(away, low)
    bias = Unsqueeze(penalty, axes)
    q = MatMul(e, wq)
    k = MatMul(e, wk)
    v = MatMul(e, wv)
    qs = Reshape(q, split)
    ks = Reshape(k, split)
    vs = Reshape(v, split)
    qt = Transpose<perm=[0,2,1,3]>(qs)
    kt = Transpose<perm=[0,2,3,1]>(ks)
    vt = Transpose<perm=[0,2,1,3]>(vs)
    scores = MatMul(qt, kt)
    biased = Add(scores, bias)
    p = Softmax<axis=-1>(biased)
    mixed = MatMul(p, vt)
    back = Transpose<perm=[0,2,1,3]>(mixed)
    joined = Reshape(back, merge)
    o = MatMul(joined, wo)
    sum1 = Add(o, e)
    norm1 = LayerNormalization<axis=-1>(sum1, g1, h1)
    up = MatMul(norm1, wu)
    act = Gelu(up)
    down = MatMul(act, wd)
    sum2 = Add(down, norm1)
    norm2 = LayerNormalization<axis=-1>(sum2, g2, h2)
    wide = Unsqueeze(kept, last)
    held = Mul(norm2, wide)
    total = ReduceSum<keepdims=0>(held, one)
    count = ReduceSum(kept, one)
    y = Div(total, count) }"""


def cnn(width: int, seed: int) -> Model:
    """Residual, with two BatchNormalizations; digits of 8 x 8 to 10 classes."""
    shapes = {
        "w1": (8, 1, 3, 3), "w2": (width, 8, 3, 3), "w3": (8, width, 3, 3), "w4": (10, 8),
        "b4": (10,),
    }  # fmt: skip
    norms = {f"{k}{i}": (w,) for i, w in ((1, 8), (2, width)) for k in "sbmv"}
    return random_model(_CNN, seed, **shapes, **norms)


def gru(hidden: int, seed: int) -> Model:
    """Sequences [N, T, 3] to 4 numbers."""
    return random_model(
        _GRU % hidden,
        seed,
        w=(1, 3 * hidden, 3),
        r=(1, 3 * hidden, hidden),
        b=(1, 6 * hidden),
        wy=(hidden, 4),
    )


def bert(inner: int, seed: int) -> Model:
    """Two heads, one layer, mean pooling under a mask; 50 ids to 16 numbers."""
    square = dict.fromkeys(("wq", "wk", "wv", "wo"), (16, 16))
    norms = dict.fromkeys(("g1", "h1", "g2", "h2"), (16,))
    return random_model(
        _BERT, seed, table=(50, 16), wu=(16, inner), wd=(inner, 16), **square, **norms
    )


def digits(count: int, seed: int = 0) -> Listed:
    """Images [1, 1, 8, 8], smooth and then noisy."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 1, 1, 2, 2)).repeat(4, 3).repeat(4, 4)
    x = (coarse + 0.3 * rng.normal(size=(count, 1, 1, 8, 8))).astype("f4")
    return Listed([{"x": each} for each in x])


def signals(count: int, lengths: tuple[int, ...] = (12,), seed: int = 0) -> Listed:
    """Slow signals [1, T, 3], of these lengths by turns."""
    rng = np.random.default_rng(seed)
    return Listed(
        [
            {"x": rng.normal(size=(1, lengths[i % len(lengths)], 3)).cumsum(1).astype("f4") / 2}
            for i in range(count)
        ]
    )


def sentences(count: int, longest: int = 12, seed: int = 0) -> Listed:
    """Ids [1, T] padded with 0 behind 2 to `longest` of them, with a mask."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        length = int(rng.integers(2, longest + 1))
        mask = (np.arange(longest) < length)[None].astype(np.int64)
        ids = rng.integers(1, 50, size=(1, longest)) * mask
        found.append({"ids": ids.astype(np.int64), "mask": mask})
    return Listed(found)
