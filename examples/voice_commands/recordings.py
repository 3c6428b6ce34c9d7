"""Recordings of spoken digits with noise around them, and where the digits lie.

    python recordings.py --data PATH --out voice

writes, from the test clips alone, `demo.wav` (60 s), `keywords.wav` (each test clip of a keyword
once) and `others.wav` (an hour without a keyword), each with a `.csv` of what is said when; and
`valid.wav`, all ten digits from other clips, to choose the threshold with.
"""

from __future__ import annotations

import argparse
import csv
import os
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from features import F32, I16, RATE
from numpy.typing import NDArray
from spotter import WORDS

SEED = 7
# The data set's own test part is takes 0 to 4 of each digit and speaker.
PARTS = {"test": (0, 5), "valid": (5, 8), "train": (8, 50)}
Random = np.random.Generator


@dataclass(frozen=True)
class Clips:
    """Clips [n] of one part, and their digits [n]."""

    audio: list[I16]
    digits: NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """A digit from sample `begin` to `end`; -1 is speech played backwards, which is no digit."""

    begin: int
    end: int
    digit: int


def load(data: Path, part: str) -> Clips:
    """The clips of one part of the Free Spoken Digit Dataset."""
    first, last = PARTS[part]
    with np.load(data / "fsdd" / "fsdd.npz") as stored:
        clips = np.split(stored["audio"], stored["offsets"][1:-1])
        chosen = np.flatnonzero((stored["index"] >= first) & (stored["index"] < last))
        return Clips([clips[i] for i in chosen], stored["label"][chosen])


def log_uniform(random: Random, low: float, high: float) -> float:
    """A random number whose logarithm is spread evenly."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def noise(samples: int, random: Random) -> F32:
    """Noise of random colour (white to brown) and level, now and then with hum or knocks."""
    spectrum = np.fft.rfft(random.standard_normal(samples).astype(np.float32))
    shape = np.arange(1, len(spectrum) + 1) ** -random.uniform(0, 1)
    made = np.fft.irfft(spectrum * shape, samples)
    if random.random() < 0.3:
        tone = random.choice([50, 60, 100, 120, 400, 1000]) * 2 * np.pi / RATE
        made += random.uniform(0, 2) * made.std() * np.sin(tone * np.arange(samples))
    if random.random() < 0.3:
        knock = random.standard_normal(400) * np.exp(-np.arange(400) / 60)
        at = int(random.integers(0, max(1, samples - 400)))
        made[at : at + 400] += (30 * made.std() * knock)[: samples - at]
    levelled: F32 = (made * log_uniform(random, 4, 80) / made.std()).astype(np.float32)
    return levelled


def spoken(clip: I16, random: Random) -> F32:
    """The clip at a random loudness; in the data set one speaker is 13 times another."""
    heard = clip.astype(np.float32)
    loudness = np.sqrt((heard**2).mean() + 1)
    heard *= np.float32(log_uniform(random, 500, 3000) / loudness)
    return heard


def mixed(samples: int, pieces: list[Piece], sounds: list[F32], random: Random) -> I16:
    """The sounds at their places, with noise that changes every ten seconds."""
    blocks = [noise(10 * RATE, random) for _ in range(-(-samples // (10 * RATE)))]
    made = np.concatenate(blocks)[:samples]
    for piece, sound in zip(pieces, sounds, strict=True):
        made[piece.begin : piece.end] += sound[: piece.end - piece.begin]
    return np.clip(np.rint(made), -32768, 32767).astype(np.int16)


def in_a_row(
    clips: Clips, order: NDArray[np.int64], gaps_s: tuple[float, float], seed: int
) -> tuple[I16, list[Piece]]:
    """The clips one after the other with gaps between; gives samples and pieces."""
    random = np.random.default_rng(seed)
    at = RATE
    pieces: list[Piece] = []
    sounds: list[F32] = []
    for i in order:
        sounds.append(spoken(clips.audio[i], random))
        pieces.append(Piece(at, at + len(sounds[-1]), int(clips.digits[i])))
        at = pieces[-1].end + int(random.uniform(*gaps_s) * RATE)
    return mixed(at + RATE, pieces, sounds, random), pieces


def of_others(clips: Clips, minutes: float, seed: int) -> tuple[I16, list[Piece]]:
    """Digits that are no keywords, and all digits backwards, over and over; half is noise."""
    random = np.random.default_rng(seed)
    samples, at = int(minutes * 60 * RATE), RATE
    pieces: list[Piece] = []
    sounds: list[F32] = []
    others = np.flatnonzero(clips.digits >= len(WORDS))
    while True:
        backwards = random.random() < 0.2
        i = int(random.integers(len(clips.audio)) if backwards else random.choice(others))
        sound = spoken(clips.audio[i][:: -1 if backwards else 1], random)
        if at + len(sound) + RATE > samples:
            return mixed(samples, pieces, sounds, random), pieces
        sounds.append(sound)
        pieces.append(Piece(at, at + len(sound), -1 if backwards else int(clips.digits[i])))
        at = pieces[-1].end + int(random.uniform(0.1, 1.0) * RATE)


def write(path: Path, samples: I16, pieces: list[Piece]) -> None:
    """The WAV file, and the pieces beside it as CSV."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    with path.with_suffix(".csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["begin_s", "end_s", "digit"])
        rows.writerows([p.begin / RATE, p.end / RATE, p.digit] for p in pieces)
    print(f"{path}: {len(samples) / RATE:.1f} s, {len(pieces)} clips")


def data_folder(argument: Path | None) -> Path:
    """The folder of the data sets: `--data`, else the environment variable EDGEBM_DATA."""
    chosen = argument or Path(os.environ.get("EDGEBM_DATA", ""))
    if not (chosen / "fsdd" / "fsdd.npz").is_file():
        raise SystemExit(f"no fsdd/fsdd.npz in '{chosen}': name its folder with --data")
    return chosen


def main() -> None:
    """Write the four recordings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fsdd/ (default: $EDGEBM_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--minutes", type=float, default=60, help="length of others.wav")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    data, random = data_folder(chosen.data), np.random.default_rng(SEED)
    for name, part in (("keywords", "test"), ("valid", "valid")):
        clips = load(data, part)
        said = clips.digits < (len(WORDS) if part == "test" else 10)
        order = random.permutation(np.flatnonzero(said))
        write(chosen.out / f"{name}.wav", *in_a_row(clips, order, (0.6, 1.2), SEED))
    test = load(data, "test")
    samples, pieces = in_a_row(test, random.permutation(300)[:80], (0.3, 2.0), SEED + 1)
    kept = [piece for piece in pieces if piece.end <= 59 * RATE]
    # What is cut off in the last second by the end of the file is no clip any more.
    samples = samples[: 60 * RATE].copy()
    samples[kept[-1].end :] = mixed(60 * RATE - kept[-1].end, [], [], random)
    write(chosen.out / "demo.wav", samples, kept)
    write(chosen.out / "others.wav", *of_others(test, chosen.minutes, SEED + 2))


if __name__ == "__main__":
    main()
