"""The model-zoo graphs that come with the onnx package, opset 9, weights made by nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.backend.test
import onnxruntime as ort
import pytest

from edgebm.importers import import_model
from edgebm.ir.face import face
from edgebm.ir.model import Model

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
# Name: nodes left, parameters in millions. Published sizes of the networks.
ZOO = {
    "bvlc_alexnet": (22, 60.97),
    "densenet121": (668, 8.15),
    "inception_v1": (142, 7.0),
    "inception_v2": (371, 11.23),
    "resnet50": (176, 25.61),
    "shufflenet": (203, 1.42),
    "squeezenet": (65, 1.24),
    "vgg19": (44, 143.67),
    "zfnet512": (22, 87.25),
}


def load(name: str) -> Model:
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this onnx package has no {path.name}")
    return import_model(path)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_zoo(name: str) -> None:
    model = load(name)
    nodes, millions = ZOO[name]
    kinds = {node.op_type for node in model.nodes()}
    assert len(model.graph.graph) <= nodes
    assert model.param_count() / 1e6 == pytest.approx(millions, abs=0.005)
    assert not kinds & {"ConstantOfShape", "Constant", "Dropout", "Unsqueeze", "Identity"}
    (given,), (found,) = face(model)
    assert given.shape == (1, 3, 224, 224)
    assert found.shape[1] == 1000


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1"])
def test_the_answers_are_those_of_the_file(name: str) -> None:
    """Softmax of opset 9 over [1, 1000, 1, 1] is among the changes made."""
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    model = load(name)
    ours = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    theirs = ort.InferenceSession(model.source, providers=["CPUExecutionProvider"])
    for got, expected in zip(
        ours.run(None, {ours.get_inputs()[0].name: x}),
        theirs.run(None, {theirs.get_inputs()[0].name: x}),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
