"""`Upsample` and `Resize` before opset 13: other positions, other rounding, other inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import input_at
from edgebm.ir.rewrite import CannotConvert, constant, known, put, put_input, take

_SCALES_DECIDE = "edgebm.opset10_rounding"
_NEVER_SHRINKS = "edgebm.was_upsample"
# tf_half_pixel_for_nn gives half_pixel's position plus 0.5: another rounding makes up for it.
_HALF_PIXEL_LATER = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}


def upsample_9(node: ir.Node) -> None:
    scales = np.asarray(take(node, "scales"), np.float32)
    put_input(node, 1, constant(node, scales))


def upsample_10(node: ir.Node) -> None:
    """From here on it is a Resize, with the rounding that never shrinks."""
    node.op_type = "Resize"
    if node.attributes.get_string("mode", "nearest") == "bilinear":
        put(node, "mode", "linear")
    node.meta[_NEVER_SHRINKS] = True


def resize_11(node: ir.Node) -> None:
    """Before opset 11 a position was `x / scale`, cut off (rounded up when shrinking)."""
    scales = input_at(node, 1)
    mode = node.attributes.get_string("mode", "nearest")
    put(node, "coordinate_transformation_mode", "asymmetric")
    if mode == "nearest":
        put(node, "nearest_mode", "floor")
        node.meta[_SCALES_DECIDE] = not node.meta.pop(_NEVER_SHRINKS, False)
    put_input(node, 2, scales)
    put_input(node, 1, None)


def settle_resize(node: ir.Node) -> None:
    """Choose the rounding of an opset-10 `Resize` by its scales, once constants are folded.

    Raises:
        CannotConvert: the scales are not known, or ask for both roundings.
    """
    if not node.meta.pop(_SCALES_DECIDE, False):
        return
    scales = known(input_at(node, 2))
    if scales is None:
        raise CannotConvert("its scales depend on the inputs, and decide how opset 10 rounds")
    if (scales < 1).any():
        if (scales > 1).any():
            raise CannotConvert("it shrinks one axis and stretches another")
        put(node, "nearest_mode", "ceil")


def resize_13(node: ir.Node) -> None:
    """Opset 11 wanted empty tensors where 13 leaves an input out, and knew one more mode."""
    for index in (1, 2):
        array = known(input_at(node, index))
        if array is not None and array.size == 0:
            put_input(node, index, None)
    if input_at(node, 3) is not None:
        put_input(node, 2, None)
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_half_pixel_for_nn":
        nearest = node.attributes.get_string("nearest_mode", "round_prefer_floor")
        same = _HALF_PIXEL_LATER.get(str(nearest))
        if node.attributes.get_string("mode", "nearest") != "nearest" or same is None:
            raise CannotConvert(f"tf_half_pixel_for_nn with nearest_mode={nearest}")
        put(node, "coordinate_transformation_mode", "half_pixel")
        put(node, "nearest_mode", same)
