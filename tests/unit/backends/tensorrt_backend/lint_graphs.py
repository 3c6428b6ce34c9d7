"""Graphs as text that break one of TensorRT's rules or keep it, and the constants they use."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from edgebm.ir.model import Model

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def _int8(*shape: int) -> Array:
    return RNG.integers(-127, 128, shape).astype(np.int8)


CONSTANTS: dict[str, Array] = {
    # scales and zero points of activations
    "s": np.float32(0.1),
    "t": np.float32(0.2),
    "s16": np.float16(0.1),
    "bad": np.float32(0),
    "z": np.int8(0),
    "z3": np.int8(3),
    "u": np.uint8(0),
    "z8": np.zeros((), ml_dtypes.float8_e4m3fn),
    "z16": np.uint16(0),
    # of weights, by channels
    "ws": np.full(16, 0.01, np.float32),
    "ws8": np.full(8, 0.01, np.float32),
    "ws4": np.full(4, 0.01, np.float32),
    "wz": np.zeros(16, np.int8),
    "wz8": np.zeros(8, np.int8),
    "wz4": np.zeros(4, np.int8),
    "blocks": np.full((2, 16), 0.01, np.float32),
    "checks": np.full((2, 2), 0.01, np.float32),
    "nibble": np.zeros((), ml_dtypes.int4),
    # weights
    "w": _int8(16, 16, 3, 3),
    "w8": _int8(16, 8, 3, 3),
    "w4": _int8(4, 4, 3, 3),
    "low": np.full((16, 16, 3, 3), -128, np.int8),
    "wf": _int8(16, 16, 3, 3).astype(np.float32),
    "m": _int8(16, 16),
    "m4": _int8(16, 4),
    "mf": _int8(16, 16).astype(np.float32),
    "odd": np.ones((16, 15), ml_dtypes.int4),
    "even": np.ones((16, 16), ml_dtypes.int4),
    "oddblocks": np.full((2, 15), 0.01, np.float32),
    "tt": _int8(16, 8, 2, 2),
    "bi": np.zeros(16, np.int32),
    "b": np.zeros(16, np.float32),
    "bs": np.full(16, 0.001, np.float32),
    "one": np.ones(16, np.float32),
    "half": np.ones(16, np.float16),
    "mh": np.ones((16, 16), np.float16),
    "flat": np.asarray([1, -1, 16]),
    "k4000": np.asarray([4000]),
    "k5": np.asarray([5]),
    "cells": np.ones((1, 16, 4), np.float32),
    "cells2": np.ones((2, 16, 4), np.float32),
    "along": np.asarray([1]),
    "twice": np.asarray([1, 1, 2, 2], np.float32),
}


def graph(text: str, *, opset: int = 20) -> Model:
    """The graph as it is written, not canonical, with the constants that it names."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "trt" : 1]>\n'
    named = set(re.findall(r"\w+", text.partition("{")[2]))
    return Model.parse(header + text, **{k: v for k, v in CONSTANTS.items() if k in named})


def conv(
    *,
    x: str = "float[1,16,8,8] x",
    y: str = "float[1,16,8,8] y",
    before: str = "",
    read: str = "x",
    pair: str = "s, z",
    weight: str = "v = DequantizeLinear<axis=0>(w, ws, wz)",
    layer: str = "y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
    behind: str = "",
) -> str:
    """A graph around one convolution that keeps every rule; single parts are exchanged."""
    return f"""g ({x}) => ({y}) {{
      {before}
      q = QuantizeLinear({read}, {pair})
      d = DequantizeLinear(q, {pair})
      {weight}
      [c] {layer}
      {behind}
    }}"""


def product(
    *,
    x: str = "float[1,32,16] x",
    y: str = "float[1,32,16] y",
    before: str = "",
    read: str = "x",
    weight: str = "v = DequantizeLinear<axis=1>(m, ws, wz)",
    layer: str = "y = MatMul(d, v)",
    behind: str = "",
) -> str:
    """The same around one product."""
    return conv(x=x, y=y, before=before, read=read, weight=weight, layer=layer, behind=behind)


