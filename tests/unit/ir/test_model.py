from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgebm.errors import ModelError
from edgebm.ir import model as model_module
from edgebm.ir.edit import const
from edgebm.ir.model import Model

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
g (float[N,3] x) => (float[N,2] y) { y = MatMul(x, w) }"""
W = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_bytes_and_file_hold_the_same_model(tmp_path: Path) -> None:
    model = Model.parse(TEXT, w=W)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.to_bytes())
    loaded = Model.load(path)
    assert loaded.source == str(path)
    weight = const(loaded.graph.graph.initializers["w"])
    np.testing.assert_array_equal(weight, W)  # type: ignore[arg-type]
    assert loaded.to_bytes() == loaded.clone().to_bytes()


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"m\.onnx is not a readable ONNX model"):
        Model.load(path)


def test_a_clone_is_independent_but_shares_weights() -> None:
    model = Model.parse(TEXT, w=W)
    copy = model.clone()
    copy.graph.graph.inputs[0].name = "other"
    assert model.graph.graph.inputs[0].name == "x"
    ours, theirs = (m.graph.graph.initializers["w"] for m in (model, copy))
    assert ours.const_value is theirs.const_value


def test_counts_of_weights() -> None:
    model = Model.parse(TEXT, w=W)
    graph = model.graph.graph
    assert (model.param_count(), model.weights_bytes()) == (6, 24)
    shared = graph.initializers["w"].const_value
    graph.register_initializer(ir.val("again", const_value=shared))
    graph.register_initializer(ir.val("ids", const_value=ir.tensor(np.arange(3))))
    assert (model.param_count(), model.weights_bytes()) == (6, 24 + 24 + 24)


def test_a_model_over_the_protobuf_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "PROTOBUF_LIMIT_BYTES", 24)
    with pytest.raises(ModelError, match="GiB of weights"):
        Model.parse(TEXT, w=W).to_bytes()


def test_nodes_can_be_asked_for_by_type() -> None:
    model = Model.parse(TEXT, w=W)
    assert [node.op_type for node in model.nodes()] == ["MatMul"]
    assert list(model.nodes("Conv")) == []
    assert const(next(model.nodes("MatMul", "Conv")).inputs[1]) is not None
