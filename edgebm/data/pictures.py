"""Picture files, opened with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebm.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_ORIENTATION = 0x0112  # of EXIF; 5 to 8 lie on their side
_ON_THEIR_SIDE = range(5, 9)


@contextmanager
def open_picture(path: Path) -> Iterator[Any]:
    """The picture as a `PIL.Image.Image`; until it is used only its header is read.

    Raises:
        DataError: Pillow is missing, or the file is not a readable picture, which may show
            only when its pixels are read.
    """
    try:
        from PIL import Image
    except ImportError as cause:
        raise DataError(
            f"reading {path} needs Pillow, which is not installed", hint="pip install pillow"
        ) from cause
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(
            f"{path} is not a readable image: {cause}", hint="remove it or copy it again"
        ) from cause


def upright(image: Any) -> Any:
    """The picture turned as its camera was held."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width of `upright(image)`, from the header alone where it says so.

    To ask a PNG for EXIF data that its header does not have would read all of its pixels.
    """
    told = image.format != "PNG" or "exif" in image.info
    on_its_side = told and image.getexif().get(_ORIENTATION) in _ON_THEIR_SIDE
    return (image.width, image.height) if on_its_side else (image.height, image.width)
