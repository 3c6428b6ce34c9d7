from __future__ import annotations

import numpy as np
import pytest
from graphs import _HEADER

from edgebm.exec.collect import FloatRunner
from edgebm.ir.canonical import canonicalize
from edgebm.ir.model import Model

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


WEIGHTS = {
    "w": normal(4, 3, 3, 3), "b": normal(4), "row": normal(1, 4, 1, 1), "tall": normal(4, 1, 1),
    "wide": normal(1, 1, 1, 4), "half": np.float32(0.5), "zero": np.zeros((4, 1, 1), np.float32),
    "t": normal(3, 4, 2, 2), "m": normal(64, 5), "mt": normal(5, 64), "n": normal(4, 5),
    "flat": np.array([0, -1]), "fixed": np.array([-1, 64]), "mixed": np.array([-1, 4]),
}  # fmt: skip
# body from x [N,3,6,6]: the types of the nodes that are left
CASES = {
    "h = Conv(x, w)\n y = Add(h, row)": ["Conv"],
    "h = Conv(x, w, b)\n y = Mul(tall, h)": ["Conv"],
    "h = Conv(x, w, b)\n a = Sub(h, row)\n c = Div(a, half)\n y = Relu(c)": ["Conv", "Relu"],
    "h = ConvTranspose(x, t)\n a = Mul(h, row)\n y = Add(a, tall)": ["ConvTranspose"],
    "h = Conv(x, w)\n y = Sub(row, h)": ["Conv", "Sub"],
    "h = Conv(x, w)\n y = Add(h, wide)": ["Conv", "Add"],
    "h = Conv(x, w)\n y = Div(h, zero)": ["Conv", "Div"],
    "h = Conv(x, w)\n a = Add(h, row)\n y = Add(a, h)": ["Conv", "Add", "Add"],
    "h = Conv(x, w)\n p = Transpose<perm=[0,2,3,1]>(h)\n f = Reshape(p, fixed)\n"
    " y = MatMul(f, m)": [
        "Conv", "Reshape", "MatMul",
    ],
    "h = Conv(x, w)\n p = Transpose<perm=[0,3,2,1]>(h)\n f = Reshape(p, flat)\n"
    " y = Gemm<transB=1>(f, mt)": ["Conv", "Reshape", "Gemm"],
    "h = Conv(x, w)\n p = Transpose<perm=[0,2,3,1]>(h)\n f = Flatten(p)\n y = MatMul(f, m)": [
        "Conv", "Flatten", "MatMul",
    ],
    "h = Conv(x, w)\n p = Transpose<perm=[0,2,3,1]>(h)\n f = Reshape(p, mixed)\n"
    " y = MatMul(f, n)": [
        "Conv", "Transpose", "Reshape", "MatMul",
    ],
}  # fmt: skip


@pytest.mark.parametrize("body", CASES)
def test_what_is_left_and_that_it_is_the_same(body):
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    text = f"g (float[N,3,6,6] x) => (float y) {{ {body} }}"
    raw = Model.parse(_HEADER + text, **{k: v for k, v in WEIGHTS.items() if k in words})
    done = canonicalize(raw)
    assert [node.op_type for node in done.nodes()] == CASES[body]
    x = normal(2, 3, 6, 6)
    wanted, found = (FloatRunner(m, ["y"]).run({"x": x})["y"] for m in (raw, done))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("back", "left"),
    [("[2,3,5]", ["MatMul"]), ("[3,2,5]", ["Reshape", "MatMul", "Reshape"])],
)
def test_products_of_sequences_are_not_flattened(back, left):
    text = f"""g (float[2,3,4] x) => (float{back} y)
      <int64[2] rows = {{-1, 4}}, int64[3] back = {{{back.strip("[]")}}}> {{
      f = Reshape(x, rows)
      p = MatMul(f, n)
      y = Reshape(p, back)
    }}"""
    raw = Model.parse(_HEADER + text, n=WEIGHTS["n"])
    done = canonicalize(raw)
    assert [node.op_type for node in done.nodes()] == left
    x = normal(2, 3, 4)
    wanted, found = (FloatRunner(m, ["y"]).run({"x": x})["y"] for m in (raw, done))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
