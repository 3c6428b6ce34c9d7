"""Opset conversion against the ONNX standard's own tests and against the runtime itself.

Two sources of truth. The operator tests that come with the onnx package carry expected outputs;
they are of the newest opsets, apart from some old ones kept on disk. For the old forms of
operators ONNX Runtime is the judge: it still runs each opset from 7 on as it was.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnx.numpy_helper
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from old_forms import OLD_FORMS
from onnx.backend.test.case.node import collect_testcases
from onnx.reference import ReferenceEvaluator

from edgebm.errors import UnsupportedModel
from edgebm.importers import import_model
from edgebm.ir.opset import INTERNAL_OPSET
from edgebm.ir.opset_up import UP

Array = NDArray[Any]
DATA = Path(onnx.backend.test.__file__).parent / "data"


def run(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feeds))
    return outputs


def assert_equal(got: list[Array], expected: list[Array]) -> None:
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(
            ours.astype(np.float64), theirs.astype(np.float64), rtol=1e-3, atol=1e-4
        )


def old_model(case: str) -> tuple[onnx.ModelProto, dict[str, Array]]:
    opset, inputs, body = OLD_FORMS[case]
    outputs = ", ".join(f"{kind} {label}" for kind, label in outputs_of(case))
    proto = onnx.parser.parse_model(
        f'<ir_version: 4, opset_import: ["" : {opset}]>\ng ({inputs}) => ({outputs}) {{ {body} }}'
    )
    return proto, {value.name: sample(value, case) for value in proto.graph.input}


def outputs_of(case: str) -> list[tuple[str, str]]:
    body = OLD_FORMS[case][2].split("\n")[-1]
    labels = [label.strip() for label in body.split("=")[0].split(",")]
    kinds = {"i": "int64[]", "y": "float[]"}
    special = {"Cast": "int64[]", "ArgMax": "int64[]", "Pad double": "double[]"}
    kinds["y"] = special.get(case, "float[]")
    return [(kinds.get(label, "float[]"), label) for label in labels]


def sample(value: onnx.ValueInfoProto, case: str) -> Array:
    """Seeded by the case and the name, with indices that fit and variances that are positive."""
    rng = np.random.default_rng(zlib.crc32(f"{case} {value.name}".encode()))
    tensor = value.type.tensor_type
    shape = [dim.dim_value or 3 for dim in tensor.shape.dim]
    if tensor.elem_type == onnx.TensorProto.INT64:
        return np.zeros(shape, np.int64) if value.name == "i" else rng.integers(0, 2, shape)
    array = rng.normal(size=shape)
    if value.name == "v":
        array = np.abs(array) + 0.5
    if value.name == "r" and case == "RoiAlign":
        array = np.sort(rng.uniform(0, 8, shape), axis=1)
    if value.name == "g":
        array = rng.uniform(-0.9, 0.9, shape)
    double = tensor.elem_type == onnx.TensorProto.DOUBLE
    return array.astype(np.float64 if double else np.float32)


@pytest.mark.parametrize("case", sorted(OLD_FORMS))
def test_old_forms_answer_as_before(case: str) -> None:
    proto, feeds = old_model(case)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    expected = run(proto.SerializeToString(), feeds)
    model = import_model(proto)
    assert model.graph.opset_imports == {"": INTERNAL_OPSET}
    assert_equal(run(model.to_bytes(), feeds), expected)


def test_every_adapter_has_a_case() -> None:
    """Adapters of the reductions share one function; of opset 6 they are tested on disk."""
    reductions = {op for op, version in UP if op.startswith("Reduce") and version == 18}
    bodies = " ".join(body for _, _, body in OLD_FORMS.values())
    untested = {
        op
        for op, version in UP
        if version > 7 and f"{op}(" not in bodies and f"{op}<" not in bodies
    }
    assert untested <= reductions


@pytest.mark.parametrize(
    ("opset", "face", "body", "reason"),
    [
        (
            7,
            "float[2,3] x, float[3] s",
            "y = BatchNormalization<spatial=0>(x, s, s, s, s)",
            "spatial=0",
        ),
        (
            9,
            "float[2,3] x, float[3] s",
            "y, m, v, a, b = BatchNormalization(x, s, s, s, s)\n z = Add(m, v)",
            "training mode",
        ),
        (10, "float[1,1,4,4] x, float[4] s", "y = Resize(x, s)", "scales depend on the inputs"),
        (
            10,
            "float[1,1,4,4] x",
            "s = Constant<value=float[4] {1.0,1.0,0.5,2.0}>()\n y = Resize(x, s)",
            "shrinks one axis and stretches another",
        ),
        (7, "float[2,3] x", "y, m = Dropout(x)\n z = Abs(m)", "mask"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(
    opset: int, face: str, body: str, reason: str
) -> None:
    outputs = "float[] y" + (", float[] z" if " z = " in body else "")
    text = f'<ir_version: 4, opset_import: ["" : {opset}]>\ng ({face}) => ({outputs}) {{ {body} }}'
    with pytest.raises(UnsupportedModel, match=reason):
        import_model(onnx.parser.parse_model(text))


# ------------------------------------------------------- cases of the standard, of newer opsets

SAMPLED = 5  # every fifth case
BUCKETS = 8
# Cases of opsets up to the internal one that are refused at import, all of them.
REFUSED = {
    "test_affine_grid_3d_align_corners_expanded": "an If that depends on an input's values",
    "test_batchnorm_epsilon_training_mode": "training mode",
    "test_batchnorm_example_training_mode": "training mode",
}
# Why a case of a newer opset may be refused: it uses what opset 20 does not have.
NEWER = re.compile(
    "operator is not in opset 20|does not take in opset 20|=.* is not in opset 20|"
    "control flow|custom operator|in training mode|not a tensor|no input that is not a constant"
)
# ONNX Runtime answers otherwise than the standard for the original file too.
JUDGED_BY_RUNTIME = frozenset({"Cast", "CastLike", "DFT", "AveragePool", "Resize", "MaxUnpool"})
# Random draws and control flow have no fixed answer.
NO_ANSWER = frozenset({"Bernoulli", "RandomUniformLike", "Loop", "Scan", "If", "SequenceMap"})


@pytest.fixture(scope="session")
def newest_cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow on purpose while they are made
        collected = collect_testcases(None)
    return {case.name: case for case in collected if is_plain(case)}


def is_plain(case: Any) -> bool:
    """A data set of numeric tensors, standard operators, and one right answer."""
    if case.model is None or not case.data_sets:
        return False
    arrays = [array for side in case.data_sets[0] for array in side]
    nodes = case.model.graph.node
    numeric = all(isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in arrays)
    return (
        numeric
        and all(node.domain in ("", "ai.onnx") for node in nodes)
        and not {node.op_type for node in nodes} & NO_ANSWER
    )


def fault_of(case: Any) -> str:
    """What is wrong about the import of one case; empty if nothing is."""
    inputs, expected = case.data_sets[0]
    feeds = dict(zip([value.name for value in case.model.graph.input], inputs, strict=True))
    newer = case.model.opset_import[0].version > INTERNAL_OPSET
    try:
        model = import_model(case.model)
    except UnsupportedModel as refusal:
        allowed = NEWER.search(str(refusal)) if newer else case.name in REFUSED
        return "" if allowed else f"refused: {refusal}"
    if case.name in REFUSED:
        return "is not refused any more: take it off the list"
    if {node.op_type for node in case.model.graph.node} & JUDGED_BY_RUNTIME:
        expected = answers(case.model.SerializeToString(), feeds)
    try:
        assert_equal(answers(model.to_bytes(), feeds), expected)
    except AssertionError as wrong:
        return f"answers otherwise: {wrong}"
    return ""


def answers(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """From ONNX Runtime, or from the reference where that has no kernel."""
    try:
        return run(data, feeds)
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no base
        proto = onnx.load_model_from_string(data)
        with np.errstate(all="ignore"):
            outputs: list[Array] = ReferenceEvaluator(proto).run(None, dict(feeds))
        return outputs


@pytest.mark.parametrize("bucket", range(BUCKETS))
def test_newest_forms(newest_cases: dict[str, Any], bucket: int) -> None:
    labels = [
        label
        for label in newest_cases
        if zlib.crc32(label.encode()) % (SAMPLED * BUCKETS) == bucket or label in REFUSED
    ]
    assert len(labels) > 10
    faults = {label: fault_of(newest_cases[label]) for label in labels}
    assert {label: fault for label, fault in faults.items() if fault} == {}


# ---------------------------------------------------- cases kept on disk, of opsets 6, 9 and 12

ON_DISK = sorted(
    f"{folder.parent.name}/{folder.name}"
    for kind in ("pytorch-converted", "pytorch-operator", "simple")
    for folder in (DATA / kind).glob("test_*")
    if kind != "simple" or "shrink" in folder.name or "sign" in folder.name
)


@pytest.mark.parametrize("label", ON_DISK[::2])
def test_old_files_on_disk(label: str) -> None:
    folder = DATA / label
    proto = onnx.load(folder / "model.onnx")
    model = import_model(folder / "model.onnx")
    weights = {tensor.name for tensor in proto.graph.initializer}
    listed = [value.name for value in proto.graph.input]
    files = sorted(folder.glob("test_data_set_0/input_*.pb"))
    fed = listed if len(files) == len(listed) else [n for n in listed if n not in weights]
    values = dict(zip(fed, map(read_tensor, files), strict=True))
    feeds = {value.name: values[value.name] for value in model.graph.graph.inputs if value.name}
    expected = [read_tensor(path) for path in sorted(folder.glob("test_data_set_0/output_*.pb"))]
    assert_equal(run(model.to_bytes(), feeds), expected)


def read_tensor(path: Path) -> Array:
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return onnx.numpy_helper.to_array(proto)  # type: ignore[no-any-return]
