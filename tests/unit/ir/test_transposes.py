from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from graphs import _HEADER, parse

from edgebm.exec.collect import FloatRunner
from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import name
from edgebm.ir.model import Model

RNG = np.random.default_rng(0)
LAST, FIRST = "perm=[0,2,3,1]", "perm=[0,3,1,2]"
ROW = RNG.normal(size=(1, 1, 1, 4)).astype(np.float32)
W = RNG.normal(size=(4, 4, 3, 3)).astype(np.float32)
# body from x [N,4,6,6]: transposes that must be left
CASES: dict[str, tuple[str, int]] = {
    "a pair": (f"a = Transpose<{LAST}>(x)\n y = Transpose<{FIRST}>(a)", 0),
    "one behind another": (f"a = Transpose<{LAST}>(x)\n y = Transpose<{LAST}>(a)", 1),
    "through an activation": (
        f"a = Transpose<{LAST}>(x)\n b = Relu(a)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "through a constant per channel": (
        f"a = Transpose<{LAST}>(x)\n b = Mul(row, a)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "through a shorter constant": (
        f"a = Transpose<{LAST}>(x)\n b = Sub(a, vec)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "through a sum of two": (
        f"a = Transpose<{LAST}>(x)\n b = Neg(x)\n c = Transpose<{LAST}>(b)\n d = Add(a, c)\n"
        f" y = Transpose<{FIRST}>(d)", 0,
    ),
    "through Concat": (
        f"a = Transpose<{LAST}>(x)\n b = Concat<axis=-1>(a, a)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "through Softmax": (
        f"a = Transpose<{LAST}>(x)\n b = Softmax<axis=-1>(a)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "into a mean": (f"a = Transpose<{LAST}>(x)\n y = ReduceMean<keepdims=0>(a, axes)", 0),
    "into a mean that keeps axes": (
        f"a = Transpose<{LAST}>(x)\n b = ReduceMean(a, axes)\n y = Transpose<{FIRST}>(b)", 0,
    ),
    "a value between is read": (
        f"a = Transpose<{LAST}>(x)\n b = Relu(a)\n c = Transpose<{FIRST}>(b)\n"
        " d = Conv(c, w)\n e = Flatten(b)\n f = Flatten(d)\n y = Concat<axis=1>(e, f)", 1,
    ),
    "a bias comes to its convolution": (
        f"a = Conv(x, w)\n b = Transpose<{LAST}>(a)\n c = Add(b, row)\n y = Relu(c)", 1,
    ),
    "another order stays": (
        f"a = Transpose<{LAST}>(x)\n b = Relu(a)\n y = Transpose<{LAST}>(b)", 2,
    ),
    "nothing to gain": (f"a = Transpose<{LAST}>(x)\n y = Relu(a)", 1),
    "a reduction that mixes the order": (
        "a = Transpose<perm=[0,3,2,1]>(x)\n y = ReduceMean<keepdims=0>(a, one)", 1,
    ),
}  # fmt: skip
WEIGHTS = {
    "row": ROW, "vec": ROW.reshape(-1), "w": W, "axes": np.array([1, 2]), "one": np.array([1]),
}  # fmt: skip


def both(body: str) -> tuple[Model, Model]:
    shape = "A,B" if "keepdims=0" in body or "Flatten" in body else "A,B,C,D"
    text = f"g (float[N,4,6,6] x) => (float[{shape}] y) {{ {body} }}"
    words = set(re.split(r"\W+", body))
    raw = Model.parse(_HEADER + text, **{k: v for k, v in WEIGHTS.items() if k in words})
    return raw, canonicalize(raw)


def run(model: Model, x: np.ndarray) -> np.ndarray:
    return FloatRunner(model, ["y"]).run({"x": x})["y"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_and_that_it_is_the_same(case):
    body, left = CASES[case]
    raw, done = both(body)
    counts = Counter(node.op_type for node in done.nodes())
    assert counts["Transpose"] == left
    x = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(run(done, x), run(raw, x), rtol=1e-4, atol=1e-5)


def test_the_bias_is_in_the_convolution():
    _, done = both(CASES["a bias comes to its convolution"][0])
    assert [node.op_type for node in done.nodes()] == ["Conv", "Relu", "Transpose"]
    (conv,) = done.nodes("Conv")
    assert conv.inputs[2] is not None


def test_names_of_outputs_stay():
    text = f"""g (float[1,4,6,6] x) => (float[1,6,6,4] p, float[1,4,6,6] q) {{
      a = Transpose<{LAST}>(x)
      p = Relu(a)
      q = Transpose<{FIRST}>(p)
    }}"""
    done = parse(text)
    assert [name(value) for value in done.graph.graph.outputs] == ["p", "q"]
    x = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)
    found = FloatRunner(done, ["p", "q"]).run({"x": x})
    np.testing.assert_array_equal(found["q"], np.maximum(x, 0))
    np.testing.assert_array_equal(found["p"], np.maximum(x, 0).transpose(0, 2, 3, 1))


def test_a_shared_constant_keeps_its_layout_elsewhere():
    body = f"""a = Transpose<{LAST}>(x)
      b = Add(a, row)
      c = Transpose<{FIRST}>(b)
      d = Conv<pads=[1,1,1,1]>(c, w)
      e = Transpose<{LAST}>(d)
      f = Flatten(e)
      s = Flatten<axis=0>(row)
      h = ReduceSum(s, one)
      y = Add(f, h)"""
    raw, done = both(body)
    x = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(run(done, x), run(raw, x), rtol=1e-4, atol=1e-5)
