"""Host side of ONNX Runtime: the artifact is one ONNX file."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx_ir as ir

from edgebm.backends.onnxruntime_fusion import fuse_products
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.runtime.engines import import_vendor

ort = import_vendor("onnxruntime")  # and not its reports over the network

MODEL = "model.onnx"
_INT8 = frozenset({
    "QLinearConv", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm",
    "DynamicQuantizeMatMul", "QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool",
    "QLinearConcat", "ConvInteger", "NhwcMaxPool",
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


def build_dynamic(lowered: Model) -> tuple[dict[str, bytes], int]:
    """Products take the range of their left operand at each call; the files, and how many do."""
    fused, count = fuse_products(lowered, dynamic=True)
    return {MODEL: fused.to_bytes()}, count


def executed_layers(files: dict[str, bytes]) -> dict[str, int]:
    """Layers by precision after ONNX Runtime's own rewriting, read from the graph it would run.

    Counts the ops that compute; reshapes and the like have no precision of interest.
    """
    options = ort.SessionOptions()
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
        ops = [node.op_type for node in ir.load(path).graph]
    counts = Counter("int8" if op in _INT8 else "f32" for op in ops if op in _INT8 | _FLOAT)
    return dict(sorted(counts.items()))
