"""Pictures as a camera gives them: bytes, at their own size, for models that do the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgebm.data.pictures import open_picture, upright, upright_size
from edgebm.spec import TensorSpec

Color = Literal["rgb", "bgr", "gray"]
_LAYOUT = "NHWC"
_ORDERS: dict[str, Color] = {"RGB": "rgb", "BGR": "bgr", "gray": "gray"}


def frame_layout(color: Color) -> str:
    """`TensorSpec.layout` of an input that takes frames of this color."""
    return f"{_LAYOUT} {color if color == 'gray' else color.upper()}"


def frame_color(spec: TensorSpec) -> Color | None:
    """The color of the frames that an input takes; None where it takes no frames."""
    layout, _, order = spec.layout.partition(" ")
    return _ORDERS.get(order) if layout == _LAYOUT else None


def size_faults(columns: Mapping[str, FrameColumn], spec: TensorSpec) -> list[str]:
    """A sentence for each picture that is no frame of `spec`; `columns` by the names of files."""
    high, wide = spec.shape[1:3]
    wanted = f"the frames of '{spec.name}' {high}x{wide}"
    return [
        f"{name} has {column.shape[1]}x{column.shape[2]}, {wanted}"
        for name, column in columns.items()
        if column.shape[1:3] != (high, wide)
    ]


class FrameColumn:
    """One picture file as a column of one row, uint8 [height, width, channels].

    Its size is that of the file: nothing is resized here, as nothing would be on the device.

    Raises:
        DataError: not a readable picture.
    """

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, path: Path, color: Color) -> None:
        self._path, self._color = path, color
        with open_picture(path) as image:
            size = upright_size(image)
        self.shape: tuple[int, ...] = (1, *size, 1 if color == "gray" else 3)

    def rows(self, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
        return (self._pixels() for _ in wanted)

    def _pixels(self) -> NDArray[np.uint8]:
        with open_picture(self._path) as image:
            plain = upright(image).convert("L" if self._color == "gray" else "RGB")
            pixels = np.asarray(plain, np.uint8).reshape(self.shape[1:])
        return np.ascontiguousarray(pixels[..., ::-1] if self._color == "bgr" else pixels)
