"""Photographs of blood cells with boxes (BCCD), decoded once and kept in ``benchmarks/out``."""

from __future__ import annotations

import csv
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import WORK
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("RBC", "WBC", "Platelets")
HEIGHT, WIDTH = 240, 320
SCALE = 0.5  # of the photographs, which have 640x480 pixels
MEAN, DEVIATION = 180.0, 25.0  # of their pixels, about


@dataclass(frozen=True)
class CellSet:
    """Photographs [n, 240, 320, 3] uint8; of each its boxes [k, 4] (x0, y0, x1, y1) and classes.

    Boxes are float32 in pixels of the stored photograph, classes int64 [k].
    """

    images: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    classes: list[NDArray[np.int64]]


def _decode(folder: Path) -> dict[str, NDArray[np.uint8]]:
    with tarfile.open(folder / "bccd_images.tar") as tar:
        images = {}
        for member in tar.getmembers():
            stream = tar.extractfile(member)
            if stream is not None and member.name.endswith(".jpg"):
                photo = Image.open(io.BytesIO(stream.read())).convert("RGB")
                small = photo.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
                images[Path(member.name).stem] = np.asarray(small)
    return images


def load_cells(data: Path) -> dict[str, CellSet]:
    """The parts ``train`` (205 photographs), ``val`` (87) and ``test`` (72)."""
    folder = data / "bccd_blood_cells"
    cache = WORK / "bccd_decoded.npz"
    if not cache.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, **_decode(folder))
    with np.load(cache) as stored:
        images = dict(stored)
    with (folder / "bccd_boxes.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    return {part: _part(images, rows, part) for part in ("train", "val", "test")}


def _part(images: dict[str, NDArray[np.uint8]], rows: list[dict[str, str]], part: str) -> CellSet:
    found: dict[str, list[tuple[list[float], int]]] = {}
    for row in rows:
        if row["split"] == part:
            corners = [SCALE * float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")]
            if corners[2] > corners[0] and corners[3] > corners[1]:
                found.setdefault(row["image"], []).append((corners, CLASSES.index(row["class"])))
    names = sorted(found)
    return CellSet(
        np.stack([images[name] for name in names]),
        [np.array([box for box, _ in found[name]], np.float32) for name in names],
        [np.array([label for _, label in found[name]], np.int64) for name in names],
    )


def normalize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] of about unit variance, C-contiguous."""
    scaled = (images.astype(np.float32) - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
