"""Greedy and beam search over a decoder that takes one token of each hypothesis at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from text import END_ID, START_ID

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
# (tokens [rows], position, parents [rows]) -> scores [rows, vocabulary]
Step = Callable[[I64, int, I64], F32]
LENGTH_PENALTY = 0.6


@dataclass(frozen=True)
class Found:
    """Subwords without start and end, their log probability, and the score that ranks them.

    `ended` is False where the decoder came to the end of its window first.
    """

    ids: list[int]
    log_probability: float
    score: float
    ended: bool


def log_softmax(scores: F32) -> F32:
    """Log probabilities [rows, vocabulary]."""
    above = scores - scores.max(1, keepdims=True)
    normalized: F32 = above - np.log(np.exp(above).sum(1, keepdims=True))
    return normalized


def penalty(length: int, alpha: float) -> float:
    """What log probabilities are divided by (Wu et al. 2016, section 7, equation 14)."""
    return float(((5 + length) / 6) ** alpha)


def greedy(step: Step, limit: int, alpha: float = LENGTH_PENALTY) -> Found:
    """The most likely token at each step, at most `limit` of them."""
    ids: list[int] = []
    tokens, parents, total = np.array([START_ID]), np.zeros(1, np.int64), 0.0
    for position in range(limit):
        scores = step(tokens, position, parents)
        tokens = scores.argmax(1)
        total += float(log_softmax(scores)[0, tokens[0]])
        if tokens[0] == END_ID:
            return Found(ids, total, total / penalty(len(ids) + 1, alpha), ended=True)
        ids.append(int(tokens[0]))
    return Found(ids, total, total / penalty(len(ids), alpha), ended=False)


def best(totals: F32, count: int) -> list[tuple[int, int, float]]:
    """(row, token, total) of the `count` largest that are finite, the largest first."""
    flat, found = totals.reshape(-1).copy(), []
    for _ in range(count):  # a few passes are faster than a partial sort
        at = int(flat.argmax())
        if flat[at] == -np.inf:
            break
        found.append((*divmod(at, totals.shape[1]), float(flat[at])))
        flat[at] = -np.inf
    return found


def beam(step: Step, limit: int, rows: int, alpha: float = LENGTH_PENALTY) -> Found:
    """The best of `rows` hypotheses; each that ends leaves the beam one narrower.

    Steps always have `rows` rows, so that a decoder compiled for them serves all; those without a
    hypothesis have log probability minus infinity. The search ends when no hypothesis can come to
    a better score than the best that has ended, however long it becomes.
    """
    tokens, parents = np.full(rows, START_ID), np.arange(rows)
    totals = np.full((rows, 1), -np.inf, np.float32)
    totals[0] = 0.0
    written: list[list[int]] = [[] for _ in range(rows)]
    ended: list[Found] = []
    for position in range(limit):
        after = log_softmax(step(tokens, position, parents)) + totals
        chosen = best(after, rows - len(ended))
        for row, token, total in chosen:
            if token == END_ID:
                score = total / penalty(len(written[row]) + 1, alpha)
                ended.append(Found(written[row], total, score, ended=True))
        live = [each for each in chosen if each[1] != END_ID]
        written = [[*written[row], token] for row, token, _ in live]
        if not live or _settled(ended, live[0][2] / penalty(limit, alpha)):
            break
        tokens[:], parents[:], totals[:] = END_ID, 0, -np.inf
        for place, (row, token, total) in enumerate(live):
            tokens[place], parents[place], totals[place] = token, row, total
    # The window is full before any has ended.
    cut = [] if ended else zip(written, live, strict=True)
    ended += [Found(ids, t, t / penalty(len(ids), alpha), ended=False) for ids, (_, _, t) in cut]
    return max(ended, key=lambda each: each.score)


def _settled(ended: list[Found], bound: float) -> bool:
    return bool(ended) and max(each.score for each in ended) >= bound
