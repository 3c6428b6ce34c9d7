"""Host side of ONNX Runtime: the artifact is one ONNX file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir

from edgebm.backends.dialects import Grid
from edgebm.backends.onnxruntime_blocks import pack_products
from edgebm.backends.onnxruntime_fusion import fuse_products
from edgebm.backends.onnxruntime_recurrent import IntegerCells, fuse_cells
from edgebm.backends.written_out import MARK
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT
from edgebm.runtime.engines import import_vendor

ort = import_vendor("onnxruntime")  # and not its reports over the network

MODEL = "model.onnx"
# Constants behind DequantizeLinear become float when the model is loaded, and not at each call.
UNPACK = {"session.disable_quant_qdq": "1"}
_INT8 = frozenset({
    "QLinearConv", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm",
    "DynamicQuantizeMatMul", "QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool",
    "QLinearConcat", "ConvInteger", "NhwcMaxPool", "DynamicQuantizeLSTM",
})  # fmt: skip
_FLOAT = frozenset({
    "Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM",
    "GRU", "RNN", "Attention", "MultiHeadAttention",
})  # fmt: skip


def build(lowered: Model) -> dict[str, bytes]:
    """The files of the artifact, from a float or Q/DQ graph."""
    fused, _ = fuse_products(lowered, dynamic=False)
    return {MODEL: fused.to_bytes()}


def build_plain(lowered: Model) -> dict[str, bytes]:
    """The same with Q/DQ nodes only, which ONNX Runtime can be told to compute in float."""
    return {MODEL: lowered.to_bytes()}


def build_packed(stored: Model, *, wide: bool) -> tuple[dict[str, bytes], int]:
    """Products unpack blocks of integer weights while they multiply; the files, and how many."""
    packed, count = pack_products(stored, wide=wide)
    return {MODEL: packed.to_bytes()}, count


def build_cells(
    lowered: Model, grid: Grid, *, written_out: bool
) -> tuple[dict[str, bytes], IntegerCells, int]:
    """Recurrent nodes on integers, and products that take their range at each call.

    Returns:
        The files, what became of each recurrent node (`fuse_cells`), and how many products
        beside them are integer.
    """
    found = fuse_cells(lowered, grid=grid, written_out=written_out)
    fused, count = fuse_products(found.model, dynamic=True)
    return {MODEL: fused.to_bytes()}, found, count


def executed_layers(
    files: dict[str, bytes], settings: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Layers by precision after ONNX Runtime's own rewriting, read from the graph it would run.

    Counts the ops that compute, those in the bodies of loops once; reshapes and the like have no
    precision of interest. `settings` are those of the session, by ONNX Runtime's names.

    Raises:
        BackendFailed: ONNX Runtime does not load the model.
    """
    counts = Counter(map(_precision, _executed(files, settings)))
    counts.pop("", None)
    return dict(sorted(counts.items()))


def executed_cells(
    files: dict[str, bytes], settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The precision of each recurrent layer, by its name in the source graph.

    A layer that was written out is "int8" only if all its products are. Arguments and errors as
    those of `executed_layers`.
    """
    cells: dict[str, str] = {}
    for node in _executed(files, settings):
        label, mark, _ = (node.name or "").partition(MARK)
        precision = _precision(node)
        whole = node.op_type in RECURRENT | {"DynamicQuantizeLSTM"}
        if precision and (whole or mark):
            cells[label] = precision if cells.get(label, precision) == precision else "f32"
    return cells


def _executed(files: dict[str, bytes], settings: Mapping[str, str] | None) -> Iterable[ir.Node]:
    """The nodes that ONNX Runtime would run, those of the bodies of loops and branches too."""
    options = ort.SessionOptions()
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        path = Path(folder) / MODEL
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(files[MODEL], options, providers=["CPUExecutionProvider"])
        except Exception as cause:
            raise BackendFailed(
                f"onnxruntime {ort.__version__} does not load the model it was given: {cause}"
            ) from cause
        return list(ir.load(path).graph.all_nodes())


def _precision(node: ir.Node) -> str:
    """What a node computes in; empty where that is of no interest."""
    if node.op_type == "MatMulNBits":
        return f"int{node.attributes.get_int('bits', 4)} weights"
    if node.op_type in _INT8:
        return "int8"
    return "f32" if node.op_type in _FLOAT else ""
