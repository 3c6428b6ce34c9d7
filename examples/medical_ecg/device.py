"""Tells normal from abnormal heartbeats on the device: numpy and edgebm, no torch.

    python examples/medical_ecg/device.py ecg/beats.edgebm ecg/test.npz

The file holds `beat`, float [N, 140], in any unit: each beat is brought to mean 0 and deviation 1
as in training. With `labels` [N] (0 normal, 1 abnormal) the summary counts what was right. A beat
that cannot be judged (NaN, another length, a flat line) gets no verdict, and says why.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgebm
from edgebm.errors import EdgebmError, InputError

NAMES = ("normal", "abnormal")
FLAT = 1e-6  # deviation of a line without a beat, in the unit of the recording


def standardized(beat: NDArray[Any]) -> NDArray[np.float32]:
    """A beat [140] as the model takes it, [1, 140].

    Raises:
        InputError: it holds NaN or infinity, or is a flat line.
    """
    # Here and not in edgebm: the division below would spread one NaN over the whole beat.
    odd = np.flatnonzero(~np.isfinite(beat))
    if odd.size:
        raise InputError(
            f"{odd.size} of {beat.size} values are NaN or infinite, the first at {odd[0]}",
            hint="leave out beats that were not recorded in full",
        )
    deviation = beat.std(ddof=1)
    if deviation < FLAT:
        raise InputError("a flat line", hint="check the electrodes")
    return np.asarray((beat - beat.mean()) / deviation, np.float32)[None]


def verdict(session: edgebm.Session, beat: NDArray[Any]) -> tuple[int, float, list[str]]:
    """Class, its probability as the model sees it, and what is odd about the beat.

    Raises:
        InputError: the beat cannot be judged.
    """
    answer = session.run(beat=standardized(beat))
    scores = answer["scores"][0].astype(np.float64)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    place = int(shares.argmax())
    return place, float(shares[place]), [doubt.message for doubt in answer.doubts]


def read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    with np.load(path, allow_pickle=False) as file:
        if "beat" not in file:
            sys.exit(f"error: {path} holds {', '.join(file)}, and no array called beat")
        if file["beat"].ndim != 2:
            sys.exit(f"error: beat in {path} has the shape {file['beat'].shape}, not [N, 140]")
        return file["beat"], file.get("labels")


def summary(found: list[int | None], labels: NDArray[Any] | None) -> str:
    judged = [place for place in found if place is not None]
    lines = [
        f"{len(found)} beats: {judged.count(0)} normal, {judged.count(1)} abnormal, "
        f"{len(found) - len(judged)} without a verdict"
    ]
    for truth, name in enumerate(NAMES if labels is not None else ()):
        assert labels is not None
        seen = [p for p, label in zip(found, labels, strict=True) if label == truth]
        measure = ("specificity", "sensitivity")[truth]
        lines.append(f"{measure}: {seen.count(truth)} of {len(seen)} {name} beats told as such")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("samples", type=Path, help=".npz with beat, and labels if known")
    arguments = parser.parse_args()
    beats, labels = read(arguments.samples)
    found: list[int | None] = []
    with edgebm.load(arguments.bundle) as session:
        for number, beat in enumerate(beats):
            try:
                place, share, doubts = verdict(session, beat)
            except InputError as error:
                found.append(None)
                print(f"beat {number}: no verdict: {error}")
                continue
            found.append(place)
            doubtful = f"; doubtful: {'; '.join(doubts)}" if doubts else ""
            print(f"beat {number}: {NAMES[place]} ({share:.2f}){doubtful}")
    print(summary(found, labels))


if __name__ == "__main__":
    try:
        main()
    except EdgebmError as error:
        sys.exit(f"error: {error}\nhint:  {error.hint}")
