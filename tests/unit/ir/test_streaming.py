from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from graphs import face, outputs, parse
from stateful_models import C, F, H, speech, weights

from edgebm.errors import UnsupportedModel
from edgebm.ir.model import Model
from edgebm.ir.streaming import Streaming, to_streaming
from edgebm.ir.time_place import Last, Place

RNG = np.random.default_rng(0)
CELL = {"w": (1, 4 * H, F), "r": (1, 4 * H, H), "b": (1, 8 * H)}


def streamed(made: Streaming, x: Any, axis: int = 1) -> list[dict[str, Any]]:
    """The streaming model step by step; `x` is what the sequence model takes."""
    batch = x.shape[1 - axis]
    states = {
        spec.name: made.initial.get(spec.name, np.zeros((1, batch, H), np.float32))
        for spec in face(made.model).inputs
        if spec.name != "x"
    }
    answers = []
    for step in range(x.shape[axis]):
        got = outputs(made.model, {"x": np.take(x, [step], axis), **states})
        states = {pair.input: got[pair.output] for pair in made.pairs}
        answers.append(got)
    return answers


def own(body: str, *, inputs: str = "", out: str = f"1,12,{C}", **extra: Any) -> Model:
    """An LSTM over x [1, 12, F] whose outputs at every step are `seen` [1, 12, H]."""
    arrays = {**weights(**CELL, head=(H, C)), **extra}
    text = f"""g (float[1,12,{F}] x{inputs}) => (float[{out}] y) {{
          one = Constant<value_ints=[1]>()
          xt = Transpose<perm=[1,0,2]>(x)
          [cell] s, hn, cn = LSTM<hidden_size={H}>(xt, w, r, b)
          st = Squeeze(s, one)
          seen = Transpose<perm=[1,0,2]>(st)
          {body}
        }}"""
    return parse(
        text, **{key: array for key, array in arrays.items() if re.search(rf"\b{key}\b", text)}
    )


@pytest.mark.parametrize("steps", ["12", "T"])
@pytest.mark.parametrize("batch", ["1", "B"])
@pytest.mark.parametrize("many", [True, False])
def test_step_by_step_it_gives_what_the_sequence_model_gives(
    steps: str, batch: str, many: bool
) -> None:
    model = speech(steps, batch, many=many)
    before = model.to_bytes()
    made = to_streaming(model)
    assert model.to_bytes() == before
    assert [spec.name for spec in face(made.model).inputs] == [
        "x", "lower.h0", "lower.c0", "upper.h0",
    ]  # fmt: skip
    assert [(pair.input, pair.output) for pair in made.pairs] == [
        (name, f"{name}.next") for name in ("lower.h0", "lower.c0", "upper.h0")
    ]
    assert made.times == {"x": 1}
    assert face(made.model).inputs[0].shape == (1 if batch == "1" else "B", 1, F)
    x = RNG.normal(size=(1 if batch == "1" else 3, 12, F)).astype(np.float32)
    want, got = outputs(model, {"x": x})["y"], streamed(made, x)
    if many:
        assert isinstance(made.ends["y"], Place)
        np.testing.assert_allclose(np.concatenate([a["y"] for a in got], 1), want, atol=1e-5)
    else:
        assert isinstance(made.ends["y"], Last)
        np.testing.assert_allclose(got[-1]["y"], want, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "last = Gather<axis=1>(seen, minus)  y = MatMul(last, head)",
        "last = Gather<axis=1>(seen, eleven)  y = MatMul(last, head)",
        "e = Constant<value_ints=[11]>() f = Constant<value_ints=[12]>() "
        "l = Slice(seen, e, f, one) last = Squeeze(l, one) y = MatMul(last, head)",
        "zero = Constant<value_ints=[0]>() last = Squeeze(hn, zero) y = MatMul(last, head)",
    ],
    ids=["-1", "T-1", "slice", "hn"],
)
def test_many_to_one_models_answer_at_every_step(body: str) -> None:
    model = own(body, out=f"1,{C}", minus=np.array(-1), eleven=np.array(11))
    made = to_streaming(model)
    x = RNG.normal(size=(1, 12, F)).astype(np.float32)
    got = streamed(made, x)
    np.testing.assert_allclose(got[-1]["y"], outputs(model, {"x": x})["y"], atol=1e-5)
    assert len(got) == 12


