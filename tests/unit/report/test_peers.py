"""What is said of peers; where a peer is installed, it is asked."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import Array, parse

from edgebm.ir.model import Model
from edgebm.report.peers import what_peers_do

OPS = ("LSTM", "GRU", "RNN")
DIRECTIONS = ("forward", "reverse", "bidirectional")


@pytest.mark.parametrize("op", OPS)
def test_each_peer_has_one_sentence_for_each_cell(op: str) -> None:
    for after, direction, constant in itertools.product(
        (False, True) if op == "GRU" else (False,), DIRECTIONS, (False, True)
    ):
        said = what_peers_do(
            op,
            resets_after=after,
            direction=direction,
            initial_state_is_constant=constant,
        )
        for peer in ("NNCF", "quantize_dynamic", "quantize_static", "TensorRT"):
            assert sum(peer in sentence for sentence in said) == 1
        assert all(sentence.endswith(".") for sentence in said)


def sentence(peer: str, op: str, *, after: bool = False, constant: bool = True) -> str:
    said = what_peers_do(
        op, resets_after=after, direction="forward", initial_state_is_constant=constant
    )
    (found,) = (text for text in said if text.startswith(peer))
    return found


def test_an_lstm_with_a_given_state_is_integer_and_wrong() -> None:
    assert "stays" not in sentence("NNCF", "LSTM", constant=False)
    assert "relative error of about 0.3" in sentence("NNCF", "LSTM", constant=False)
    assert "leaves it in f32" in sentence("NNCF", "LSTM", constant=True)
    assert "linear_before_reset=1" in sentence("NNCF", "GRU", after=True, constant=False)


@pytest.mark.parametrize(("op", "direction"), [("Conv", "forward"), ("GRU", "up")])
def test_another_op_or_direction_is_refused(op: str, direction: str) -> None:
    with pytest.raises(ValueError, match=rf"'{op if op == 'Conv' else direction}'"):
        what_peers_do(op, resets_after=False, direction=direction, initial_state_is_constant=True)


def model(op: str, *, behind: bool) -> Model:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    text = f"""g (float[5,1,8] x) => (float[5,1,1,8] y) {{
      [cell] y = {op}<hidden_size=8>(x, w, r)
    }}"""
    made = parse(text, w=normal(1, gates * 8, 8), r=normal(1, gates * 8, 8))
    if behind:
        cell = next(made.nodes(op))
        for index in (1, 2):
            value = cell.inputs[index]
            node = ir.node("Concat", [value], {"axis": 1})
            node.outputs[0].name = f"joined_{index}"
            made.graph.graph.insert_before(cell, node)
            cell.replace_input_with(index, node.outputs[0])
    return made


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("behind", [False, True])
def test_onnxruntime_does_with_weights_what_is_said(
    op: str, tmp_path: Path, *, behind: bool
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, made = tmp_path / "source.onnx", tmp_path / "made.onnx"
    source.write_bytes(model(op, behind=behind).to_bytes())
    quantization.quantize_dynamic(source, made)
    ops = {node.op_type for node in ir.load(made).graph}
    integer = "DynamicQuantizeLSTM" in ops
    text = sentence("ONNX Runtime 1.32 (quantize_dynamic)", op)
    assert integer != (op in ops)
    assert integer == ("makes it INT8" in text and not behind)
