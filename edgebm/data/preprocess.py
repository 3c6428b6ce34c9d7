"""Images to arrays, as a recipe's `preprocess:` block says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from edgebm.data.frames import Color
from edgebm.data.pictures import open_picture, upright

Size = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Preprocess:
    """`(resized pixels / 255 - mean) / std`, or the plain bytes when `dtype` is uint8.

    `size` is [height, width]; images are resized to it (bilinear), unless `crop` is given:
    then the shorter side is resized to `size`'s shorter side times 256/224 and the middle is
    cut out. `mean` and `std` hold one number per channel, on the scale of 0 to 1.

    With `in_graph` all of this is done by nodes in front of the input named `input` (the only
    one that can be meant, if none is): the bundle takes uint8 frames [N, height, width,
    channels] of the size `source` (`size` if it is left out) whose bytes are in the order
    `source_color` (RGB if it is left out; gray where `color` is). The resize is bilinear without
    antialiasing then, and with `crop` the middle of a frame, 224/256 of what has the shape of
    `size`, is cut out before it. `layout` and `color` stay those of the model.
    """

    size: tuple[Size, Size]
    crop: bool = False
    color: Color = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "uint8"] = "float32"
    mean: tuple[float, ...] = field(default=(0.0,))
    std: tuple[Positive, ...] = field(default=(1.0,))
    in_graph: bool = False
    source: tuple[Size, Size] | None = None
    source_color: Literal["rgb", "bgr"] | None = None
    input: str = ""

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} numbers for {self.channels} channels")
        if self.dtype == "uint8" and (set(self.mean) != {0.0} or set(self.std) != {1.0}):
            raise ValueError("uint8 pixels go in as they are: leave mean and std out")
        if self.in_graph and self.dtype == "uint8":
            raise ValueError("in_graph is for a model that takes floats: leave dtype out")
        for name in ("source", "source_color", "input"):
            if getattr(self, name) and not self.in_graph:
                raise ValueError(f"{name} is of frames that the graph takes: add in_graph: true")
        if self.source_color and self.color == "gray":
            raise ValueError("source_color: a model that takes gray pictures gets gray frames")

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.size
        if self.layout == "NHWC":
            return height, width, self.channels
        return self.channels, height, width

    @property
    def frames(self) -> tuple[int, int]:
        """Height and width of the frames that the graph takes with `in_graph`."""
        return self.source or self.size

    @property
    def frame_color(self) -> Color:
        """The order of the bytes in those frames."""
        return "gray" if self.color == "gray" else self.source_color or "rgb"

    @property
    def cut(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is resized to `size` of such a frame."""
        high, wide = self.frames
        if not self.crop:
            return 0, 0, high, wide
        ratio = min(high / self.size[0], wide / self.size[1]) * 224 / 256
        height, width = (max(1, round(side * ratio)) for side in self.size)
        return (high - height) // 2, (wide - width) // 2, height, width

    def __call__(self, path: Path) -> NDArray[Any]:
        """The image as an array of `shape` and `dtype`.

        Raises:
            DataError: not a readable image.
        """
        with open_picture(path) as file:
            image = upright(file).convert("L" if self.color == "gray" else "RGB")
        pixels = np.asarray(self._resized(image)).reshape(*self.size, self.channels)
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        if self.dtype == "float32":
            mean, std = (np.array(v, np.float32) for v in (self.mean, self.std))
            pixels = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels)

    def _resized(self, image: Any) -> Any:
        from PIL import Image

        height, width = self.size
        if not self.crop:
            return image.resize((width, height), Image.Resampling.BILINEAR)
        scale = max(height / image.height, width / image.width) * 256 / 224
        wide, high = round(image.width * scale), round(image.height * scale)
        left, top = (wide - width) // 2, (high - height) // 2
        resized = image.resize((wide, high), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + width, top + height))


class ImageColumn:
    """One image file as a column of one row."""

    def __init__(self, path: Path, preprocess: Preprocess) -> None:
        self._path, self._preprocess = path, preprocess
        self.dtype: np.dtype[Any] = np.dtype(preprocess.dtype)
        self.shape: tuple[int, ...] = (1, *preprocess.shape)

    def rows(self, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
        return (self._preprocess(self._path) for _ in wanted)