@pytest.mark.parametrize(
    "body",
    [
        "flat = Reshape(seen, s12) g = MatMul(flat, head) y = Reshape(g, s1)",
        "flat = Reshape(seen, free) g = MatMul(flat, head) y = Reshape(g, s1)",
        "g = MatMul(seen, head) n = Softmax(g) y = Mul(g, n)",
        "wide = Expand(one_step, s_wide) j = Concat<axis=2>(seen, wide) y = MatMul(j, head2)",
        "g = MatMul(seen, head) t = Transpose<perm=[0,2,1]>(g) c = Conv(t, k) "
        "y = Transpose<perm=[0,2,1]>(c)",
    ],
    ids=["reshape", "reshape -1", "softmax", "expand", "pointwise conv"],
)
def test_constants_that_hold_the_number_of_steps_are_changed(body: str) -> None:
    model = own(
        body,
        s12=np.array([12, H]),
        free=np.array([-1, H]),
        s1=np.array([1, 12, C]),
        one_step=np.arange(H, dtype=np.float32).reshape(1, 1, H) / H,
        s_wide=np.array([1, 12, H]),
        head2=RNG.normal(size=(2 * H, C)).astype(np.float32),
        k=RNG.normal(size=(C, C, 1)).astype(np.float32),
    )
    made = to_streaming(model)
    x = RNG.normal(size=(1, 12, F)).astype(np.float32)
    got = np.concatenate([answers["y"] for answers in streamed(made, x)], 1)
    np.testing.assert_allclose(got, outputs(model, {"x": x})["y"], atol=1e-4)


def test_constant_initial_states_become_initial_values() -> None:
    h0 = RNG.normal(size=(1, 1, H)).astype(np.float32)
    model = parse(
        f"""g (float[12,1,{F}] x) => (float[12,1,1,{H}] y) {{
          [cell] y, hn, cn = LSTM<hidden_size={H}>(x, w, r, b, , h0)
        }}""",
        h0=h0,
        **weights(**CELL),
    )
    made = to_streaming(model)
    np.testing.assert_array_equal(made.initial["cell.h0"], h0)
    assert "cell.c0" not in made.initial
    x = RNG.normal(size=(12, 1, F)).astype(np.float32)
    got = np.concatenate([answers["y"] for answers in streamed(made, x, axis=0)])
    np.testing.assert_allclose(got, outputs(model, {"x": x})["y"], atol=1e-5)


def test_states_that_are_inputs_already_stay() -> None:
    text = f"""g (float[12,1,{F}] x, float[1,1,{H}] h)
            => (float[12,1,1,{H}] y, float[1,1,{H}] {{0}}) {{{{
          [cell] y, hn, cn = LSTM<hidden_size={H}>(x, w, r, b, , h)
          {{1}}
        }}}}"""
    with_output = to_streaming(parse(text.format("hn", ""), **weights(**CELL)))
    assert [(p.input, p.output) for p in with_output.pairs] == [
        ("h", "hn"), ("cell.c0", "cell.c0.next"),
    ]  # fmt: skip
    without = to_streaming(parse(text.format("z", "z = Relu(h)"), **weights(**CELL)))
    assert [(p.input, p.output) for p in without.pairs] == [
        ("h", "h.next"), ("cell.c0", "cell.c0.next"),
    ]  # fmt: skip


