"""Recurrent nodes in ONNX files of all opsets and converters, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from recurrent_forms import IN, KINDS, Array, B, H, T, assert_close, check_file, ops, run

from edgebm.errors import UnsupportedModel
from edgebm.importers import import_model
from edgebm.ir.recurrent import cell_of

RNG = np.random.default_rng(0)
GATE = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weights(kind: str, directions: int = 1) -> dict[str, Array]:
    rows = GATE[kind] * H
    shapes = {"w": (directions, rows, IN), "r": (directions, rows, H), "b": (directions, 2 * rows)}
    return {k: RNG.normal(scale=0.4, size=s).astype(np.float32) for k, s in shapes.items()}


def foreign(text: str, opset: int, **constants: Array) -> bytes:
    proto = onnx.parser.parse_model(f'<ir_version: 7, opset_import: ["" : {opset}]>\n{text}')
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto.SerializeToString()  # type: ignore[no-any-return]


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 19])
def test_every_opset(kind: str, opset: int) -> None:
    text = f"""g (float[T,N,{IN}] x) => (float[T,2,N,{H}] y, float[2,N,{H}] h) {{
      y, h = {kind}<hidden_size={H}, direction="bidirectional">(x, w, r, b)
    }}"""
    model = check_file(foreign(text, opset, **weights(kind, 2)), {"x": normal(T, B, IN)})
    assert cell_of(next(model.nodes(kind))) is not None


def test_states_packed_into_one_tensor() -> None:
    """One state tensor holds h and c; the new one is joined again."""
    text = f"""g (float[1,N,{IN}] x, float[2,N,{H}] s) => (float[1,N,{H}] y, float[2,N,{H}] t)
      <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}> {{
      h = Slice(s, zero, one, zero)
      c = Slice(s, one, two, zero)
      a, k, m = LSTM<hidden_size={H}>(x, w, r, b, , h, c)
      y = Squeeze(a, one)
      t = Concat<axis=0>(k, m)
    }}"""
    data = foreign(text, 13, **weights("LSTM"))
    model = check_file(data, {"x": normal(1, B, IN), "s": normal(2, B, H)})
    cell = cell_of(next(model.nodes("LSTM")))
    assert cell is not None
    assert cell.initial_h is not None


def test_time_major_transposes_and_zeros_of_converters() -> None:
    """As tf2onnx writes a Keras layer: transposes around, states spread over the batch."""
    text = f"""g (float[N,{T},{IN}] x) => (float[N,{T},{H}] y, float[N,{H}] last)
      <int64[1] one = {{1}}, int64[1] zero = {{0}}, int64[1] units = {{{H}}}, float z = {{0}}> {{
      xt = Transpose<perm=[1,0,2]>(x)
      s = Shape(xt)
      two = Constant<value_ints=[2]>()
      n = Slice(s, one, two, zero)
      hs = Concat<axis=0>(n, units)
      h0 = Expand(z, hs)
      h1 = Unsqueeze(h0, zero)
      seven = Constant<value_ints=[{T}]>()
      l = Cast<to=6>(seven)
      lens = Expand(l, n)
      a, k = GRU<hidden_size={H}, linear_before_reset=1>(xt, w, r, b, lens, h1)
      f = Squeeze(a, one)
      y = Transpose<perm=[1,0,2]>(f)
      last = Squeeze(k, zero)
    }}"""
    model = check_file(foreign(text, 13, **weights("GRU")), {"x": normal(B, T, IN)})
    cell = cell_of(next(model.nodes("GRU")))
    assert cell is not None
    assert cell.initial_h is None
    assert cell.lengths is None
    assert cell.resets_after


def test_lengths_that_differ_stay() -> None:
    text = f"""g (float[{T},{B},{IN}] x) => (float[{T},1,{B},{H}] y) {{
      y = LSTM<hidden_size={H}>(x, w, r, b, lens)
    }}"""
    for lens, kept in (([T, T, T], False), ([T, T - 1, 2], True)):
        data = foreign(text, 14, lens=np.array(lens, np.int32), **weights("LSTM"))
        model = check_file(data, {"x": normal(T, B, IN)})
        cell = cell_of(next(model.nodes("LSTM")))
        assert cell is not None
        assert (cell.lengths is not None) is kept


@pytest.mark.parametrize(
    ("kind", "attributes", "standard"),
    [
        ("LSTM", "clip=0.5", False),
        ("LSTM", 'activations=["Sigmoid","Tanh","Tanh"]', True),
        ("LSTM", 'activations=["HardSigmoid","Tanh","Tanh"]', False),
        ("GRU", 'activations=["sigmoid","tanh"], linear_before_reset=0', True),
        ("GRU", 'activations=["Sigmoid","Relu"], linear_before_reset=1', False),
        ("RNN", 'activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.1]', False),
        ("LSTM", "input_forget=0", True),
    ],
)
def test_attributes(kind: str, attributes: str, standard: bool) -> None:
    text = f"""g (float[{T},N,{IN}] x) => (float[{T},1,N,{H}] y) {{
      y = {kind}<hidden_size={H}, {attributes}>(x, w, r, b)
    }}"""
    model = check_file(foreign(text, 14, **weights(kind)), {"x": normal(T, B, IN)})
    cell = cell_of(next(model.nodes(kind)))
    assert cell is not None
    assert cell.is_standard is standard
    assert ("activations" in cell.node.attributes) is (not standard and "activ" in attributes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_nodes_become_time_first(kind: str, direction: str) -> None:
    """ONNX Runtime refuses `layout=1`, so the standard's own reference is the judge."""
    d = 2 if direction == "bidirectional" else 1
    outs, states = ["y", "h", "c"], ["h0", "c0"]
    count = 2 if kind == "LSTM" else 1
    face = ", ".join(f"float[{B},{d},{H}] {s}" for s in states[:count])
    ends = ", ".join(f"float[{B},{d},{H}] {s}" for s in outs[1 : 1 + count])
    text = f"""g (float[{B},{T},{IN}] x, {face}) => (float[{B},{T},{d},{H}] y, {ends}) {{
      {", ".join(outs[: 1 + count])} = {kind}<hidden_size={H}, layout=1, direction="{direction}">
        (x, w, r, b, , {", ".join(states[:count])})
    }}"""
    data = foreign(text, 14, **weights(kind, d))
    feeds = {"x": normal(B, T, IN), "h0": normal(B, d, H), "c0": normal(B, d, H)}
    feeds = {label: feeds[label] for label in ("x", *states[:count])}
    expected = ReferenceEvaluator(onnx.load_from_string(data)).run(None, dict(feeds))
    model = import_model(onnx.load_from_string(data))
    assert "layout" not in next(model.nodes(kind)).attributes
    assert_close(run(model.to_bytes(), feeds), expected)


