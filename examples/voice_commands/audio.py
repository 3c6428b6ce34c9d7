"""Samples at 8 kHz from a WAV file or from standard input, and the change of their rate."""

from __future__ import annotations

import math
import sys
import wave
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import BinaryIO

import numpy as np
from features import I16, RATE

RECORD = "arecord -f S16_LE -r 8000 -c 1 -t raw"
_ZERO_CROSSINGS = 16  # of the sinc on each side
_PASS = 0.92  # of the band that 8 kHz can hold
_BLOCK = 2048  # outputs computed at once, which bounds the memory


class AudioError(Exception):
    """What is wrong with the audio, and what to do about it."""


class Resampler:
    """Changes the rate to 8 kHz with a windowed sinc, one set of taps for each phase.

    Equal samples give equal bits, however they are cut into chunks.
    """

    def __init__(self, rate: int) -> None:
        common = math.gcd(rate, RATE)
        self._up, self._down = RATE // common, rate // common
        self._half = math.ceil(_ZERO_CROSSINGS * rate / RATE)
        # Where the taps of each phase lie, in input samples from the output's own place.
        at = np.arange(-self._half + 1, self._half + 1) - np.arange(self._up)[:, None] / self._up
        taps = np.sinc(at * _PASS * RATE / rate) * np.cos(np.pi * at / (2 * self._half)) ** 2
        self._taps = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
        self._held = np.zeros(self._half - 1, np.float32)  # silence in front of the first sample
        self._dropped = self._made = self._heard = 0

    def push(self, samples: I16) -> I16:
        """The samples at 8 kHz that `samples` complete."""
        self._heard += len(samples)
        self._held = np.concatenate([self._held, samples.astype(np.float32)])
        ready = self._dropped + len(self._held) - 2 * self._half  # last place with all its taps
        return self._until(ready * self._up // self._down + 1 if ready >= 0 else 0)

    def flush(self) -> I16:
        """The last samples, with silence behind the end."""
        self._held = np.concatenate([self._held, np.zeros(2 * self._half, np.float32)])
        return self._until(-(-self._heard * self._up // self._down))

    def _until(self, end: int) -> I16:
        parts = [np.zeros(0, np.int16)]
        for first in range(self._made, end, _BLOCK):
            place = np.arange(first, min(end, first + _BLOCK)) * self._down
            rows = (place // self._up - self._dropped)[:, None] + np.arange(2 * self._half)
            sums = (self._held[rows] * self._taps[place % self._up]).sum(1)
            parts.append(np.clip(np.rint(sums), -32768, 32767).astype(np.int16))
        self._made = max(self._made, end)
        unused = self._made * self._down // self._up - self._dropped
        self._held, self._dropped = self._held[unused:], self._dropped + unused
        return np.concatenate(parts)


def wav_chunks(path: Path, sizes: list[int]) -> Iterator[I16]:
    """The samples of a mono 16-bit WAV file at 8 kHz.

    Args:
        path: a rate above 8 kHz is converted, and standard error says so.
        sizes: how many samples of the file are read at once; used in turn.

    Raises:
        AudioError: the file cannot be used, with the reason.
    """
    try:
        with wave.open(str(path), "rb") as file:
            _check(path, file)
            yield from _converted(file.getframerate(), _pieces(path, file, sizes))
    except (wave.Error, EOFError) as error:
        why = str(error) or "it ends before its header does"
        raise AudioError(
            f"{path} is no WAV file with plain samples: {why}. Make one of it with "
            f"'ffmpeg -i FILE -ac 1 -ar {RATE} -c:a pcm_s16le new.wav'"
        ) from error
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror}") from error


def _check(path: Path, file: wave.Wave_read) -> None:
    channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
    faults = []
    if channels != 1:
        faults.append(f"it has {channels} channels, one is needed ('sox FILE new.wav remix 1')")
    if width != 2:
        faults.append(
            f"its samples have {8 * width} bits, 16 are needed ('sox FILE -b 16 new.wav')"
        )
    if rate < RATE:
        faults.append(
            f"its rate is {rate} Hz: at least {RATE} Hz are needed, since what was not recorded "
            "cannot be computed; record it again"
        )
    if not file.getnframes():
        faults.append("it has no samples")
    if faults:
        raise AudioError(f"{path}: " + "; ".join(faults))


def _pieces(path: Path, file: wave.Wave_read, sizes: list[int]) -> Iterator[I16]:
    read = 0
    for size in cycle(sizes):
        data = file.readframes(size)
        samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
        if not len(samples):
            break
        read += len(samples)
        yield samples
    if read < file.getnframes():
        print(
            f"{path} ends early: {read} of the {file.getnframes()} samples that it promises",
            file=sys.stderr,
        )


def _converted(rate: int, pieces: Iterator[I16]) -> Iterator[I16]:
    if rate == RATE:
        yield from pieces
        return
    print(f"converted from {rate} Hz to {RATE} Hz", file=sys.stderr)
    resampler = Resampler(rate)
    for piece in pieces:
        yield resampler.push(piece)
    yield resampler.flush()


def microphone_chunks(source: BinaryIO, sizes: list[int]) -> Iterator[I16]:
    """Raw 16-bit little-endian samples at 8 kHz, mono, as they arrive, until the source ends.

    Raises:
        AudioError: the source is a terminal, or ends without a sample.
    """
    if source.isatty():
        raise AudioError(f"--mic reads samples from standard input: {RECORD} | device.py --mic")
    heard = False
    for size in cycle(sizes):
        data = source.read(2 * size)
        if len(data) < 2:
            break
        heard = True
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2")
    if not heard:
        raise AudioError(f"standard input ended without a sample; does '{RECORD}' record?")
