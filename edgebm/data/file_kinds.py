"""One file of samples: which kind it is, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgebm.data.batch import Batch, has_batch_axis, named_batch
from edgebm.data.columns import WholeColumn
from edgebm.data.files import open_npy, open_npz
from edgebm.data.frames import FrameColumn, frame_color
from edgebm.data.pictures import IMAGE_SUFFIXES
from edgebm.data.preprocess import ImageColumn, Preprocess
from edgebm.data.sounds import SOUND_SUFFIXES, Audio, SoundColumn, sound_rate
from edgebm.data.texts import TEXT_SUFFIXES, Texts
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

_OTHERS = {".flac": "audio", ".mp3": "audio", ".csv": "text", ".tsv": "text",
           ".json": "text"}  # fmt: skip
KINDS = (
    "samples are an .npz, .npy, .txt or .jsonl file, a folder of such, of image or WAV files, or "
    "module:function"
)


DECODED = frozenset({*IMAGE_SUFFIXES, *TEXT_SUFFIXES, *SOUND_SUFFIXES, *_OTHERS})


@dataclass(frozen=True, slots=True)
class Reading:
    """How what is no array becomes one."""

    images: Preprocess | None = None
    texts: Texts | None = None
    sounds: Audio | None = None


def file_batch(file: Path, inputs: Sequence[TensorSpec], reading: Reading, where: str) -> Batch:
    """The samples of a file in a folder, or of one that is no array; `where` names it.

    Raises:
        DataError: edgebm reads no such files, it is damaged, or it does not fit the model.
    """
    suffix = file.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _texts(file, inputs, reading.texts, where)
    if suffix in _OTHERS:
        raise DataError(
            f"{file}: edgebm does not read {_OTHERS[suffix]} files",
            hint="write a function that yields arrays and give it as file.py:function",
        )
    if suffix not in IMAGE_SUFFIXES | SOUND_SUFFIXES:
        return _single(array_file(file, inputs, where), inputs)
    if len(inputs) > 1:
        what = "sound" if suffix in SOUND_SUFFIXES else "image"
        raise DataError(
            f"{file} is one {what}, the model has {len(inputs)} inputs",
            hint="write a function that yields dicts by input name",
        )
    if suffix in SOUND_SUFFIXES:
        return _sound(file, inputs[0], reading.sounds, where)
    if (color := frame_color(inputs[0])) is not None:
        return Batch({inputs[0].name: FrameColumn(file, color)}, None, where)
    if reading.images is None:
        raise DataError(
            f"{file}: how images become arrays is not said",
            hint="add a `preprocess:` block to the recipe: size, layout, mean, std",
        )
    return Batch({inputs[0].name: ImageColumn(file, reading.images)}, None, where)


def _sound(file: Path, spec: TensorSpec, sounds: Audio | None, where: str) -> Batch:
    rate = sounds.rate if sounds is not None and sounds.rate else sound_rate(spec)
    if rate is None:
        raise DataError(
            f"{file}: at which rate the model hears is not said",
            hint="add it to the recipe: audio: {dtype: int16, rate: 16000}; dtype float32 leaves "
            "the model as it is",
        )
    return Batch({spec.name: SoundColumn(file, spec, rate)}, None, where)


def _texts(file: Path, inputs: Sequence[TensorSpec], texts: Texts | None, where: str) -> Batch:
    if texts is None:
        raise DataError(
            f"{file}: which tokenizer makes numbers of texts is not known here",
            hint="write a function that yields arrays and give it as file.py:function",
        )
    return texts.batch(file, inputs, where)


def _single(batch: Batch, inputs: Sequence[TensorSpec]) -> Batch:
    """A file of a folder may hold one sample without any axis for samples."""
    ranks = {spec.name: len(spec.shape) - has_batch_axis(spec) for spec in inputs}
    lone = all(len(c.shape) == ranks.get(name) for name, c in batch.columns.items())
    if not lone:
        return batch
    columns = {name: WholeColumn(column) for name, column in batch.columns.items()}
    labels = batch.labels
    if labels is not None and labels.shape[0] != 1:
        labels = WholeColumn(labels)
    return replace(batch, columns=columns, labels=labels)


def array_file(path: Path, inputs: Sequence[TensorSpec], where: str = "") -> Batch:
    """The samples of an `.npz` or `.npy` file.

    Raises:
        DataError: it is none, or does not fit the model.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return named_batch(open_npz(path), inputs, where)
    if suffix == ".npy":
        if len(inputs) > 1:
            raise DataError(
                f"{path} holds one array, the model has {len(inputs)} inputs",
                hint="save an npz file: np.savez(path, **{input name: array})",
            )
        return named_batch({inputs[0].name: open_npy(path)}, inputs, where)
    if not path.exists():
        raise DataError(f"{path} does not exist", hint=KINDS)
    raise DataError(f"{path} is no kind of samples that edgebm reads", hint=KINDS)
