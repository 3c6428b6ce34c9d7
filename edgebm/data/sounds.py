"""WAV files to arrays, as a recipe's `audio:` block says."""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from edgebm.errors import DataError
from edgebm.spec import TensorSpec

SOUND_SUFFIXES = frozenset({".wav"})
_LAYOUT = "PCM"
_FULL_SCALE = 32768


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Audio:
    """What a microphone gives: int16 numbers x at `rate` Hz, which the model takes as x / 32768.

    With `dtype` int16 the graph itself divides, and the bundle takes those numbers; with float32
    whoever calls the model does. They go into the input named `input`, or into the only one of
    floats. `rate` is that of the WAV files that are given as samples; nothing is resampled.
    """

    dtype: Literal["int16", "float32"] = "int16"
    input: str = ""
    rate: Annotated[int, Field(gt=0)] | None = None


def sound_layout(rate: int | None) -> str:
    """`TensorSpec.layout` of an input that takes a microphone's int16 numbers at this rate."""
    return _LAYOUT if rate is None else f"{_LAYOUT} {rate} Hz"


def sound_rate(spec: TensorSpec) -> int | None:
    """The rate in Hz that the layout of an input tells; None where it tells none."""
    layout, _, rest = spec.layout.partition(" ")
    number = rest.removesuffix(" Hz")
    return int(number) if layout == _LAYOUT and number.isdecimal() else None


class SoundColumn:
    """One WAV file as a column of one row [..., samples] of the shape of `spec`.

    Where the last axis of the input is fixed, a longer sound is cut off there and a shorter one
    filled up with zeros; a free axis takes the length of the file.

    Raises:
        DataError: not a mono WAV file of 16 bits at `rate` Hz, or the input takes no sounds.
    """

    def __init__(self, path: Path, spec: TensorSpec, rate: int) -> None:
        self._path = path
        self.dtype: np.dtype[Any] = np.dtype(spec.dtype)
        _check_input(path, spec)
        with _opened(path) as file:
            _check_format(path, file, rate)
            self.length = file.getnframes()
        wanted = spec.shape[-1]
        size = wanted if isinstance(wanted, int) else self.length
        self.shape: tuple[int, ...] = (1, *(1 for _ in spec.shape[1:-1]), size)

    def rows(self, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
        return (self._samples() for _ in wanted)

    def _samples(self) -> NDArray[Any]:
        count = self.shape[-1]
        with _opened(self._path) as file:
            read = np.frombuffer(file.readframes(min(count, self.length)), "<i2")
        if len(read) < min(count, self.length):
            raise DataError(
                f"{self._path} ends after {len(read)} of the {self.length} samples that it says",
                hint="copy the file again",
            )
        numbers = np.zeros(count, self.dtype)
        numbers[: len(read)] = read
        if self.dtype.kind == "f":
            numbers /= _FULL_SCALE
        return numbers.reshape(self.shape[1:])


def length_warnings(columns: Sequence[SoundColumn]) -> tuple[str, ...]:
    """What was done to sounds that are not as long as the input."""
    longer = sum(column.length > column.shape[-1] for column in columns)
    shorter = sum(column.length < column.shape[-1] for column in columns)
    told = []
    if longer:
        told.append(f"{longer} of {len(columns)} sounds are longer than the input and are cut off")
    if shorter:
        told.append(f"{shorter} of {len(columns)} sounds are shorter than the input: zeros follow")
    return tuple(told)


def _check_input(path: Path, spec: TensorSpec) -> None:
    alone = all(not isinstance(dim, int) or dim == 1 for dim in spec.shape[:-1])
    if len(spec.shape) < 2 or not alone or spec.dtype not in ("int16", "float32"):
        raise DataError(
            f"{path} is a sound, the model takes {spec}",
            hint="sounds are read for inputs [batch, samples] or [batch, 1, samples] of float32, "
            "or of int16 by the recipe's audio block; else give a function that yields arrays",
        )


@contextmanager
def _opened(path: Path) -> Iterator[wave.Wave_read]:
    try:
        with wave.open(str(path), "rb") as file:
            yield file
    except (wave.Error, EOFError, OSError) as cause:
        why = str(cause) or "it ends before its header does"
        raise DataError(
            f"{path} is no WAV file with plain samples: {why}",
            hint="ffmpeg -i FILE -ac 1 -c:a pcm_s16le new.wav makes one of it",
        ) from cause


def _check_format(path: Path, file: wave.Wave_read, rate: int) -> None:
    found: Mapping[str, tuple[int, int]] = {
        "channels": (file.getnchannels(), 1),
        "bits": (8 * file.getsampwidth(), 16),
        "Hz": (file.getframerate(), rate),
    }
    faults = [
        f"{has} {what} in place of {want}" for what, (has, want) in found.items() if has != want
    ]
    if not file.getnframes():
        faults.append("no samples")
    if faults:
        raise DataError(
            f"{path} has {', '.join(faults)}",
            hint=f"ffmpeg -i FILE -ac 1 -ar {rate} -c:a pcm_s16le new.wav makes one of it; the "
            "device has to record like that, too",
        )
