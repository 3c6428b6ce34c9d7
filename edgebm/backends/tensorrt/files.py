"""Host side of TensorRT: the artifact is one ONNX file in the form that its parser reads.

It holds every decision about precision, since a strongly typed network computes what the file
says: integers by Q/DQ, the rest in FP16 or FP32. The device builds its engine from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgebm.backends.half import needs_f32
from edgebm.backends.half_graph import to_half
from edgebm.backends.tensorrt.lint import Finding, lint
from edgebm.backends.tensorrt.versions import OLDEST, Version, version_text
from edgebm.errors import BackendFailed
from edgebm.ir.edit import add_const, const, input_at, name, set_const
from edgebm.ir.model import Model

MODEL = "model.onnx"
_SHOWN = 8


def build(lowered: Model, *, half: bool, version: Version = OLDEST) -> dict[str, bytes]:
    """The files of the artifact, from a float or Q/DQ graph.

    Args:
        lowered: with `half`, values know their extents (`exec.extents.note_extents`).
        half: write what is not quantized in FP16, where its values allow that.
        version: of TensorRT, whose rules the file has to keep.

    Raises:
        BackendFailed: the parser or builder would refuse the file; every reason is listed.
    """
    out = lowered.clone()
    _say_kernel_shapes(out)
    _settle_factors(out)
    if half:
        out = to_half(out, needs_f32(out))
    faults = [f for f in lint(out, version) if f.rule.severity == "error"]
    if faults:
        raise _refusal(faults, version)
    return {MODEL: out.to_bytes()}


def _refusal(faults: Sequence[Finding], version: Version) -> BackendFailed:
    shown = [f"{f.op_type} '{f.node}': {f.text} ({f.rule.code})" for f in faults[:_SHOWN]]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return BackendFailed(
        f"TensorRT {version_text(version)} does not take the model: {'; '.join(shown)}{more}",
        hint=f"{faults[0].rule.do} Or compress for the board's processor, such as cpu-arm64",
        details={"rules": sorted({f.rule.code for f in faults})},
    )


def _say_kernel_shapes(model: Model) -> None:
    """E12: before 10.4 the parser cannot read the size of a kernel from a dequantized weight."""
    for node in model.nodes("Conv", "ConvTranspose"):
        weight = input_at(node, 1)
        if "kernel_shape" in node.attributes or weight is None or weight.shape is None:
            continue
        sizes = [size for size in weight.shape[2:] if isinstance(size, int)]
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", sizes)


def _settle_factors(model: Model) -> None:
    """E14: alpha and beta of a Gemm go into its constants, or into a Mul."""
    graph = model.graph.graph
    for node in list(model.nodes("Gemm")):
        for key, index in (("alpha", 1), ("beta", 2)):
            factor = node.attributes.get_float(key, 1.0)
            node.attributes.pop(key, None)
            value = input_at(node, index)
            if factor == 1.0 or value is None:
                continue
            if (array := const(value)) is not None:
                set_const(node, index, np.asarray(array * factor, array.dtype), suffix=key)
                continue
            label = f"{name(value)}.{key}"
            scalar = add_const(graph, label, np.asarray(factor, np.float32))
            scaled = ir.node("Mul", [value, scalar], name=label)
            scaled.outputs[0].name, scaled.outputs[0].type = f"{label}_out", value.type
            scaled.outputs[0].shape = value.shape
            graph.insert_before(node, scaled)
            node.replace_input_with(index, scaled.outputs[0])
