"""Samples of the decoder for `edgebm compress`, from `decoder.npz` that train.py wrote.

The environment variable TRANSLATE names the folder. Sentences are fed as they should be written
(teacher forcing): no search, and float and int8 see the same tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[Any]]
CALIBRATION = 48  # of the sentences; the others judge
_PADDING_ID = 0  # as in text.py, which is not found where edgebm loads this file


def sequences(part: slice) -> Iterator[tuple[Feeds, NDArray[np.int64]]]:
    """Feeds [T, ...] for each sentence, and the token [T] that should come next."""
    with np.load(Path(os.environ["TRANSLATE"]) / "decoder.npz") as file:
        rows = {name: file[name][part] for name in file.files}
    for k, tokens in enumerate(rows.pop("tokens")):
        written = tokens[tokens != _PADDING_ID]
        steps = len(written) - 1
        feeds = {
            name: np.broadcast_to(array[k], (steps, 1, *array.shape[1:]))
            for name, array in rows.items()
        }
        feeds["input_ids"] = written[:-1, None, None]
        feeds["position"] = np.arange(steps)[:, None]
        feeds["parents"] = np.zeros((steps, 1), np.int64)
        yield feeds, written[1:]


def calibration() -> Iterator[Feeds]:
    """For `--data`: training sentences, one a sample."""
    for feeds, _ in sequences(slice(CALIBRATION)):
        yield {name: array[None] for name, array in feeds.items()}


def next_token(run: Callable[[Feeds], Feeds]) -> float:
    """For `--eval`: how often the most likely token is the right one, on held-out sentences."""
    hits, count = 0, 0
    for feeds, labels in sequences(slice(CALIBRATION, None)):
        scores = run(feeds)["logits"]
        hits += int((scores.reshape(len(labels), -1).argmax(1) == labels).sum())
        count += len(labels)
    return 100 * hits / count


next_token.unit = "points"  # type: ignore[attr-defined]
