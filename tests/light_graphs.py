"""The model-zoo graphs inside the onnx package, with weights drawn: there all are constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.backend.test
import onnx_ir as ir
import pytest

from edgebm.importers import import_model
from edgebm.ir.edit import const
from edgebm.ir.model import Model

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
    "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip
# Ranges of scale, shift, mean and variance.
NORM = ((0.5, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5))


def light_graph(name: str, seed: int = 0) -> Model:
    """The imported graph with He-normal weights and lively norms, without the softmax at its end.

    He et al. 2015, arXiv:1502.01852.
    """
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this onnx package has no {path.name}")
    model, rng = import_model(path), np.random.default_rng(seed)
    for node in model.nodes("Conv", "Gemm", "MatMul", "BatchNormalization"):
        if node.op_type == "BatchNormalization":
            for value, (low, high) in zip(node.inputs[1:], NORM, strict=True):
                _draw(value, lambda s, a=low, b=high: rng.uniform(a, b, s))
            continue
        old = const(node.inputs[1])
        assert old is not None
        rows = node.op_type == "Conv" or node.attributes.get_int("transB", 0)
        gain = np.sqrt(2 / (old[0].size if rows else len(old)))
        _draw(node.inputs[1], lambda s, g=gain: g * rng.standard_normal(s, np.float32))
    last = model.graph.graph.outputs[0].producer()
    if last is not None and last.op_type == "Softmax" and last.inputs[0] is not None:
        model.graph.graph.outputs[0] = last.inputs[0]  # scores: a softmax hides them
    return model


def _draw(value: ir.Value | None, drawn) -> None:
    old = const(value)
    assert value is not None
    assert old is not None
    value.const_value = ir.tensor(drawn(old.shape).astype(np.float32), name=value.name)
