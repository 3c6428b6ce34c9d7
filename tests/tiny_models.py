"""Models of a few kilobytes, and samples for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from graphs import random_model

from edgebm.ir.model import Model
from edgebm.passes.gru_reset_before import GruResetBefore
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.recipe import Recipe, load_recipe

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 3, 16, 16)).astype(np.float32)
IDS = RNG.integers(0, 200, (16, 12))
X = RNG.normal(size=(20, 8)).astype(np.float32)
QUICK: dict[str, Any] = {"threads": 1, "measure_s": 1.0}


def cnn() -> Model:
    return random_model(
        """g (float[1,3,16,16] image) => (float[1,5] logits) {
          c1 = Conv<pads=[1,1,1,1]>(image, w1, b1)
          n1 = BatchNormalization(c1, g1, b2, m1, v1)
          r1 = Relu(n1)
          p1 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
          c2 = Conv<pads=[1,1,1,1]>(p1, w2)
          r2 = Relu(c2)
          s = Add(r2, p1)
          p2 = GlobalAveragePool(s)
          f = Flatten(p2)
          logits = Gemm<transB=1>(f, w3, b3)
        }""",
        w1=(16, 3, 3, 3), b1=(16,), g1=(16,), b2=(16,), m1=(16,), v1=(16,),
        w2=(16, 16, 3, 3), w3=(5, 16), b3=(5,),
    )  # fmt: skip


def transformer(width: int = 32) -> Model:
    """One block of attention; its hidden layer is twice as wide."""
    text = """g (int64[1,seq] ids) => (float[1,seq,WIDTH] states) {
          e = Gather(table, ids)
          n = LayerNormalization<axis=-1>(e, gain, shift)
          q = MatMul(n, wq)
          k = MatMul(n, wk)
          v = MatMul(n, wv)
          t = Transpose<perm=[0,2,1]>(k)
          a = MatMul(q, t)
          p = Softmax<axis=-1>(a)
          h = MatMul(p, v)
          o = MatMul(h, wo)
          r = Add(o, e)
          u = MatMul(r, w1)
          g = Relu(u)
          d = MatMul(g, w2)
          states = Add(d, r)
        }"""
    square = (width, width)
    return random_model(
        text.replace("WIDTH", str(width)),
        table=(200, width), gain=(width,), shift=(width,), wq=square, wk=square, wv=square,
        wo=square, w1=(width, 2 * width), w2=(2 * width, width),
    )  # fmt: skip


def small() -> Model:
    return random_model(
        "g (float[1,8] x) => (float[1,4] y) { h = Gemm(x, w, b)\n r = Relu(h)\n"
        " y = MatMul(r, u) }",
        w=(8, 32),
        b=(32,),
        u=(32, 4),
    )


FRAMES = {"x": RNG.normal(size=(20, 9, 1, 6)).astype(np.float32)}


def recurrent() -> Model:
    """A GRU as PyTorch writes it, an LSTM in both directions, and a product for each step."""
    return random_model(
        """g (float[9,1,6] x) => (float[9,1,4] y)
          <int64[1] one = {1}, int64[3] flat = {9, 1, 16}> {
          [gru] h = GRU<hidden_size=8, linear_before_reset=1>(x, wg, rg, bg)
          s = Squeeze(h, one)
          [lstm] k = LSTM<hidden_size=8, direction="bidirectional">(s, wl, rl, bl)
          t = Transpose<perm=[0,2,1,3]>(k)
          f = Reshape(t, flat)
          [head] y = MatMul(f, u)
        }""",
        wg=(1, 24, 6),
        rg=(1, 24, 8),
        bg=(1, 48),
        wl=(2, 32, 8),
        rl=(2, 32, 8),
        bl=(2, 64),
        u=(16, 4),
    )


def short_recipe(name: str = "int8") -> Recipe:
    """A recipe whose training takes a moment."""
    recipe = load_recipe(name)
    short: dict[type, Any] = {
        GruResetBefore: GruResetBefore(steps=10),
        LearnRounding: LearnRounding(steps=5),
    }
    steps = [short.get(type(s), s) for s in recipe.steps]
    return replace(recipe, steps=tuple(steps))
