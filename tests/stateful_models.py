"""Small models with state, as ONNX text: an LSTM of two layers, and a decoder with a cache."""

from __future__ import annotations

import numpy as np
from graphs import parse

from edgebm.ir.model import Model

F, H, C = 6, 8, 4


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(3)
    return {
        label: (0.5 * rng.normal(size=shape)).astype(np.float32) for label, shape in shapes.items()
    }


LSTM = {
    "w0": (1, 4 * H, F),
    "r0": (1, 4 * H, H),
    "b0": (1, 8 * H),
    "w1": (1, 4 * H, H),
    "r1": (1, 4 * H, H),
    "b1": (1, 8 * H),
    "head": (H, C),
}


def lstm_step() -> Model:
    """x [1, 1, F], h and c [2, 1, H] in and out, as torch stacks the states of two layers."""
    return parse(
        f"""g (float[1,1,{F}] x, float[2,1,{H}] h, float[2,1,{H}] c)
            => (float[1,1,{C}] y, float[2,1,{H}] hn, float[2,1,{H}] cn) {{
          zero = Constant<value_ints=[0]>()
          one = Constant<value_ints=[1]>()
          two = Constant<value_ints=[2]>()
          h0 = Slice(h, zero, one, zero)
          h1 = Slice(h, one, two, zero)
          c0 = Slice(c, zero, one, zero)
          c1 = Slice(c, one, two, zero)
          [lower] y0, h0n, c0n = LSTM<hidden_size={H}>(x, w0, r0, b0, , h0, c0)
          s0 = Squeeze(y0, one)
          [upper] y1, h1n, c1n = LSTM<hidden_size={H}>(s0, w1, r1, b1, , h1, c1)
          s1 = Squeeze(y1, one)
          [head_fc] y = MatMul(s1, head)
          hn = Concat<axis=0>(h0n, h1n)
          cn = Concat<axis=0>(c0n, c1n)
        }}""",
        **weights(**LSTM),
    )


def decoder_step(*, names: bool = True) -> Model:
    """One token of a decoder with one head: x [1, 1, F], caches [1, past, F] that grow by one."""
    a, b = ("past_k", "past_v") if names else ("alpha", "beta")
    n, m = ("present_k", "present_v") if names else ("gamma", "delta")
    return parse(
        f"""g (float[1,1,{F}] x, float[1,past,{F}] {a}, float[1,past,{F}] {b})
            => (float[1,1,{C}] y, float[1,total,{F}] {n}, float[1,total,{F}] {m}) {{
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          {n} = Concat<axis=1>({a}, k)
          {m} = Concat<axis=1>({b}, v)
          kt = Transpose<perm=[0,2,1]>({n})
          scores = MatMul(q, kt)
          p = Softmax<axis=-1>(scores)
          z = MatMul(p, {m})
          [head_fc] y = MatMul(z, head)
        }}""",
        **weights(wq=(F, F), wk=(F, F), wv=(F, F), head=(F, C)),
    )


def speech(steps: str = "12", batch: str = "1", *, many: bool = True) -> Model:
    """A sequence model [batch, T, F]: an LSTM below a GRU; scores at every step or at the end."""
    end = "seen = Transpose<perm=[1,0,2]>(s1)" if many else "seen = Squeeze(h1n, zero)"
    shape = f"{batch},{steps},{C}" if many else f"{batch},{C}"
    return parse(
        f"""g (float[{batch},{steps},{F}] x) => (float[{shape}] y) {{
          zero = Constant<value_ints=[0]>()
          one = Constant<value_ints=[1]>()
          xt = Transpose<perm=[1,0,2]>(x)
          [lower] y0, h0n, c0n = LSTM<hidden_size={H}>(xt, w0, r0, b0)
          s0 = Squeeze(y0, one)
          [upper] y1, h1n = GRU<hidden_size={H}, linear_before_reset=1>(s0, w1, r1, b1)
          s1 = Squeeze(y1, one)
          {end}
          [head_fc] y = MatMul(seen, head)
        }}""",
        **weights(
            w0=(1, 4 * H, F),
            r0=(1, 4 * H, H),
            b0=(1, 8 * H),
            w1=(1, 3 * H, H),
            r1=(1, 3 * H, H),
            b1=(1, 6 * H),
            head=(H, C),
        ),
    )
