"""Host side of OpenVINO: the artifact is an IR, model.xml and model.bin."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.runtime.engines import import_vendor

ov = import_vendor("openvino")  # and not its reports over the network

XML, BIN = "model.xml", "model.bin"
# Where weights are integers and a CPU can, OpenVINO rounds the inputs of products to 8 bits, by
# groups of 32, unless it is told not to.
EXACT_INPUTS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
ROUNDED_INPUTS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}


def build(lowered: Model) -> dict[str, bytes]:
    """The files of the artifact, from a float or Q/DQ graph. Float weights stay f32.

    Raises:
        BackendFailed: OpenVINO refuses the graph; its own words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        onnx_path, xml = Path(folder) / "model.onnx", Path(folder) / XML
        onnx_path.write_bytes(lowered.to_bytes())
        try:
            converted = ov.convert_model(onnx_path)
            _settle_names(converted, lowered)
            ov.save_model(converted, xml, compress_to_fp16=False)
        except Exception as cause:
            raise BackendFailed(
                f"OpenVINO {ov.__version__} does not convert the model: {cause}"
            ) from cause
        return {XML: xml.read_bytes(), BIN: xml.with_suffix(".bin").read_bytes()}


def _settle_names(converted: Any, lowered: Model) -> None:
    """Number the nodes that OpenVINO named itself: its own count runs on through the process."""
    ours = {node.name for node in lowered.nodes()} | set(lowered.graph.graph.initializers)
    ours |= {value.name for node in lowered.nodes() for value in node.outputs}
    for index, node in enumerate(converted.get_ordered_ops()):
        kind = node.get_type_name()
        if kind not in ("Parameter", "Result") and node.get_friendly_name() not in ours:
            node.set_friendly_name(f"{kind}.{index}")
