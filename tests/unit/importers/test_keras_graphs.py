"""Graphs as Keras and tf2onnx write them: canonical form, answers, INT8. None needs Keras.

The files come from `tests/keras_graphs/make.py`; each carries an input and Keras' own answer.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgebm.errors import UnsupportedModel
from edgebm.exec.collect import FloatRunner
from edgebm.importers import import_model
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.verbs.quantize import quantize

FOLDER = Path(__file__).parents[2] / "keras_graphs"
LEFT = {
    "tensorflow_cnn": {"Transpose": 1, "Conv": 2, "MaxPool": 1, "MatMul": 2, "Add": 2},
    "torch_cnn": {"Transpose": 1, "Conv": 2, "MaxPool": 1, "MatMul": 2, "Add": 2},
    "tensorflow_residual": {"Transpose": 1, "Conv": 4, "Add": 3, "Mul": 2, "ReduceMean": 1},
    "torch_residual": {"Transpose": 1, "Conv": 4, "Add": 3, "Mul": 2, "ReduceMean": 1},
    "tensorflow_lstm": {"Transpose": 2, "LSTM": 1, "MatMul": 1, "Reshape": 0, "Shape": 0},
    "tensorflow_gru": {"Transpose": 2, "GRU": 1, "MatMul": 1, "Reshape": 0, "Loop": 0},
    "tensorflow_gru_before": {"GRU": 1, "MatMul": 1, "Loop": 0},
    "tensorflow_simple_rnn": {"RNN": 1, "MatMul": 1, "Loop": 0},
    "tensorflow_bidirectional": {"GRU": 2, "MatMul": 1, "Loop": 0},
}


def example(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `make.py` put into the file: an input, and what Keras answers."""
    texts = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    arrays = []
    for key in ("x", "y"):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(bytes.fromhex(texts[key]))
        arrays.append(onnx.numpy_helper.to_array(tensor))
    return arrays[0], arrays[1]


def run(model: Model, x: np.ndarray) -> np.ndarray:
    graph = model.graph.graph
    label = name(graph.outputs[0])
    return FloatRunner(model, [label]).run({name(graph.inputs[0]): x})[label]


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_is_what_the_layers_are(case):
    model = import_model(FOLDER / f"{case}.onnx")
    counts = Counter(node.op_type for node in model.nodes())
    assert {op: counts[op] for op in LEFT[case]} == LEFT[case]


@pytest.mark.parametrize("case", LEFT)
def test_it_answers_as_keras_did(case):
    path = FOLDER / f"{case}.onnx"
    x, wanted = example(path)
    found = run(import_model(path), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "case", [case for case in LEFT if "_cnn" not in case and "res" not in case]
)
def test_other_lengths_and_batches_answer_as_the_loop_does(case):
    path = FOLDER / f"{case}.onnx"
    before = Model.load(path)
    after = import_model(path)
    for batch, steps in ((1, 1), (3, 11)):
        x = np.random.default_rng(steps).normal(size=(batch, steps, 5)).astype(np.float32)
        np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-4, atol=1e-5)


def test_free_axes_are_not_called_as_inference_calls_its_own():
    before = Model.load(FOLDER / "tensorflow_lstm.onnx").graph.graph.inputs[0]
    assert str(before.shape[0].value).startswith("unk__")
    after = import_model(FOLDER / "tensorflow_lstm.onnx").graph.graph.inputs[0]
    assert [str(dim.value)[:5] for dim in list(after.shape)[:2]] == ["free_", "free_"]
    assert after.shape[0] != after.shape[1]


def test_the_face_stays_channels_last():
    value = import_model(FOLDER / "tensorflow_cnn.onnx").graph.graph.inputs[0]
    assert value.name == "image"
    assert list(value.shape)[1:] == [12, 12, 3]


def test_a_masked_layer_is_refused_with_what_to_do():
    with pytest.raises(UnsupportedModel, match=r"Loop .* mask .*mask_zero=True"):
        import_model(FOLDER / "tensorflow_masked.onnx")


def test_keras_gates_are_those_of_the_reset_behind_the_product():
    (gru,) = import_model(FOLDER / "tensorflow_gru.onnx").nodes("GRU")
    assert gru.attributes.get_int("linear_before_reset", 0) == 1
    (gru,) = import_model(FOLDER / "tensorflow_gru_before.onnx").nodes("GRU")
    assert gru.attributes.get_int("linear_before_reset", 0) == 0


@pytest.mark.parametrize("case", ["tensorflow_cnn", "torch_cnn", "tensorflow_residual"])
def test_every_product_is_an_integer(case):
    shape = list(import_model(FOLDER / f"{case}.onnx").graph.graph.inputs[0].shape)[1:]
    samples = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    done = quantize(FOLDER / f"{case}.onnx", samples, runtime="onnxruntime")
    products = list(done.nodes("Conv", "MatMul", "Gemm"))
    assert len(products) == LEFT[case]["Conv"] + LEFT[case].get("MatMul", 1)
    for node in products:
        sides = {v.producer().op_type for v in node.inputs[:2] if v.producer() is not None}
        assert sides == {"DequantizeLinear"}, node.name