def residual(branch: str, skip: str) -> str:
    """Two convolutions in a branch, and the sum of `branch` and `skip`."""
    return conv(
        weight="v = DequantizeLinear<axis=0>(w, ws, wz)",
        layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
        behind=f"""hq = QuantizeLinear(h, s, z)
        hd = DequantizeLinear(hq, s, z)
        [c2] g2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(hd, v)
        gq = QuantizeLinear(g2, s, z)
        gd = DequantizeLinear(gq, s, z)
        [add] y = Add({branch}, {skip})""",
    )


def attention(*, mask: str, length: int = 32, between: str = "a") -> str:
    """Products of quantized activations around a Softmax of `between`."""
    return f"""g (float[1,{length},16] x, float[1,{length},{length}] bias)
        => (float[1,{length},16] y) {{
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      e = Transpose<perm=[0,2,1]>(d)
      [qk] a = MatMul(d, e)
      {mask}
      [soft] p = Softmax({between})
      pq = QuantizeLinear(p, t, z)
      pd = DequantizeLinear(pq, t, z)
      [pv] y = MatMul(pd, d)
    }}"""


def plain(x: str, y: str, body: str) -> str:
    """A graph of nothing but `body`."""
    return f"g ({x}) => ({y}) {{\n{body}\n}}"


IMAGE, SAME = "float[1,16,8,8] x", "float[1,16,8,8] y"
_Q, _DQ = "q2 = QuantizeLinear", "d2 = DequantizeLinear"

