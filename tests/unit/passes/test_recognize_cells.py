"""Cells written out in the ways of several frameworks, and what looks like one but is none."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, outputs, parse, random_model, samples

from edgebm.exec.agree import largest_error
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.ir.recurrent import Cell, cell_of
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.recognize_cells import RecognizeCells

IN, H = 6, 4
FACE = f"float[N,{IN}] x, float[N,{H}] h"
CONSTANTS = (
    f"<int64[1] last = {{-1}}, float one = {{1.0}}, int64[4] four = {{{H},{H},{H},{H}}}, "
    f"int64[3] three = {{{H},{H},{H}}}, int64[2] two = {{{H},{H}}}, "
    f"int64[1] none = {{0}}, int64[1] half = {{{H}}}, int64[1] full = {{{2 * H}}}>"
)


def lstm(body: str, tail: str = "") -> str:
    """Gates called i, f, g and o are given by `body`."""
    return f"""g ({FACE}, float[N,{H}] c) => (float[N,{H}] hn, float[N,{H}] cn) {CONSTANTS} {{
      {body}
      [keep] fc = Mul(f, c)
      ig = Mul(i, g)
      cn = Add(fc, ig)
      tc = Tanh(cn)
      [cell_out] hn = Mul(o, tc)
      {tail}
    }}"""


def gru(body: str, end: str) -> str:
    return f"g ({FACE}) => (float[N,{H}] hn) {CONSTANTS} {{\n{body}\n{end}\n}}"


SPLIT = "ai, af, ag, ao = Split<axis=-1>(p, four)\n"
ACT = "i = Sigmoid(ai)\n f = Sigmoid(af)\n g = Tanh(ag)\n o = Sigmoid(ao)\n"
END = "a = Mul(z, h)\n m = Sub(one, z)\n b = Mul(m, n)\n [cell_out] hn = Add(a, b)"
RESET_BEHIND = """xp = MatMul(x, w3)
      xb = Add(xp, bx)
      hp = MatMul(h, r3)
      hb = Add(hp, bh)
      xz, xr, xn = Split<axis=1>(xb, three)
      hz, hr, hc = Split<axis=1>(hb, three)
      az = Add(xz, hz)
      z = Sigmoid(az)
      ar = Add(hr, xr)
      r = Sigmoid(ar)
      rh = Mul(r, hc)
      an = Add(xn, rh)
      n = Tanh(an)"""
RESET_BEFORE = """xh = Concat<axis=1>(x, h)
      k = MatMul(xh, k2)
      kb = Add(k, b2)
      s = Sigmoid(kb)
      r, z = Split<axis=1>(s, two)
      rh = Mul(r, h)
      xrh = Concat<axis=1>(x, rh)
      c = MatMul(xrh, k1)
      cb = Add(c, b1)
      n = Tanh(cb)"""

LSTMS: dict[str, str] = {
    "Keras: two products, gates i f c o": lstm(
        "px = MatMul(x, w4)\n ph = MatMul(h, r4)\n s = Add(px, ph)\n p = Add(s, b4)\n"
        + SPLIT + ACT
    ),
    "TensorFlow: one product of [x, h], gates i j f o, a bias in the forget gate": lstm(
        "xh = Concat<axis=1>(x, h)\n k = MatMul(xh, k4)\n p = Add(k, b4)\n"
        + "ai, ag, ef, ao = Split<axis=1>(p, four)\n af = Add(ef, one)\n" + ACT
    ),
    "torch: Gemm with transposed weights, gates i f g o, one sigmoid of three": lstm(
        "px = Gemm<transB=1>(x, wt, b4)\n ph = Gemm<transB=1>(h, rt, c4)\n p = Add(px, ph)\n"
        + SPLIT + ACT
    ),
    "one sigmoid and slices": lstm(
        f"""px = MatMul(x, w4)
        ph = MatMul(h, r4)
        p = Add(px, ph)
        s = Sigmoid(p)
        i = Slice(s, none, half, last)
        f = Slice(s, half, full, last)
        l = Constant<value_ints=[{3 * H}]>()
        e = Constant<value_ints=[{4 * H}]>()
        o = Slice(s, l, e, last)
        ag = Slice(p, full, l, last)
        g = Tanh(ag)"""
    ),
    "a product for each gate, the state first": lstm(
        "\n".join(
            f"h{k} = MatMul(h, r{k})\n x{k} = MatMul(x, w{k})\n s{k} = Add(h{k}, x{k})\n"
            f"a{k} = Add(s{k}, b{k})"
            for k in "ifgo"
        )
        + "\n" + ACT
    ),
}  # fmt: skip
GRUS: dict[str, tuple[str, bool]] = {
    "Keras and torch: reset behind the product": (gru(RESET_BEHIND, END), True),
    "torch's sum: n + z (h - n)": (
        gru(RESET_BEHIND, "d = Sub(h, n)\n m = Mul(d, z)\n hn = Add(m, n)"), True,
    ),
    "update gate the other way round: h + u (n - h)": (
        gru(RESET_BEHIND, "d = Sub(n, h)\n m = Mul(d, z)\n hn = Add(h, m)"), True,
    ),
    "n - z (n - h)": (gru(RESET_BEHIND, "d = Sub(n, h)\n m = Mul(z, d)\n hn = Sub(n, m)"), True),
    "TensorFlow: reset before the product": (gru(RESET_BEFORE, END), False),
    "reset before the product, separate products": (
        gru(
            """p = MatMul(x, w3)
            pz, pr, pn = Split<axis=1>(p, three)
            q = MatMul(h, r2)
            qr, qz = Split<axis=1>(q, two)
            az = Add(pz, qz)
            z = Sigmoid(az)
            ar = Add(pr, qr)
            r = Sigmoid(ar)
            hr = Mul(h, r)
            qn = MatMul(hr, r1)
            s = Add(qn, pn)
            sb = Add(s, b1)
            n = Tanh(sb)""",
            END,
        ),
        False,
    ),
}  # fmt: skip
SHAPES = {
    "w4": (IN, 4 * H), "r4": (H, 4 * H), "k4": (IN + H, 4 * H), "b4": (4 * H,), "c4": (4 * H,),
    "wt": (4 * H, IN), "rt": (4 * H, H), "w3": (IN, 3 * H), "r3": (H, 3 * H), "bx": (3 * H,),
    "bh": (3 * H,), "k2": (IN + H, 2 * H), "b2": (2 * H,), "k1": (IN + H, H), "b1": (H,),
    "r2": (H, 2 * H), "r1": (H, H),
    **{f"w{k}": (IN, H) for k in "ifgo"}, **{f"r{k}": (H, H) for k in "ifgo"},
    **{f"b{k}": (H,) for k in "ifgo"},
}  # fmt: skip


def model_of(text: str) -> Model:
    """Only the weights that the text reads."""
    words = set(text.replace(",", " ").replace(")", " ").replace("(", " ").split())
    return random_model(text, **{k: s for k, s in SHAPES.items() if k in words})


def recognized(model: Model, ctx: Context | None = None) -> Model:
    return run_passes(model, [RecognizeCells()], ctx or Context())[0]


def only_cell(model: Model, op: str) -> Cell:
    (node,) = model.nodes(op)
    cell = cell_of(node)
    assert cell is not None
    assert {n.op_type for n in model.nodes()} <= {
        op, "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat",
    }  # fmt: skip
    return cell


def assert_same(model: Model, done: Model) -> None:
    for feeds in samples(model, 3).feeds():
        expected = outputs(model, feeds)
        for label, array in outputs(done, feeds).items():
            np.testing.assert_allclose(array, expected[label], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", LSTMS)
def test_lstm(form: str) -> None:
    model = model_of(LSTMS[form])
    done = recognized(model)
    cell = only_cell(done, "LSTM")
    assert_same(model, done)
    assert (cell.hidden, cell.inputs) == (H, IN)
    assert cell.is_standard
    assert cell.initial_h is not None
    assert cell.initial_c is not None
    assert cell.node.name == "LSTM_cell"


@pytest.mark.parametrize("form", GRUS)
def test_gru(form: str) -> None:
    text, resets_after = GRUS[form]
    model = model_of(text)
    done = recognized(model)
    cell = only_cell(done, "GRU")
    assert_same(model, done)
    assert (cell.hidden, cell.inputs) == (H, IN)
    assert cell.resets_after is resets_after


@pytest.mark.parametrize("op", ["Tanh", "Relu"])
def test_rnn_whose_state_is_an_input_of_the_model(op: str) -> None:
    model = random_model(
        f"""g ({FACE}) => (float[N,{H}] hn, float[N,2] y) {{
          xp = Gemm<transB=1>(x, wx, b)
          hp = MatMul(h, r)
          p = Add(xp, hp)
          hn = {op}(p)
          y = MatMul(hn, head)
        }}""",
        wx=(H, IN), b=(H,), r=(H, H), head=(H, 2),
    )  # fmt: skip
    done = recognized(model)
    (node,) = done.nodes("RNN")
    cell = cell_of(node)
    assert cell is not None
    assert cell.is_standard is (op == "Tanh")
    assert_same(model, done)


def test_states_in_one_tensor() -> None:
    text = f"""g (float[N,{IN}] x, float[N,{2 * H}] s) => (float[N,{2 * H}] t) {CONSTANTS} {{
      h, c = Split<axis=1>(s, two)
      xh = Concat<axis=1>(x, h)
      k = MatMul(xh, k4)
      p = Add(k, b4)
      {SPLIT}{ACT}
      fc = Mul(f, c)
      ig = Mul(i, g)
      cn = Add(fc, ig)
      tc = Tanh(cn)
      hn = Mul(o, tc)
      t = Concat<axis=1>(hn, cn)
    }}"""
    model = model_of(text)
    done = recognized(model)
    assert_same(model, done)
    assert [n.op_type for n in done.nodes()].count("LSTM") == 1


def test_inputs_as_wide_as_the_state_are_told_apart_by_their_place() -> None:
    text = lstm(
        "px = MatMul(x, u4)\n ph = MatMul(h, r4)\n s = Add(px, ph)\n p = Add(s, b4)\n"
        + SPLIT + ACT
    ).replace(f"float[N,{IN}] x", f"float[N,{H}] x")  # fmt: skip
    model = random_model(text, u4=(H, 4 * H), r4=(H, 4 * H), b4=(4 * H,))
    done = recognized(model)
    cell = only_cell(done, "LSTM")
    assert cell.initial_h is not None
    producer = cell.initial_h.producer()
    assert producer is not None
    assert producer.inputs[0] is not None
    assert producer.inputs[0].name == "h"
    assert_same(model, done)


# ------------------------------------------------------------------------- unrolled loops

STEPS = 3


def unrolled(shared: bool = True, last_only: bool = False, peek: bool = False) -> Model:
    """A Keras-like loop over x [N, T, I] from given states, its steps stacked."""
    lines = ["u0 = Identity(h)", "d0 = Identity(c)"]
    for t in range(STEPS):
        tag = "" if shared else str(t)
        lines += [
            f"k{t} = Constant<value_int={t}>()",
            f"x{t} = Gather<axis=1>(x, k{t})",
            f"j{t} = Concat<axis=1>(x{t}, u{t})",
            f"m{t} = MatMul(j{t}, k4{tag})",
            f"p{t} = Add(m{t}, b4)",
            f"ai{t}, af{t}, ag{t}, ao{t} = Split<axis=1>(p{t}, four)",
            f"i{t} = Sigmoid(ai{t})", f"f{t} = Sigmoid(af{t})",
            f"g{t} = Tanh(ag{t})", f"o{t} = Sigmoid(ao{t})",
            f"e{t} = Mul(f{t}, d{t})", f"q{t} = Mul(i{t}, g{t})",
            f"d{t + 1} = Add(e{t}, q{t})", f"s{t} = Tanh(d{t + 1})",
            f"[out{t}] u{t + 1} = Mul(o{t}, s{t})",
            f"y{t} = Unsqueeze(u{t + 1}, first)",
        ]  # fmt: skip
    joined = ", ".join(f"y{t}" for t in range(STEPS))
    lines.append(f"y = Concat<axis=1>({joined})" if not last_only else f"y = Relu(u{STEPS})")
    lines += ["cn = Tanh(d2)"] if peek else []
    out = f"float[N,{STEPS},{H}] y" if not last_only else f"float[N,{H}] y"
    extra = f", float[N,{H}] cn" if peek else ""
    text = (
        f"g (float[N,{STEPS},{IN}] x, float[N,{H}] h, float[N,{H}] c) => ({out}{extra})"
        f" <int64[4] four = {{{H},{H},{H},{H}}}, int64[1] first = {{1}}> {{"
        + "\n".join(lines)
        + "\n}"
    )
    names = ["k4"] if shared else [f"k4{t}" for t in range(STEPS)]
    return random_model(text, b4=(4 * H,), **dict.fromkeys(names, (IN + H, 4 * H)))


def kinds(model: Model) -> list[str]:
    return sorted(node.op_type for node in model.nodes())


def test_steps_with_one_set_of_weights_are_one_node() -> None:
    model = unrolled()
    done = recognized(model)
    assert_same(model, done)
    assert kinds(done) == ["LSTM", "Squeeze", "Transpose", "Transpose", "Unsqueeze", "Unsqueeze"]


def test_only_the_last_step_is_read() -> None:
    model = unrolled(last_only=True)
    done = recognized(model)
    assert_same(model, done)
    assert kinds(done) == ["LSTM", "Relu", "Squeeze", "Transpose", "Unsqueeze", "Unsqueeze"]


def test_steps_with_weights_of_their_own_are_nodes_of_their_own() -> None:
    model = unrolled(shared=False)
    done = recognized(model)
    assert_same(model, done)
    assert kinds(done).count("LSTM") == STEPS


def test_a_cell_state_that_is_read_in_between_parts_the_loop() -> None:
    model = unrolled(peek=True)
    done = recognized(model)
    assert_same(model, done)
    assert kinds(done).count("LSTM") == 2


def test_a_loop_that_feeds_itself_stays_a_loop() -> None:
    """Each step's input is made from the step before: no sequence is there to begin with."""
    torch = pytest.importorskip("torch")

    class Feeding(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.GRUCell(IN, H)
            self.out = torch.nn.Linear(H, IN)

        def forward(self, x, h):  # type: ignore[no-untyped-def]
            for _ in range(STEPS):
                h = self.cell(x, h)
                x = self.out(h)
            return x, h

    model = import_model(Feeding(), (torch.randn(2, IN), torch.randn(2, H)))
    done = recognized(model)
    assert_same(model, done)
    assert kinds(done).count("GRU") == STEPS
    assert kinds(done).count("Gemm") == STEPS


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_two_layers_of_torchs_cells_from_zero_states(kind: str) -> None:
    """The first step has no state to multiply: it is known by the weights of the others."""
    torch = pytest.importorskip("torch")

    class Stack(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            cell = getattr(torch.nn, f"{kind}Cell")
            self.first, self.second = cell(IN, H), cell(H, H)

        def forward(self, x):  # type: ignore[no-untyped-def]
            a = b = None
            found = []
            for t in range(x.shape[0] - 1, -1, -1):
                a = self.first(x[t], a)
                b = self.second(a[0] if kind == "LSTM" else a, b)
                found.insert(0, b[0] if kind == "LSTM" else b)
            return torch.stack(found)

    model = import_model(Stack(), (torch.randn(STEPS, 2, IN),))
    done = recognized(model)
    assert_same(model, done)
    cells = [cell_of(node) for node in done.nodes(kind)]
    assert [cell.direction for cell in cells if cell is not None] == ["reverse", "reverse"]
    assert kinds(done) == sorted([kind, kind, "Squeeze", "Squeeze"])


# --------------------------------------------------------------------- what is no cell

PLAIN = "px = MatMul(x, w4)\n ph = MatMul(h, r4)\n p = Add(px, ph)\n" + SPLIT
OTHERS: dict[str, str] = {
    "peepholes": lstm(
        PLAIN + "pc = Mul(c, bi)\n pi = Add(ai, pc)\n i = Sigmoid(pi)\n f = Sigmoid(af)\n"
        "g = Tanh(ag)\n o = Sigmoid(ao)"
    ),
    "an input gate of 1 - f": lstm(
        PLAIN + "f = Sigmoid(af)\n i = Sub(one, f)\n g = Tanh(ag)\n o = Sigmoid(ao)"
    ),
    "hard sigmoids": lstm(PLAIN + ACT.replace("Sigmoid", "HardSigmoid")),
    "a relu in the place of a tanh": lstm(PLAIN + ACT.replace("Tanh", "Relu")),
    "gates swapped": lstm(PLAIN + ACT.replace("g = Tanh(ag)", "g = Sigmoid(ag)")),
    "normalized gates": lstm(
        PLAIN.replace(
            "p = Add(px, ph)", "q = Add(px, ph)\n p = LayerNormalization<axis=-1>(q, b4)"
        )
        + ACT
    ),
    "computed weights": lstm(PLAIN.replace("MatMul(h, r4)", "MatMul(h, x4)") + ACT).replace(
        f"float[N,{H}] c)", f"float[N,{H}] c, float[{H},{4 * H}] x4)"
    ),
    "a state that is spread over the batch": lstm(PLAIN + ACT).replace(
        f"float[N,{H}] h", f"float[1,{H}] h"
    ),
    "a GRU that forgets to reset": gru(
        RESET_BEHIND.replace("Mul(r, hc)", "Mul(r, xr)"), END
    ),
    "a GRU with another sum": gru(RESET_BEHIND, END.replace("Sub(one, z)", "Add(one, z)")),
    "a layer of two inputs": f"""g ({FACE}) => (float[N,{H}] hn) {{
      p = MatMul(x, wi)
      q = MatMul(h, ri)
      s = Add(p, q)
      t = Tanh(s)
      hn = MatMul(t, ro)
    }}""",
}  # fmt: skip


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_no_cell_stays(form: str) -> None:
    model = model_of(OTHERS[form])
    before = kinds(model)
    ctx = Context()
    assert kinds(recognized(model, ctx)) == before
    assert not ctx.skips


def test_what_cannot_be_shown_equal_stays_with_a_reason() -> None:
    """Biases of 1e6 that cancel: added at once they take no digits away, one by one they do."""
    body = "px = MatMul(x, w4)\n s = Add(px, b4)\n ph = MatMul(h, r4)\n t = Add(s, ph)\n"
    text = lstm(body + "p = Add(t, c4)\n" + SPLIT + ACT)
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {k: rng.normal(size=SHAPES[k]) for k in ("w4", "r4")}
    weights |= {"b4": np.full(4 * H, 1e6), "c4": np.full(4 * H, -1e6)}
    ctx = Context()
    done = recognized(parse(text, **{k: a.astype(np.float32) for k, a in weights.items()}), ctx)
    assert "LSTM" not in kinds(done)
    (skip,) = ctx.skips
    assert "on random numbers" in skip.reason
    assert skip.node == "cell_out"


def test_an_ignored_cell_stays() -> None:
    ctx = Context(is_ignored=lambda name, op_type: name == "cell_out")
    assert "LSTM" not in kinds(recognized(model_of(next(iter(LSTMS.values()))), ctx))
    assert ctx.skips[0].reason == "it is on the ignored list"


def test_largest_error_sees_a_difference() -> None:
    model = parse(
        """g (float[N,3] x) => (float[N,3] a, float[N,3] b, float[N,3] d)
          <float half = {0.5}, float two = {2.0}> {
          r = Relu(x)
          a = Mul(r, half)
          b = Div(r, two)
          d = Mul(x, half)
        }"""
    )
    values = {value.name: value for node in model.nodes() for value in node.outputs}
    assert largest_error(model, {values["a"]: values["b"]}, [values["r"]]) < 1e-6
    assert largest_error(model, {values["a"]: values["d"]}, []) > 0.1
