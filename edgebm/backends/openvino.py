"""Host side of OpenVINO: the artifact is an IR, model.xml and model.bin."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.backends.openvino_recurrent import quantize_cells
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.runtime.engines import import_vendor

ov = import_vendor("openvino")  # and not its reports over the network

XML, BIN = "model.xml", "model.bin"
_WIDE = (ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.UINT32)
# Where weights are integers and a CPU can, OpenVINO rounds the inputs of products to 8 bits, by
# groups of 32, unless it is told not to.
EXACT_INPUTS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
ROUNDED_INPUTS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}


def build(lowered: Model) -> dict[str, bytes]:
    """The files of the artifact, from a float or Q/DQ graph. Float weights stay f32.

    Recurrent nodes that carry a decision compute in integers inside (`openvino_recurrent.py`).

    Raises:
        BackendFailed: OpenVINO refuses the graph; its own words are in the message. Or it holds
            integers that OpenVINO would change.
    """
    _refuse_wide_integers(lowered)
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        onnx_path, xml = Path(folder) / "model.onnx", Path(folder) / XML
        onnx_path.write_bytes(lowered.to_bytes())
        try:
            converted = ov.convert_model(onnx_path)
            quantize_cells(converted, lowered)
            _settle_names(converted, lowered)
            ov.save_model(converted, xml, compress_to_fp16=False)
        except BackendFailed:
            raise
        except Exception as cause:
            raise BackendFailed(
                f"OpenVINO {ov.__version__} does not convert the model: {cause}"
            ) from cause
        return {XML: xml.read_bytes(), BIN: xml.with_suffix(".bin").read_bytes()}


def _refuse_wide_integers(lowered: Model) -> None:
    """OpenVINO computes int64 in 32 bits on a CPU, and cuts constants off without a word.

    The ends of int64 itself mean "no limit", and are still that when they are cut off; so is a
    bound of Slice.

    Raises:
        BackendFailed: a constant would become another.
    """
    ends, narrow = np.iinfo(np.int64), np.iinfo(np.int32)
    for name, value in lowered.graph.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in _WIDE:
            continue
        array = tensor.numpy()
        changed = array[(array < narrow.min) | (array > narrow.max)]
        changed = changed[(changed != ends.min) & (changed != ends.max)]
        uses = [(use.node.op_type, use.idx) for use in value.uses()]
        bound = bool(uses) and all(kind == "Slice" and index > 0 for kind, index in uses)
        if changed.size and not bound:
            raise BackendFailed(
                f"OpenVINO {ov.__version__} computes int64 in 32 bits: '{name}' holds "
                f"{int(changed.flat[0])}, which it would change"
            )


def _settle_names(converted: Any, lowered: Model) -> None:
    """Number the nodes that OpenVINO named itself: its own count runs on through the process."""
    ours = {node.name for node in lowered.nodes()} | set(lowered.graph.graph.initializers)
    ours |= {value.name for node in lowered.nodes() for value in node.outputs}
    for index, node in enumerate(converted.get_ordered_ops()):
        kind = node.get_type_name()
        if kind not in ("Parameter", "Result") and node.get_friendly_name() not in ours:
            node.set_friendly_name(f"{kind}.{index}")
