"""What the tests of recurrent layers share: sizes, the runtime, and how close is equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edgebm.importers import import_model
from edgebm.ir.model import Model

Array = NDArray[Any]
B, T, IN, H = 3, 7, 5, 8
KINDS = ("LSTM", "GRU", "RNN")


def run(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feeds))
    return outputs


def assert_close(got: Sequence[Array], expected: Sequence[Array]) -> None:
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6)


def ops(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.nodes())


def check_file(data: bytes, feeds: Mapping[str, Array]) -> Model:
    model = import_model(onnx.load_from_string(data))
    assert_close(run(model.to_bytes(), feeds), run(data, feeds))
    return model
