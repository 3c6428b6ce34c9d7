"""False rejects and false accepts per hour of bundles, by the loop that runs on the device.

    python judge.py voice/fp32.edgebm voice/int8.edgebm --folder voice
    python judge.py voice/fp32.edgebm --folder voice --recordings valid --thresholds 0.5,0.6,0.7

A keyword is found if it is detected between its begin and 0.4 s after its end, once; every other
detection is a false accept.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audio import wav_chunks
from features import F32, RATE
from recordings import Piece
from spotter import THRESHOLD, WORDS, Decision, Detection, Listener

import edgebm

_LATE_S = 0.4


def pieces_of(path: Path) -> list[Piece]:
    """What is said when in a recording, from the CSV beside it."""
    with path.with_suffix(".csv").open(newline="") as file:
        rows = [
            (float(r["begin_s"]), float(r["end_s"]), int(r["digit"])) for r in csv.DictReader(file)
        ]
    return [Piece(round(begin * RATE), round(end * RATE), digit) for begin, end, digit in rows]


def scores_of(session: Any, path: Path) -> tuple[list[F32], float]:
    """The scores of every frame of a recording, and its length in seconds."""
    samples = 0
    with session.stream() as stream:
        listener = Listener(stream, keep=True)
        for chunk in wav_chunks(path, [800]):
            samples += len(chunk)
            listener.push(chunk)
    return listener.scores, samples / RATE


def detections(scores: Sequence[F32], threshold: float) -> list[Detection]:
    """What is detected with this threshold."""
    decision = Decision(threshold)
    return [found for row in scores if (found := decision.push(row))]


def count(found: Sequence[Detection], pieces: Sequence[Piece]) -> dict[str, int]:
    """How many keywords there are, how many are missed, and how many detections are false."""
    wanted = [piece for piece in pieces if 0 <= piece.digit < len(WORDS)]
    met: set[Piece] = set()
    for one in found:
        at = one.time_s * RATE
        for piece in wanted:
            said = piece.begin <= at <= piece.end + _LATE_S * RATE
            if said and WORDS[piece.digit] == one.word and piece not in met:
                met.add(piece)
                break
    return {"words": len(wanted), "missed": len(wanted) - len(met), "false": len(found) - len(met)}


def judged(session: Any, path: Path, thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """One row for each threshold."""
    (scores, seconds), pieces = scores_of(session, path), pieces_of(path)
    rows = []
    for threshold in thresholds:
        row: dict[str, Any] = {"recording": path.stem, "hours": seconds / 3600}
        row |= {"threshold": threshold} | count(detections(scores, threshold), pieces)
        rows.append(row | {"false_per_hour": row["false"] * 3600 / seconds})
    return rows


def main() -> None:
    """Print a line for each bundle, recording and threshold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="what recordings.py wrote")
    parser.add_argument("--recordings", default="keywords,others", help="names, with commas")
    parser.add_argument("--thresholds", default=str(THRESHOLD), help="with commas")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    chosen = parser.parse_args()
    thresholds = [float(text) for text in chosen.thresholds.split(",")]
    rows = []
    for bundle in chosen.bundles:
        with edgebm.load(bundle, threads=1) as session:
            for name in chosen.recordings.split(","):
                for row in judged(session, chosen.folder / f"{name}.wav", thresholds):
                    rows.append({"bundle": bundle.name} | row)
                    print(
                        f"{bundle.name} on {name} ({row['hours']:.3f} h), threshold "
                        f"{row['threshold']}: {row['missed']} of {row['words']} missed, "
                        f"{row['false']} false ({row['false_per_hour']:.1f} per hour)",
                        flush=True,
                    )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
