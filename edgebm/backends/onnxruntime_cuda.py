"""Host side of ONNX Runtime on an NVIDIA GPU: one ONNX file, in FP16 or FP32.

There are no integers in it: the CUDA provider has no kernels for Q/DQ around a layer, so it would
compute such a layer in float and the rounding beside it.
"""

from __future__ import annotations

from edgebm.backends.half import needs_f32
from edgebm.backends.half_graph import to_half
from edgebm.ir.model import Model

MODEL = "model.onnx"


def build(model: Model, *, half: bool) -> dict[str, bytes]:
    """The files of the artifact, from a float graph.

    Args:
        model: with `half`, its values know their extents (`exec.extents.note_extents`).
        half: write it in FP16, where its values allow that.

    Raises:
        BackendFailed: it cannot be written in FP16.
    """
    return {MODEL: (to_half(model, needs_f32(model)) if half else model).to_bytes()}
