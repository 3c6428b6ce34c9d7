"""What the rules find in files of ONNX Runtime's own quantizer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from tiny_models import IDS, IMAGES, cnn, transformer

import edgebm
from edgebm.ir.model import Model

# The settings for which ONNX Runtime's quantizer comes nearest to what TensorRT asks for.
SYMMETRIC: dict[str, Any] = {
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul", "Gemm", "Add", "Relu"],
        "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "MatMul": 1, "Gemm": 0},
    },
}


class _Feeds(CalibrationDataReader):
    def __init__(self, name: str, samples: list[np.ndarray[Any, Any]]) -> None:
        self._left: Iterator[dict[str, Any]] = iter([{name: sample} for sample in samples])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def _quantized(model: Model, folder: Path, **settings: Any) -> Path:
    source, made = folder / "float.onnx", folder / "quantized.onnx"
    source.write_bytes(model.to_bytes())
    image = model.graph.graph.inputs[0].name == "image"
    samples = [x[None] for x in IMAGES[:2]] if image else [x[None] for x in IDS[:2]]
    feeds = _Feeds("image" if image else "ids", samples)
    logging.disable(logging.WARNING)  # it advises to pre-process the model, on the root logger
    try:
        quantize_static(source, made, feeds, **settings)
    finally:
        logging.disable(logging.NOTSET)
    return made


def _codes(path: Path, version: str = "10.3") -> Counter[str]:
    return Counter(f.rule.code for f in edgebm.lint(path, f"tensorrt:{version}").findings)


def _types(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantizers")


def test_a_cnn_with_unsigned_activations(folder: Path) -> None:
    path = _quantized(cnn(), folder, activation_type=QuantType.QUInt8)
    found = _codes(path)
    # Every activation is uint8, and the bias of every quantized layer is int32.
    assert found["E02"] == _types(path)["QuantizeLinear"]
    assert found["E03"] >= 2
    assert 0 < found["E01"] <= found["E02"]
    assert {"E05", "E07", "E08", "E09", "E10"}.isdisjoint(found)


def test_a_cnn_with_default_settings(folder: Path) -> None:
    path = _quantized(cnn(), folder)
    found = _codes(path)
    assert found["E01"] > 0
    assert found["E02"] in {0, _types(path)["QuantizeLinear"]}  # its default is int8 by now
    assert found["E03"] >= 2
    assert found["W11"] == 1


def test_a_cnn_with_symmetric_settings(folder: Path) -> None:
    path = _quantized(cnn(), folder, **SYMMETRIC)
    old, new = _codes(path), _codes(path, "10.16")
    assert {code for code in old if code.startswith("E")} == {"E12"}  # no kernel_shape
    assert not [code for code in new if code.startswith("E")]
    assert new["W03"] == 1  # BatchNormalization was not folded before
    assert new["W08"] == 1  # five classes, one row
    assert {"W01", "W06", "W11"}.isdisjoint(new)


def test_a_transformer(folder: Path) -> None:
    asymmetric = _codes(_quantized(transformer(), folder))
    symmetric = _codes(_quantized(transformer(), folder, **SYMMETRIC))
    assert asymmetric["E01"] > 0
    assert asymmetric["W04"] >= symmetric["W04"] > 0  # LayerNormalization and Softmax
    assert not [code for code in symmetric if code.startswith("E")]
