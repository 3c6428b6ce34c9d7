"""What the builders make of a graph, and what they say when a runtime refuses it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import nothing, parse, quantized, random_model, samples

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends import openvino as openvino_backend
from edgebm.backends.dialects import ONNXRUNTIME_CPU, OPENVINO_CPU
from edgebm.backends.qdq import lower
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.search.build import BUILD

TEXT = """g (float[1,3,8,8] x) => (float[1,4,1,1] y) {
  h = Conv(x, w, b)
  r = Relu(h)
  y = GlobalAveragePool(r)
}"""


def model() -> Model:
    return random_model(TEXT, w=(4, 3, 3, 3), b=(4,))


@pytest.mark.parametrize("runtime", sorted(BUILD))
def test_equal_graphs_give_equal_files(runtime: str) -> None:
    assert BUILD[runtime](model()) == BUILD[runtime](model())


@pytest.mark.parametrize("dialect", [ONNXRUNTIME_CPU, OPENVINO_CPU], ids=lambda d: d.runtime)
def test_a_lowered_graph_is_valid_onnx_of_the_same_opset(dialect) -> None:
    lowered, _ = quantized(model(), dialect)
    proto = onnx.load(io.BytesIO(lowered.to_bytes()))
    onnx.checker.check_model(proto, full_check=True)
    assert {o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")} == {20}


def test_openvino_files_hold_float_weights_in_full() -> None:
    files = openvino_backend.build(model())
    assert set(files) == {"model.xml", "model.bin"}
    assert len(files["model.bin"]) >= 4 * 3 * 9 * 4


def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    openvino_backend.build(model())
    onnxruntime_backend.executed_layers(onnxruntime_backend.build(model()))
    assert list(tmp_path.iterdir()) == []


def broken() -> Model:
    """Legal in structure, but no runtime knows the operator."""
    bad = model()
    next(bad.nodes("Relu")).op_type = "Relux"
    return bad


def test_a_refusal_carries_the_vendors_words() -> None:
    with pytest.raises(
        BackendFailed, match=r"OpenVINO .* does not convert the model: (?s:.*)Relux"
    ):
        openvino_backend.build(broken())
    with pytest.raises(BackendFailed, match="does not load the model"):
        onnxruntime_backend.executed_layers(onnxruntime_backend.build(broken()))


def test_executed_layers_are_counted_by_precision() -> None:
    plain = onnxruntime_backend.executed_layers(onnxruntime_backend.build(model()))
    assert plain == {"f32": 1}
    lowered, _ = quantized(model(), ONNXRUNTIME_CPU)
    found = onnxruntime_backend.executed_layers(onnxruntime_backend.build(lowered))
    assert found.get("int8", 0) >= 1
    assert "f32" not in found


def test_lowering_leaves_its_input_alone_and_keeps_names() -> None:
    from graphs import decide

    decided, _ = decide(model(), [ONNXRUNTIME_CPU], samples(model()))
    before = decided.to_bytes()
    lowered, _ = lower(decided, ONNXRUNTIME_CPU, nothing)
    assert decided.to_bytes() == before
    kept = {v.name for node in decided.nodes() for v in node.outputs}
    assert kept <= {v.name for node in lowered.nodes() for v in node.outputs}
    names = [value.name for node in lowered.nodes() for value in node.outputs]
    assert len(names) == len(set(names))


def test_names_that_look_like_ours_do_not_collide() -> None:
    text = """g (float[1,6] x) => (float[1,6] y) {
      ["x.q"] h = MatMul(x, w)
      ["x.dq"] y = MatMul(h, w)
    }"""
    source = random_model(text.replace('["x.q"]', "[a]").replace('["x.dq"]', "[b]"), w=(6, 6))
    for node, value in zip(source.nodes(), ("x.q", "w.q"), strict=True):
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = value
        node.name = f"{value}.dq"
    lowered, _ = quantized(source, ONNXRUNTIME_CPU)
    onnx.checker.check_model(ir.to_proto(lowered.graph), full_check=True)


def test_weights_are_stored_once_as_int8() -> None:
    lowered, _ = quantized(model(), ONNXRUNTIME_CPU)
    stored = lowered.graph.graph.initializers
    assert "w" not in stored, "the float weight is gone"
    held = stored["w.q"].const_value
    assert held is not None
    assert str(held.dtype) == "INT8"
    assert "b" not in stored
    bias = stored["b.q"].const_value
    assert bias is not None
    assert str(bias.dtype) == "INT32"


@pytest.mark.parametrize(
    ("table", "refused"),
    [([2**31 - 1, -(2**31)], ""), ([7, 2**63 - 1], ""), ([7, 2**31], "2147483648")],
)
def test_openvino_gets_no_integers_that_it_would_change(table: list[int], refused: str) -> None:
    text = """g (int64[n] x) => (int64[n] y) {
      y = Gather(table, x)
    }"""
    made = parse(text, table=np.array(table))
    if not refused:
        assert openvino_backend.build(made)
        return
    with pytest.raises(BackendFailed, match=f"'table' holds {refused}, which it would change"):
        openvino_backend.build(made)


def test_a_bound_of_slice_may_be_any_large_number() -> None:
    text = """g (float[n] x) => (float[m] y) {
      y = Slice(x, begin, end)
    }"""
    made = parse(text, begin=np.array([1]), end=np.array([2**40]))
    assert openvino_backend.build(made)