def test_output_sequence_of_opset_1_is_left_out() -> None:
    text = f"""g (float[{T},N,{IN}] x) => (float[{T},1,N,{H}] y) {{
      y = LSTM<hidden_size={H}, output_sequence=1>(x, w, r, b)
    }}"""
    model = import_model(onnx.load_from_string(foreign(text, 6, **weights("LSTM"))))
    node = next(model.nodes("LSTM"))
    assert "output_sequence" not in node.attributes
    assert run(model.to_bytes(), {"x": normal(T, B, IN)})[0].shape == (T, 1, B, H)


def test_the_hidden_size_is_read_from_the_weights() -> None:
    text = f"""g (float[{T},N,{IN}] x) => (float[a,b,c,d] y) {{ y = LSTM(x, w, r, b) }}"""
    model = import_model(onnx.load_from_string(foreign(text, 14, **weights("LSTM"))))
    assert next(model.nodes("LSTM")).attributes.get_int("hidden_size") == H


def test_weights_that_are_computed_are_no_cell() -> None:
    text = f"""g (float[{T},N,{IN}] x, float[1,{H},{IN}] w) => (float[{T},1,N,{H}] y) {{
      y = RNN<hidden_size={H}>(x, w, r)
    }}"""
    data = foreign(text, 14, r=weights("RNN")["r"])
    model = check_file(data, {"x": normal(T, B, IN), "w": normal(1, H, IN)})
    assert cell_of(next(model.nodes("RNN"))) is None


def test_a_split_into_a_list_whose_parts_are_taken_by_number() -> None:
    text = """g (float[N,7] x) => (float[N,3] a, float[N,1] c)
      <int64 size = {3}, int64 zero = {0}, int64 last = {-1}> {
      pieces = SplitToSequence<axis=1>(x, size)
      a = SequenceAt(pieces, zero)
      c = SequenceAt(pieces, last)
    }"""
    model = check_file(foreign(text, 13), {"x": normal(B, 7)})
    assert ops(model) == {"Split": 1}


def test_a_split_into_rows_without_their_axis() -> None:
    text = """g (float[3,N] x) => (float[N] a)
      <int64 one = {1}> {
      pieces = SplitToSequence<axis=0, keepdims=0>(x)
      a = SequenceAt(pieces, one)
    }"""
    model = check_file(foreign(text, 13), {"x": normal(3, B)})
    assert set(ops(model)) == {"Split", "Squeeze"}


def test_a_list_read_at_a_computed_place_is_refused() -> None:
    text = """g (float[3,N] x, int64 i) => (float[1,N] a) {
      pieces = SplitToSequence<axis=0>(x)
      a = SequenceAt(pieces, i)
    }"""
    with pytest.raises(UnsupportedModel, match="SplitToSequence"):
        import_model(onnx.load_from_string(foreign(text, 13)))