def test_a_cell_over_another_axis_keeps_no_state() -> None:
    # x [T, bands, F]: the lower cell runs over the bands of each step, the upper one over time.
    model = parse(
        f"""g (float[12,5,{F}] x) => (float[12,1,1,{H}] y) {{
          bands = Transpose<perm=[1,0,2]>(x)
          zero = Constant<value_ints=[0]>()
          [bandwise] yb, hb = LSTM<hidden_size={H}>(bands, w, r, b)
          one = Constant<value_ints=[1]>()
          last = Transpose<perm=[1,0,2]>(hb)
          [timewise] y, hn = LSTM<hidden_size={H}>(last, v, r, b)
        }}""",
        **weights(**CELL, v=(1, 4 * H, H)),
    )
    made = to_streaming(model)
    assert [pair.input for pair in made.pairs] == ["timewise.h0", "timewise.c0"]
    x = RNG.normal(size=(12, 5, F)).astype(np.float32)
    states = {pair.input: np.zeros((1, 1, H), np.float32) for pair in made.pairs}
    want = outputs(model, {"x": x})["y"]
    for step in range(12):
        got = outputs(made.model, {"x": x[step : step + 1], **states})
        states = {pair.input: got[pair.output] for pair in made.pairs}
        np.testing.assert_allclose(got["y"], want[step : step + 1], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("m = ReduceMean<keepdims=0>(seen, one) y = MatMul(m, head)", "over all steps"),
        ("m = ArgMax<axis=1>(seen) y = Cast<to=1>(m)", "ArgMax over all steps"),
        ("t = Transpose<perm=[0,2,1]>(seen) y = Conv<pads=[2,0]>(t, k3)", "several steps at once"),
        (
            "t = Transpose<perm=[0,2,1]>(seen) y = MaxPool<kernel_shape=[2]>(t)",
            "MaxPool over time",
        ),
        ("t = Transpose<perm=[0,2,1]>(seen) y = MatMul(seen, t)", "every step with every other"),
        ("p = Softmax<axis=1>(seen) y = MatMul(p, head)", "Softmax over the steps"),
        ("p = Add(seen, pos) y = MatMul(p, head)", "an encoding of positions"),
        ("f = Gather<axis=1>(seen, first) y = MatMul(f, head)", "takes some of the steps"),
        ("p = Add(st, hn) y = MatMul(p, head)", "does not know its future"),
        ("p = Concat<axis=1>(seen, seen) y = MatMul(p, head)", "one behind another"),
        ("p = Reshape(seen, pairs) y = MatMul(p, head12)", "across steps"),
        ("p = CumSum(seen, one0) y = MatMul(p, head)", "not known whether CumSum mixes steps"),
    ],
)
def test_what_mixes_steps_is_refused_by_name(body: str, words: str) -> None:
    model = own(
        body,
        out="a,b" if "ReduceMean" in body or "pairs" in body else "a,b,c",
        k3=np.ones((C, H, 3), np.float32),
        pos=np.arange(12 * H, dtype=np.float32).reshape(12, H),
        first=np.array(0),
        pairs=np.array([8, 12]),
        head12=np.ones((12, C), np.float32),
        one0=np.array(1),
    )
    with pytest.raises(UnsupportedModel, match=words) as caught:
        to_streaming(model)
    assert "leave out --streaming" in caught.value.hint


def test_all_offenders_are_listed() -> None:
    model = parse(
        f"""g (float[12,1,{F}] x, int32[1] lengths, float[1,1,{H}] seed) => (float[1,1,{C}] y) {{
          [both] yb, hb = LSTM<hidden_size={H}, direction="bidirectional">(x, w2, r2)
          tt = Transpose<perm=[0,2,1,3]>(yb)
          flat = Reshape(tt, s)
          h0 = Tanh(seed)
          [packed] yp, hp = LSTM<hidden_size={H}>(flat, v, r, b, lengths, h0)
          sq = Squeeze(yp, one1)
          [average] m = ReduceMean(sq, zero0)
          y = MatMul(m, head)
        }}""",
        s=np.array([12, 1, 2 * H]),
        one1=np.array([1]),
        zero0=np.array([0]),
        **weights(
            w2=(2, 4 * H, F), r2=(2, 4 * H, H), v=(1, 4 * H, 2 * H), r=(1, 4 * H, H),
            b=(1, 8 * H), head=(H, C),
        ),
    )  # fmt: skip
    with pytest.raises(UnsupportedModel) as caught:
        to_streaming(model)
    text = str(caught.value)
    for part in (
        "both (LSTM): runs bidirectional",
        "packed (LSTM): takes the lengths of its sequences from 'lengths'",
        "packed (LSTM): its initial state 'h0' is computed from the inputs",
        "average (ReduceMean)",
    ):
        assert part in text


def test_a_model_without_recurrent_nodes_is_refused() -> None:
    model = parse("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    with pytest.raises(UnsupportedModel, match="no LSTM, GRU or RNN node"):
        to_streaming(model)