# Of each rule: a graph that breaks it, and a like one that keeps it.
CASES: dict[str, tuple[str, str]] = {
    "E01": (conv(pair="s, z3"), conv()),
    "E02": (conv(pair="s, u"), conv()),
    "E03": (
        conv(
            weight="v = DequantizeLinear<axis=0>(w, ws, wz)\n"
            "bd = DequantizeLinear<axis=0>(bi, bs)",
            layer="y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v, bd)",
        ),
        conv(layer="y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v, b)"),
    ),
    "E04": (conv(pair="bad, z"), conv()),
    "E05": (
        conv(read="x", pair="ws, wz"),
        conv(weight="wq = QuantizeLinear<axis=0>(wf, ws, wz)\n"
             "v = DequantizeLinear<axis=0>(wq, ws, wz)"),
    ),
    "E06": (conv(weight="v = DequantizeLinear<axis=1>(w, ws, wz)"), conv()),
    "E07": (conv(weight="v = DequantizeLinear<axis=0>(w, ws, wz8)"), conv()),
    "E08": (
        plain("float x", "float y", "q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z)"),
        plain("float[1] x", "float[1] y",
              "q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z)"),
    ),
    "E09": (
        plain(IMAGE, SAME, "[n] y = com.microsoft.FusedConv(x, wf)"),
        plain(IMAGE, SAME, "[n] y = Conv<pads=[1,1,1,1]>(x, wf)"),
    ),
    "E12": (conv(layer="y = Conv<pads=[1,1,1,1]>(d, v)"), conv()),
    "E13": (
        conv(x="float16[1,16,8,8] x"),
        conv(x="float16[1,16,8,8] x", before="f = Cast<to=1>(x)", read="f"),
    ),
    "E14": (
        plain("float16[4,16] x", "float16[4,16] y", "[n] y = Gemm<alpha=2.0>(x, mh, half)"),
        plain("float16[4,16] x", "float16[4,16] y", "[n] y = Gemm(x, mh, half)"),
    ),
    "E15": (
        plain("float[5,1,4] x", "float[5,1,1,4] y",
              "[n] y = LSTM<hidden_size=4, input_forget=1>(x, cells, cells)"),
        plain("float[5,1,4] x", "float[5,1,1,4] y",
              "[n] y = LSTM<hidden_size=4>(x, cells, cells)"),
    ),
    "E16": (
        product(y="float[1,32,15] y",
                weight="v = DequantizeLinear<axis=0, block_size=8>(odd, oddblocks)"),
        product(weight="v = DequantizeLinear<axis=0, block_size=8>(even, blocks)"),
    ),
    "E17": (
        plain("int64[3] x", "float[3,16] y",
              "r = Gather(m, x)\n [n] f = Cast<to=1>(r)\n y = Mul(f, one)"),
        plain("int64[3] x", "float[3,16] y", "y = Gather(mf, x)"),
    ),
    "E18": (
        plain("uint8[1,8] x", "int64[2] y", "y = Shape(x)"),
        plain("uint8[1,8] x", "float[1,8] y", "y = Cast<to=1>(x)"),
    ),
    "W01": (conv(layer="y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, v)"), conv()),
    "W02": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind=f"{_Q}(h, s, z)\n {_DQ}(q2, s, z)\n y = Relu(d2)"),
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind=f"r = Relu(h)\n {_Q}(r, s, z)\n {_DQ}(q2, s, z)\n"
             "y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d2, v)"),
    ),
    "W03": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind="[n] y = BatchNormalization(h, one, b, b, one)"),
        plain(IMAGE, SAME, "h = Conv<pads=[1,1,1,1]>(x, wf)\n"
              "[n] y = BatchNormalization(h, one, b, b, one)"),
    ),
    "W04": (
        product(layer="h = MatMul(d, v)",
                behind=f"{_Q}(h, s, z)\n {_DQ}(q2, s, z)\n [n] y = Softmax(d2)"),
        product(layer="h = MatMul(d, v)", behind="[n] y = Softmax(h)"),
    ),
    "W05": (residual("gd", "d"), residual("g2", "d")),
    "W06": (conv(weight="v = DequantizeLinear(w, s, z)"), conv()),
    "W07": (
        conv(x="float[1,4,8,8] x", y="float[1,4,8,8] y",
             weight="v = DequantizeLinear<axis=0>(w4, ws4, wz4)"),
        conv(x="float[1,8,8,8] x", weight="v = DequantizeLinear<axis=0>(w8, ws, wz)"),
    ),
    "W08": (
        product(y="float[1,32,4] y", weight="v = DequantizeLinear<axis=1>(m4, ws4, wz4)"),
        product(),
    ),
    "W09": (
        plain(f"{IMAGE}, float[1,16,8,8] o", "float[1,32,8,8] y",
              f"q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n {_Q}(o, t, z)\n"
              f"{_DQ}(q2, t, z)\n [n] y = Concat<axis=1>(d, d2)"),
        plain(f"{IMAGE}, float[1,16,8,8] o", "float[1,32,8,8] y",
              f"q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n {_Q}(o, s, z)\n"
              f"{_DQ}(q2, s, z)\n [n] y = Concat<axis=1>(d, d2)"),
    ),
    "W10": (
        conv(before="q1 = QuantizeLinear(x, t, z)\n d1 = DequantizeLinear(q1, t, z)", read="d1"),
        conv(before="q1 = QuantizeLinear(x, s, z)\n d1 = DequantizeLinear(q1, s, z)", read="d1"),
    ),
    "W11": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind=f"{_Q}(h, s, z)\n [out] y = DequantizeLinear(q2, s, z)"),
        conv(),
    ),
    "W12": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind=f"{_Q}(x, t, z)\n {_DQ}(q2, t, z)\n y = Add(h, d2)"),
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind=f"{_Q}(x, s, z)\n {_DQ}(q2, s, z)\n y = Add(h, d2)"),
    ),
    "W13": (
        attention(mask="f = Mul(a, s)", between="f"),
        attention(mask="f = Add(a, bias)", between="f"),
    ),
    "W14": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)", y="float[1,16,1,1] y",
             behind=f"{_Q}(h, s, z)\n {_DQ}(q2, s, z)\n [n] y = GlobalAveragePool(d2)"),
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)", y="float[1,16,1,1] y",
             behind="[n] y = GlobalAveragePool(h)"),
    ),
    "W15": (
        conv(layer="h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)",
             behind="[n] y = Sin(h)"),
        conv(),
    ),
}  # fmt: skip
