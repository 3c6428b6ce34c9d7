from __future__ import annotations

import numpy as np
import pytest
from graphs import face, parse
from stateful_models import LSTM, C, F, H, decoder_step, lstm_step, weights

from edgebm.errors import UsageError
from edgebm.ir.given_states import given_states
from edgebm.ir.model import Model
from edgebm.ir.state_names import match_names
from edgebm.ir.states import find_states, growing_axes
from edgebm.spec import TensorSpec


def found(model: Model) -> list[tuple[str, str]]:
    return [(pair.input, pair.output) for pair in find_states(model)]


def test_stacked_states_of_two_layers_are_found_by_the_structure() -> None:
    pairs = find_states(lstm_step())
    assert [(p.input, p.output) for p in pairs] == [("h", "hn"), ("c", "cn")]
    assert all("lower, upper" in pair.how for pair in pairs)


@pytest.mark.parametrize(("order", "pairs"), [("an, bn", [("s", "t")]), ("bn, an", [])])
def test_the_order_of_what_is_joined_is_computed(order: str, pairs: list[tuple[str, str]]) -> None:
    # Names that say nothing: only the structure can tell.
    model = parse(
        f"""g (float[1,1,{F}] x, float[2,1,{H}] s) => (float[2,1,{H}] t) {{
          a, b = Split<axis=0, num_outputs=2>(s)
          y, an, unused = LSTM<hidden_size={H}>(x, w0, r0, b0, , a)
          one = Constant<value_ints=[1]>()
          z = Squeeze(y, one)
          v, bn, unused2 = LSTM<hidden_size={H}>(z, w1, r1, b1, , b)
          t = Concat<axis=0>({order})
        }}""",
        **weights(**{key: shape for key, shape in LSTM.items() if key != "head"}),
    )
    assert found(model) == pairs


def test_hidden_and_cell_state_in_one_tensor_and_a_batch_in_front() -> None:
    model = parse(
        f"""g (float[batch,1,{F}] x, float[batch,2,{H}] s) => (float[batch,2,{H}] t) {{
          xt = Transpose<perm=[1,0,2]>(x)
          st = Transpose<perm=[1,0,2]>(s)
          h, c = Split<axis=0, num_outputs=2>(st)
          y, hn, cn = LSTM<hidden_size={H}>(xt, w0, r0, b0, , h, c)
          j = Concat<axis=0>(hn, cn)
          t = Transpose<perm=[1,0,2]>(j)
        }}""",
        **weights(w0=LSTM["w0"], r0=LSTM["r0"], b0=LSTM["b0"]),
    )
    assert found(model) == [("s", "t")]


def test_the_only_step_of_the_sequence_is_the_last_state() -> None:
    model = parse(
        f"""g (float[1,1,{F}] x, float[1,1,{H}] s) => (float[1,1,1,{H}] y, float[1,1,{H}] t) {{
          y, unused = GRU<hidden_size={H}>(x, w, r, b, , s)
          one = Constant<value_ints=[0]>()
          t = Squeeze(y, one)
        }}""",
        **weights(w=(1, 3 * H, F), r=(1, 3 * H, H), b=(1, 6 * H)),
    )
    assert found(model) == [("s", "t")]


def test_caches_are_found_by_name_and_grow() -> None:
    model = decoder_step()
    assert found(model) == [("past_k", "present_k"), ("past_v", "present_v")]
    assert growing_axes(face(model).inputs, ["past_k", "past_v"]) == {"past"}
    assert found(decoder_step(names=False)) == []


def match(inputs: list[str], outputs: list[str]) -> list[tuple[str, str]]:
    one, other = ([TensorSpec(n, "float32", (1,)) for n in side] for side in (inputs, outputs))
    return [(a.name, b.name) for a, b in match_names(one, other)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("h_in", "h_out"),
        ("h0", "hn"),
        ("c_0", "c_n"),
        ("h", "hn"),
        ("state", "stateN"),
        ("state", "new_state"),
        ("state", "next_state"),
        ("hidden_in", "hidden_out"),
        ("cache_in", "cache_out"),
        ("prev_x", "x"),
        ("past_x", "present_x"),
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.11.value", "present_key_values.11.value"),
    ],
)
def test_names_of_a_pair(before: str, after: str) -> None:
    assert match(["u", before], ["v", after]) == [(before, after)]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["image_in"], ["image_out"]),  # what goes in and out is no state for that
        (["x"], ["x_out"]),
        (["a", "b"], ["c", "d"]),
        (["state"], ["new_state", "next_state"]),  # not unique
        (["prev_x", "past_x"], ["x"]),
    ],
)
def test_names_that_say_nothing_or_too_much(inputs: list[str], outputs: list[str]) -> None:
    assert match(inputs, outputs) == []


