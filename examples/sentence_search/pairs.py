"""The sentence pairs of STS-B, and the score that is taken on them."""

from __future__ import annotations

import csv
import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import DataError


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two sentences each [n], and how alike people found them, 0 to 5 [n]."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """One pair a line, as JSON."""
        rows = zip(self.first, self.second, self.scores.tolist(), strict=True)
        lines = (json.dumps({"text": a, "text_pair": b, "score": score}) for a, b, score in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_pairs(path: Path) -> Pairs:
    """What `Pairs.save` wrote.

    Raises:
        DataError: it is missing, or no such file.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        first, second = ([row[key] for row in rows] for key in ("text", "text_pair"))
        scores = np.array([row["score"] for row in rows], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{path} cannot be read as pairs with scores: {cause!r}",
            hint="train.py writes test.jsonl and dev.jsonl into its folder",
        ) from cause
    return Pairs(first, second, scores)


def data_folder(argument: Path | None) -> Path:
    """The folder of the data sets: `--data`, else the environment variable EDGEBM_DATA.

    Raises:
        DataError: STS-B does not lie in it.
    """
    chosen = argument or Path(os.environ.get("EDGEBM_DATA", ""))
    if not (chosen / "stsb" / "stsb_train.tsv.gz").is_file():
        raise DataError(
            f"no stsb/stsb_train.tsv.gz in '{chosen}'",
            hint="name the folder that holds stsb/ with --data PATH or EDGEBM_DATA=PATH",
        )
    return chosen


def read_stsb(data: Path, part: str) -> Pairs:
    """One part (train, dev, test) of STS-B: columns score, sentence1, sentence2."""
    path = data / "stsb" / f"stsb_{part}.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE))
    first, second = ([row[key].strip() for row in rows] for key in ("sentence1", "sentence2"))
    return Pairs(first, second, np.array([float(row["score"]) for row in rows]))


def read_captions(data: Path) -> list[str]:
    """English sentences of Multi30k's training set; none where it is not at hand."""
    path = data / "multi30k_en_de" / "train.en.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as text:
        return [line.strip() for line in text if line.strip()]


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (2 * last - counts - 1) / 2
    return shared[inverse]


def spearman(
    first: NDArray[np.float32], second: NDArray[np.float32], scores: NDArray[np.float64]
) -> float:
    """100 times the rank correlation of cosine similarity and score.

    Args:
        first: embeddings [n, width].
        second: those of the other sentences, [n, width].
        scores: [n].

    Source:
        Spearman 1904; on STS-B as Reimers & Gurevych 2019 (arXiv:1908.10084), section 4.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(100 * np.corrcoef(ranks(cosine), ranks(scores))[0, 1])
