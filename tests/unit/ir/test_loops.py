from __future__ import annotations

import numpy as np
import pytest
from graphs import _HEADER

from edgebm.errors import UnsupportedModel
from edgebm.exec.collect import FloatRunner
from edgebm.ir.canonical import canonicalize
from edgebm.ir.model import Model

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.normal(size=(3, 4)).astype(np.float32),
    "r": RNG.normal(size=(4, 4)).astype(np.float32),
    "h0": RNG.normal(size=(2, 4)).astype(np.float32),
}


def looped(
    *,
    trips: str = "n = Squeeze(size, first)",
    index: str = "i",
    cell: str = "u = Add(p, q) t = Tanh(u)",
    more: str = "d = Identity(c)",
    stacked: str = "v = Identity(t)",
) -> Model:
    """h' = tanh(x_i w + h r), from x [T, 2, 3], as a Loop."""
    text = f"""g (float[T,2,3] x) => (float[T,2,4] y, float[2,4] last)
      <int64[1] first = {{0}}, int64[1] second = {{1}}, int64 one = {{1}}, int64 seven = {{7}}> {{
      shape = Shape(x)
      size = Slice(shape, first, second)
      {trips}
      last, y = Loop (n, , h0) <body = b (int64 i, bool c, float[2,4] s)
        => (bool d, float[2,4] t, float[2,4] v) {{
          {more}
          j = Add(i, one)
          e = Gather(x, {index})
          p = MatMul(e, w)
          q = MatMul(s, r)
          {cell}
          {stacked} }}>
    }}"""
    return Model.parse(_HEADER + text, **WEIGHTS)


def test_a_loop_over_a_cell_is_a_layer():
    raw = looped()
    done = canonicalize(raw)
    assert [node.op_type for node in done.nodes("Loop", "RNN")] == ["RNN"]
    for steps in (1, 5):
        x = RNG.normal(size=(steps, 2, 3)).astype(np.float32)
        wanted, found = (FloatRunner(m, ["y", "last"]).run({"x": x}) for m in (raw, done))
        np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["last"], wanted["last"], rtol=1e-5, atol=1e-6)


def test_a_condition_that_holds_to_the_end_is_none():
    condition = "k = Squeeze(size, first) d = Less(j, k)"
    assert list(canonicalize(looped(more=condition)).nodes("RNN"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trips": "n = Identity(seven)"}, "does not run once for each step"),
        ({"index": "j"}, "which is no constant"),
        ({"more": "d = Less(j, seven)"}, "may stop before the end"),
        ({"more": "z = ReduceMax<keepdims=0>(s) o = Abs(z) d = Less(z, o)"}, "may stop before"),
        ({"cell": "u = Add(p, q) t = Exp(u)"}, r"no step of an LSTM, GRU or RNN \(.*Exp"),
        ({"stacked": "v = Neg(t)"}, "no step of an LSTM, GRU or RNN"),
        (
            {"cell": "u = Add(p, q) a = Tanh(u) z = Greater(a, s) t = Where(z, a, s)"},
            "a mask .* cannot be kept",
        ),
    ],
)
def test_other_loops_are_refused_with_the_reason(changes, why):
    with pytest.raises(UnsupportedModel, match=f"control flow is not supported: .*{why}"):
        canonicalize(looped(**changes))