def test_names_are_not_believed_where_no_input_would_be_left() -> None:
    model = parse(
        "g (float[1,4] state_in) => (float[1,4] state_out) { state_out = Relu(state_in) }"
    )
    assert found(model) == []


def test_names_are_not_believed_where_shapes_differ() -> None:
    model = parse(
        "g (float[1,4] x, float[1,4] h_in) => (float[1,2] h_out) { y = Add(x, h_in) "
        "h_out = MatMul(y, w) }",
        w=np.ones((4, 2), np.float32),
    )
    assert found(model) == []


def test_given_pairs() -> None:
    inputs, outputs = face(lstm_step()).inputs, face(lstm_step()).outputs
    pairs = given_states(["h:hn", ("c", "cn")], inputs, outputs)
    assert [str(pair) for pair in pairs] == ["h:hn (given)", "c:cn (given)"]
    assert given_states(["none"], inputs, outputs) == given_states([], inputs, outputs) == ()


def test_names_may_have_colons() -> None:
    inputs = [TensorSpec("x:0", "float32", (1,)), TensorSpec("h:0", "float32", (1,))]
    outputs = [TensorSpec("y:0", "float32", (1,)), TensorSpec("h:1", "float32", (1,))]
    (pair,) = given_states(["h:0:h:1"], inputs, outputs)
    assert (pair.input, pair.output) == ("h:0", "h:1")


def test_shared_axes_must_stay_and_growing_ones_need_not() -> None:
    inputs = [
        TensorSpec("x", "float32", ("batch", 3)),
        TensorSpec("h", "float32", ("batch", 4)),
        TensorSpec("k", "float32", ("batch", "past")),
    ]
    outputs = [
        TensorSpec("one", "float32", (1, 4)),
        TensorSpec("same", "float32", ("batch", 4)),
        TensorSpec("unknown", "float32", ("one_dim0", 4)),
        TensorSpec("grown", "float32", ("batch", "total")),
        TensorSpec("window", "float32", ("batch", 16)),
    ]
    for output in ("same", "unknown"):
        assert given_states([f"h:{output}"], inputs, outputs)
    for output in ("grown", "window"):
        assert given_states([f"k:{output}"], inputs, outputs)
    with pytest.raises(UsageError, match=r"'one' has shape \[1, 4\] and 'h' \[batch, 4\]"):
        given_states(["h:one"], inputs, outputs)


def test_all_faults_of_given_pairs_come_at_once() -> None:
    side = face(lstm_step())
    given = ["hh:hn", "c:y", "c:cn", "h:cn", "nonsense"]
    with pytest.raises(UsageError) as caught:
        given_states(given, side.inputs, side.outputs)
    text = str(caught.value)
    for part in (
        "there is no input 'hh'; did you mean 'h'?",
        f"'y' has shape [1, 1, {C}] and 'c' [2, 1, {H}]",
        "input 'c' is given twice",
        "output 'cn' is given twice",
        "'nonsense' does not read as INPUT:OUTPUT",
    ):
        assert part in text
    assert "--state none" in caught.value.hint


def test_dtypes_must_agree_and_an_input_must_be_left() -> None:
    one = [TensorSpec("x", "float32", (1,)), TensorSpec("n", "int64", (1,))]
    other = [TensorSpec("y", "float32", (1,)), TensorSpec("m", "int64", (1,))]
    with pytest.raises(UsageError, match="'y' is float32 and 'n' int64"):
        given_states(["n:y"], one, other)
    with pytest.raises(UsageError, match="no step could be fed"):
        given_states(["n:m", "x:y"], one, other)
