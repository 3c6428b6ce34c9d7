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

from edgebm.errors import DataError

Size = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Preprocess:
    """`(resized pixels / 255 - mean) / std`, or the plain bytes when `dtype` is uint8.

    `size` is [height, width]; images are resized to it (bilinear), unless `crop` is given:
    then the shorter side is resized to `size`'s shorter side times 256/224 and the middle is
    cut out. `mean` and `std` hold one number per channel, on the scale of 0 to 1.
    """

    size: tuple[Size, Size]
    crop: bool = False
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "uint8"] = "float32"
    mean: tuple[float, ...] = field(default=(0.0,))
    std: tuple[Positive, ...] = field(default=(1.0,))

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} has {len(values)} numbers for {self.channels} channels")
        if self.dtype == "uint8" and (set(self.mean) != {0.0} or set(self.std) != {1.0}):
            raise ValueError("uint8 pixels go in as they are: leave mean and std out")

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.size
        if self.layout == "NHWC":
            return height, width, self.channels
        return self.channels, height, width

    def __call__(self, path: Path) -> NDArray[Any]:
        """The image as an array of `shape` and `dtype`.

        Raises:
            DataError: not a readable image.
        """
        image = _opened(path)
        image = image.convert("L" if self.color == "gray" else "RGB")
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


def _opened(path: Path) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError as cause:
        raise DataError(
            f"reading {path} needs Pillow, which is not installed", hint="pip install pillow"
        ) from cause
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(
            f"{path} is not a readable image: {cause}", hint="remove it or copy it again"
        ) from cause
