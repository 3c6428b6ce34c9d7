"""Hostile and senseless graphs given to `compress`: refused at import, before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgebm
from edgebm.errors import BackendFailed, ModelError, UnsupportedModel
from edgebm.importers import import_model
from edgebm.ir.canonical import canonicalize
from edgebm.runtime.engines import open_engine
from edgebm.runtime.engines.onnx_faults import onnx_faults
from edgebm.spec import EngineConfig, TensorSpec

X, Y = TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (4,))
SUM = "g (float[4] x) => (float[4] y) { y = Add(x, w) }"


def parsed(text: str, *, opset: int = 17, ir: int = 8, **weights: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]> {text}')
    tensors = [onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()]
    model.graph.initializer.extend(tensors)
    return model


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        canonicalize(import_model(model))
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.row(15)
@pytest.mark.parametrize(("opset", "ir"), [(999, 8), (17, 999)])
def test_a_newer_onnx_than_the_one_installed(opset: int, ir: int) -> None:
    model = parsed("g (float[4] x) => (float[4] y) { y = Relu(x) }", opset=opset, ir=ir)
    with pytest.raises(UnsupportedModel, match=r"(opset|IR version) 999, onnx .* knows \d+"):
        import_model(model)


@pytest.mark.row(15)
def test_the_newest_opset_that_is_installed_is_taken() -> None:
    newest = onnx.defs.onnx_opset_version()
    model = parsed("g (float[4] x) => (float[4] y) { y = Neg(x) }", opset=newest)
    assert len(list(canonicalize(import_model(model)).nodes())) == 1


@pytest.mark.row(11)
@pytest.mark.parametrize(
    "dims", [[2**40], [2**31, 2**33], [2**32, 2**32], [2**62, 4], [-1], [-4], [-2, -2]]
)
def test_a_weight_that_claims_more_than_it_has(dims: list[int]) -> None:
    model = parsed(SUM, w=np.zeros(4, np.float32))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    assert "is not valid ONNX" in refusal(model)


@pytest.mark.row(11)
@pytest.mark.parametrize(
    ("sizes", "words"), [([-1, 4], "input 'x' has a negative size"), ([2**62, 4], "would take")]
)
def test_an_input_of_no_possible_size(sizes: list[int], words: str) -> None:
    model = parsed("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            dim.dim_value = size
    assert words in refusal(model)


BOMBS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fill": ("c = ConstantOfShape(s)", {"s": [2**36]}, "GiB"),
    "pad": ("c = Pad(x, s)", {"s": [2**40, 2**30]}, "GiB"),
    "overflow": ("c = Pad(x, s)", {"s": [2**62, 2**62]}, "'c' cannot be inferred"),
    "expand": ("c = Expand(x, s)", {"s": [2**40, 2**40, 4]}, "GiB"),
    "range": ("c = Range(s, e, d)", {"s": 0, "e": 10**12, "d": 1}, "GiB"),
    "tile": ("c = Tile(x, s)", {"s": [2**40]}, "GiB"),
}


@pytest.mark.row(16)
@pytest.mark.parametrize(("node", "weights", "words"), BOMBS.values(), ids=BOMBS)
def test_a_few_bytes_that_ask_for_gigabytes(
    node: str, weights: dict[str, Any], words: str
) -> None:
    end = "m = ReduceMax<keepdims=0>(c) f = CastLike(m, x) y = Add(x, f)"
    text = f"g (float[4] x) => (float[4] y) {{ {node} {end} }}"
    assert words in refusal(parsed(text, **weights))


@pytest.mark.row(20, partly=True)
@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("divided", ["x", "one"])
def test_whole_numbers_divided_by_a_constant_zero(op: str, divided: str) -> None:
    text = f"g (int64[2] x) => (int64[2] y) {{ [d] d = {op}({divided}, zero) y = Add(x, d) }}"
    weights = {"zero": np.array([3, 0]), **({"one": np.array([1, 1])} if divided == "one" else {})}
    assert f"{op} 'd': it divides whole numbers by zero" in refusal(parsed(text, **weights))
    fine = {**weights, "zero": np.array([3, 7])}
    canonicalize(import_model(parsed(text, **fine)))


@pytest.mark.row(20, partly=True)
@pytest.mark.parametrize("index", [3, -4, 2**40])
def test_constant_rows_outside_their_table(index: int) -> None:
    text = "g (float[4] x) => (float[1,4] y) { [r] r = Gather(t, i) y = Add(x, r) }"
    table = np.zeros((3, 4), np.float32)
    words = f"Gather 'r': it takes row {index} of 't', which has 3"
    assert words in refusal(parsed(text, t=table, i=np.array([index])))
    across = "g (float[2,3] x) => (float[2,1] y) { y = GatherElements<axis=1>(x, i) }"
    assert f"it takes row {index} of 'x'" in refusal(parsed(across, i=np.array([[0], [index]])))
    for last in (2, -3):
        canonicalize(import_model(parsed(text, t=table, i=np.array([last]))))


@pytest.mark.row(20, partly=True)
def test_two_values_of_one_name() -> None:
    twice = "g (float[4] x) => (float[4] y) { y = Relu(x) y = Neg(x) }"
    assert "two nodes write 'y'" in refusal(parsed(twice))
    model = parsed("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    model.graph.output.append(model.graph.output[0])
    assert "two outputs are named 'y'" in refusal(model)


def elsewhere(place: str, folder: Path) -> bytes:
    """A model with its weight in another file, below a node, a graph or a function."""
    (folder / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    weight = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    weight.external_data.add(key="location", value=str(folder / "w.bin"))
    model = parsed("g (float[4] x) => (float[4] y) { y = Add(x, w) }")
    if place == "weight":
        model.graph.initializer.append(weight)
        return bytes(model.SerializeToString())
    constant = onnx.NodeProto(op_type="Constant", output=["w"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(weight)
    if place == "node":
        model.graph.node.insert(0, constant)
    elif place == "function":
        model.functions.add(name="f", domain="d", output=["w"]).node.append(constant)
    else:
        branch = onnx.GraphProto(name="b", node=[constant])
        model.graph.node.add(op_type="If").attribute.add(name="then_branch").g.CopyFrom(branch)
    return bytes(model.SerializeToString())


@pytest.mark.row(10)
@pytest.mark.parametrize("place", ["weight", "node", "function", "branch"])
def test_an_artifact_with_weights_in_other_files(place: str, runtime: str, tmp_path: Path) -> None:
    """OpenVINO would read the file, wherever it lies, and show its bytes in the answers."""
    files = {"model.onnx": elsewhere(place, tmp_path)}
    with pytest.raises(BackendFailed, match="keeps weights in other files"):
        open_engine(runtime, files, EngineConfig(), [X], [Y])


@pytest.mark.row(10)
def test_an_artifact_that_is_complete() -> None:
    whole = parsed(SUM, w=np.ones(4, np.float32))
    whole.graph.initializer[0].data_location = onnx.TensorProto.DEFAULT
    whole.metadata_props.add(key="location", value="here")
    assert onnx_faults(whole.SerializeToString()) == []
    for nothing in (b"", b"\x08\x0anonsense", b"\x3a\xff", b"\xff" * 20, b"\x0f"):
        assert onnx_faults(nothing) == []


@pytest.mark.row(66)
def test_nothing_is_calibrated_on_made_up_numbers(tmp_path: Path) -> None:
    model = parsed(SUM, w=np.ones(4, np.float32))
    with pytest.raises(edgebm.errors.DataError, match="no samples"):
        edgebm.compress(model, data=np.zeros((0, 4), np.float32), out=tmp_path / "m.edgebm")
    assert list(tmp_path.iterdir()) == []
