"""Preprocessing as nodes in front of an input: the device feeds what its sensor gives.

Every node here gives the same numbers on all runtimes, to float32 rounding. A resize is bilinear
of half-pixel centres without antialiasing, as TensorRT has no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import Array, Attribute, add_const, add_node, free_name, replace_uses
from edgebm.ir.model import Model

_PCM_STEP = 1 / 32768
_PLANES = (0, 3, 1, 2)
_SWAPPED = (2, 1, 0)
# Pixels of a frame for each one that is left of it. 640x480 to 32x32, one thread: moving channels
# first takes twice as long on both runtimes; to 224x224 it takes a third on ONNX Runtime.
_FEW = 16
Operand = Sequence[int] | Array | ir.Value | None
_HALF_PIXEL: dict[str, Attribute] = {
    "mode": "linear",
    "coordinate_transformation_mode": "half_pixel",
}


@dataclass(frozen=True, slots=True)
class ImageFront:
    """From bytes [N, `source`, C] to what an image model takes.

    The window `cut` (top, left, height, width) of each frame is resized to `size` (height, width),
    its channels are reversed with `swap`, and multiplied by `scale` and moved by `shift`, both of
    shape [C]. `nhwc` says that the model's own input has its channels last.
    """

    source: tuple[int, int]
    cut: tuple[int, int, int, int]
    size: tuple[int, int]
    swap: bool
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    nhwc: bool


def take_frames(model: Model, label: str, front: ImageFront) -> None:
    """Let the input `label` of rank 4 take uint8 frames [N, height, width, C], in place.

    Its first axis stays as it is. Shapes behind it have to be inferred anew.
    """
    chain = _Chain(model, label, ir.DataType.UINT8)
    old = chain.old.shape
    assert old is not None
    channels = len(front.scale)
    chain.begin(ir.Shape([old[0], *front.source, channels]))
    cut, resized = front.cut[2:], front.cut[2:] != front.size
    if not front.nhwc and resized and math.prod(cut) <= _FEW * math.prod(front.size):
        _in_planes(chain, front)
    else:
        _in_frames(chain, front)
    chain.end()


def _in_frames(chain: _Chain, front: ImageFront) -> None:
    """Channels stay last until the end, if the model wants them elsewhere.

    ONNX Runtime has channels last in front of a quantized convolution, too. It takes long where
    only the three numbers of a pixel are multiplied at once, hence the constants for a whole row.
    """
    channels = len(front.scale)
    _cut(chain, front, 1)
    if front.cut[2:] != front.size:
        _resize(chain, (*front.size, channels))
    if front.swap and front.nhwc:
        chain.add("Gather", "swapped", [_SWAPPED], axis=3)
    later = front.swap and not front.nhwc
    row = (front.size[1], channels)
    each = [array[::-1] if later else array for array in (front.scale, front.shift)]
    chain.affine(*(np.broadcast_to(array, row) for array in each))
    if not front.nhwc:
        chain.add("Transpose", "planes", perm=_PLANES)
    if later:
        chain.add("Gather", "swapped", [_SWAPPED], axis=1)


def _in_planes(chain: _Chain, front: ImageFront) -> None:
    """Channels come first before the resize, which is faster so.

    The Reshapes move nothing. They keep ONNX Runtime from moving the Transpose behind the resize.
    """
    channels = len(front.scale)
    chain.add("Transpose", "planes", perm=_PLANES)
    _cut(chain, front, 2)
    _resize(chain, (channels, *front.size))
    if front.swap:
        chain.add("Gather", "swapped", [_SWAPPED], axis=1)
    chain.add("Reshape", "flat", [(0, channels, -1)])
    chain.affine(front.scale.reshape(-1, 1), front.shift.reshape(-1, 1))
    chain.add("Reshape", "image", [(0, channels, *front.size)])


def _cut(chain: _Chain, front: ImageFront, rows: int) -> None:
    """Take the window out; `rows` is the axis of rows, that of columns follows."""
    top, left, height, width = front.cut
    if (height, width) != front.source:
        ends = (top + height, left + width)
        chain.add("Slice", "cut", [(top, left), ends, (rows, rows + 1)])


def _resize(chain: _Chain, sizes: Sequence[int]) -> None:
    """All four sizes are given, that of a free first axis as the frame has it.

    Of the attribute `axes`, with two sizes, ONNX Runtime (1.32) loses the sizes where it moves a
    Transpose behind the Resize.
    """
    frames = chain.value
    chain.value = chain.aside("Shape", "count", start=0, end=1)
    whole = chain.aside("Concat", "sizes", [sizes], axis=0)
    chain.value = frames
    chain.add("Resize", "resized", [None, None, whole], **_HALF_PIXEL)


def take_pcm(model: Model, label: str) -> None:
    """Let the float input `label` take int16 numbers x, in place, and read x / 32768."""
    chain = _Chain(model, label, ir.DataType.INT16)
    assert chain.old.shape is not None
    chain.begin(chain.old.shape)
    chain.affine(np.array(_PCM_STEP, np.float32), np.zeros((), np.float32))
    chain.end()


class _Chain:
    """Nodes in front of everything else, from a new input to the readers of the old one."""

    def __init__(self, model: Model, label: str, dtype: ir.DataType) -> None:
        self.graph = model.graph.graph
        self.first = next(iter(self.graph))
        self.label, self.dtype = label, dtype
        self.place = next(i for i, value in enumerate(self.graph.inputs) if value.name == label)
        self.old = self.graph.inputs[self.place]

    def begin(self, shape: ir.Shape) -> None:
        self.old.name = free_name(self.graph, f"{self.label}.old")
        fresh = ir.Value(name=self.label, shape=shape, type=ir.TensorType(self.dtype))
        self.graph.inputs[self.place] = fresh
        self.value = fresh
        self.add("Cast", "float", to=int(ir.DataType.FLOAT))

    def add(
        self, op_type: str, what: str, constants: Sequence[Operand] = (), **attributes: Attribute
    ) -> None:
        """One more node behind the last one; integers are sizes, axes or positions."""
        self.value = self.aside(op_type, what, constants, **attributes)

    def aside(
        self, op_type: str, what: str, constants: Sequence[Operand] = (), **attributes: Attribute
    ) -> ir.Value:
        """What such a node gives, without going on from there."""
        label = free_name(self.graph, f"{self.label}.{what}")
        args: list[ir.Value | None] = [self.value]
        for number, operand in enumerate(constants, 1):
            if operand is None or isinstance(operand, ir.Value):
                args.append(operand)
                continue
            array = operand if isinstance(operand, np.ndarray) else np.asarray(operand, np.int64)
            args.append(add_const(self.graph, f"{label}.{number}", array))
        out = add_node(self.first, op_type, args, attributes, label=label)
        out.name = label
        return out

    def affine(self, scale: Array, shift: Array) -> None:
        """Times `scale`, plus `shift`. What changes nothing is left out; equal numbers are one."""
        if (scale != 1).any():
            self.add("Mul", "scaled", [_one(scale)])
        if shift.any():
            self.add("Add", "shifted", [_one(shift)])

    def end(self) -> None:
        """Lead the readers of the old input here, in the type that they read."""
        dtype = self.old.dtype
        if dtype is not None and dtype != ir.DataType.FLOAT:
            self.add("Cast", "cast", to=int(dtype))
        replace_uses(self.old, self.value)


def _one(array: Array) -> Array:
    first = array.reshape(-1)[0]
    return np.asarray(first) if (array == first).all() else np.ascontiguousarray(array)
