"""Image sets of the benchmarks, decoded once and kept as arrays in ``benchmarks/out``."""

from __future__ import annotations

import argparse
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORK = Path(__file__).resolve().parent / "out"
CALIBRATION_COUNTS = (300, 3000)


@dataclass(frozen=True)
class ImageSet:
    """Images [n, 32, 32, 3] uint8, labels [n] int64 and the group (track) of each image [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A training and a test set with the channel statistics of the training images."""

    name: str
    classes: int
    train: ImageSet
    test: ImageSet

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of the training pixels per channel, in 0..1; both [3]."""
        scaled = self.train.images.reshape(-1, 3).astype(np.float32) / 255
        return scaled.mean(0), scaled.std(0)

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [n, h, w, 3] to normalized float32 [n, 3, h, w], C-contiguous."""
        mean, std = self.statistics()
        scaled = (images.astype(np.float32) / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def data_folder(argument: str | None) -> Path:
    """The folder of the data sets: ``--data``, else the environment variable EDGEBM_DATA."""
    chosen = argument or os.environ.get("EDGEBM_DATA")
    if not chosen:
        raise SystemExit("name the folder of the data sets: --data PATH or EDGEBM_DATA=PATH")
    return Path(chosen)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data`` to a script's options."""
    parser.add_argument("--data", help="folder of the data sets (default: $EDGEBM_DATA)")


def _read_images(archive: Path, folder: str) -> ImageSet:
    images, labels, groups = [], [], []
    classes: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for name, payload in sorted(
            (member.name, tar.extractfile(member))
            for member in tar.getmembers()
            if member.isfile() and member.name.startswith(f"{folder}/")
        ):
            label, stem = Path(name).parts[-2:]
            assert payload is not None
            images.append(np.asarray(Image.open(io.BytesIO(payload.read())).convert("RGB")))
            labels.append(classes.setdefault(label, len(classes)))
            track = stem.split("_")[0] if "_" in stem else "0"
            groups.append(labels[-1] * 100_000 + int(track.removesuffix(".jpg")))
    return ImageSet(np.stack(images), np.array(labels), np.array(groups))


def _decoded(name: str, archive: Path, folder: str) -> ImageSet:
    """One part of a data set; ``sorted`` class folders give the labels 0, 1, 2, ..."""
    cache = WORK / f"{name}_{folder}_decoded.npz"
    if not cache.exists():
        part = _read_images(archive, folder)
        WORK.mkdir(parents=True, exist_ok=True)
        np.savez(cache, images=part.images, labels=part.labels, groups=part.groups)
        return part
    with np.load(cache) as arrays:
        return ImageSet(arrays["images"], arrays["labels"], arrays["groups"])


def gtsrb(data: Path) -> Dataset:
    """43 traffic signs: 13,070 training frames of 1,307 tracks, 12,630 test images."""
    folder = data / "gtsrb"
    train = _decoded("gtsrb", folder / "gtsrb_train13k.tar.xz", "train")
    test = _decoded("gtsrb", folder / "gtsrb_test.tar.xz", "test")
    return Dataset("gtsrb", 43, train, test)


def cifar10(data: Path) -> Dataset:
    """10 classes of small photographs (re-encoded as JPEG): 50,000 to train, 10,000 to test."""
    archive = data / "cifar10" / "cifar10_jpeg.tar.xz"
    train, test = (_decoded("cifar10", archive, part) for part in ("train", "test"))
    return Dataset("cifar10", 10, train, test)


@dataclass(frozen=True)
class Exposed(Dataset):
    """A data set as a sensor of 16 bits sees it: linear light under exposures 1 to 1/64."""

    def normalize(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [n, h, w, 3] to counts 0..65535 in float32 [n, 3, h, w]."""
        exponents = np.random.default_rng(len(images)).uniform(-6, 0, (len(images), 1, 1, 1))
        linear = (np.arange(256, dtype=np.float32) / 255) ** 2.2
        counts = np.rint(65535 * linear[images] * np.exp2(exponents).astype(np.float32))
        return np.ascontiguousarray(counts.transpose(0, 3, 1, 2), dtype=np.float32)


def exposure(data: Path) -> Dataset:
    """The traffic signs by day and by night; every third test image."""
    plain = gtsrb(data)
    test = ImageSet(plain.test.images[::3], plain.test.labels[::3], plain.test.groups[::3])
    return Exposed("exposure", plain.classes, plain.train, test)


def write_validation(dataset: Dataset, held: NDArray[np.int64]) -> Path:
    """Write the labelled images of the training part that the network was not trained on."""
    path = WORK / f"{dataset.name}_validation.npz"
    images, labels = dataset.train.images[held], dataset.train.labels[held]
    np.savez(path, image=dataset.normalize(images), labels=labels)
    return path


def write_samples(dataset: Dataset, seed: int = 0) -> list[Path]:
    """Write the calibration images (without labels) and the labelled test set as plain .npz."""
    WORK.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(dataset.train.labels))
    written = []
    for count in CALIBRATION_COUNTS:
        path = WORK / f"{dataset.name}_calibration_{count}.npz"
        np.savez(path, image=dataset.normalize(dataset.train.images[order[:count]]))
        written.append(path)
    path = WORK / f"{dataset.name}_test.npz"
    np.savez(path, image=dataset.normalize(dataset.test.images), labels=dataset.test.labels)
    return [*written, path]
