"""From samples to detections: features, one step of the model each 10 ms, and the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from features import BANDS, F32, I16, LogMel, end_s

if TYPE_CHECKING:
    from edgebm.runtime.stream import Stream

WORDS = ("zero", "one", "two", "three", "four", "five")  # the classes 1 to 6; 0 is all else
SMOOTH_FRAMES = 15  # the mean of 150 ms decides
REFRACTORY_FRAMES = 50  # after a detection nothing is detected for 500 ms
THRESHOLD = 0.7  # chosen on recordings that neither training nor the figures use


@dataclass(frozen=True, slots=True)
class Detection:
    """A word, when it was certain (seconds after the first sample), and its mean posterior."""

    time_s: float
    word: str
    score: float


class Decision:
    """Smooths the posteriors of single frames, and says when one is certain."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._recent = np.zeros((SMOOTH_FRAMES, len(WORDS) + 1), np.float32)
        self._frame = 0
        self._quiet_until = 0

    def push(self, scores: F32) -> Detection | None:
        """The detection that this frame's scores [7] complete, if any."""
        odds = np.exp(scores - scores.max())
        self._recent[self._frame % SMOOTH_FRAMES] = odds / odds.sum()
        frame, self._frame = self._frame, self._frame + 1
        if frame < self._quiet_until:
            return None
        certain = self._recent.sum(0)
        best = int(certain[1:].argmax())
        score = float(certain[best + 1]) / SMOOTH_FRAMES
        if score < self._threshold:
            return None
        self._quiet_until = frame + REFRACTORY_FRAMES
        return Detection(end_s(frame), WORDS[best], score)


class Listener:
    """Listens to one microphone or recording; every state is carried from chunk to chunk."""

    def __init__(
        self, stream: Stream, threshold: float = THRESHOLD, *, keep: bool = False
    ) -> None:
        self._stream = stream
        self._features = LogMel()
        self._decision = Decision(threshold)
        self._step = np.empty((1, 1, BANDS), np.float32)
        self._keep = keep
        self.scores: list[F32] = []  # of every frame, with `keep`

    def push(self, samples: I16) -> list[Detection]:
        """The detections that `samples` complete."""
        found = []
        for frame in self._features.push(samples):
            self._step[0, 0] = frame
            scores = self._stream.step(self._step)["scores"].ravel()
            if self._keep:
                self.scores.append(scores.copy())
            if detection := self._decision.push(scores):
                found.append(detection)
        return found
