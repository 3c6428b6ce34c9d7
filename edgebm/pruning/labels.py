"""Labels of elements: equal ones live or go together, and some may never go."""

from __future__ import annotations

import numpy as np

from edgebm.pruning.group import Index

_FREE = np.iinfo(np.int64).max


class Labels:
    """Sets of labels that grow together (union-find over arrays), each free or frozen."""

    def __init__(self) -> None:
        self._parent = np.empty(0, np.int64)
        self._why = np.empty(0, np.int64)  # number of the first reason, at the root
        self._count = 0
        self.reasons: list[tuple[str, str]] = []
        """Node name and sentence of every freeze, in order."""

    def fresh(self, count: int) -> Index:
        """New labels [count], each a set of its own."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._parent):
            grown = np.arange(max(1024, 2 * self._count))
            grown[: len(self._parent)] = self._parent
            why = np.full(len(grown), _FREE)
            why[: len(self._why)] = self._why
            self._parent, self._why = grown, why
        return np.arange(start, self._count)

    def __len__(self) -> int:
        return self._count

    def roots(self, labels: Index) -> Index:
        """The label that stands for each one's set, of the same shape."""
        found = self._parent[labels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                self._parent[labels] = found
                return found
            found = above

    def tie(self, a: Index, b: Index) -> None:
        """Element by element, make the sets of `a` and `b` one; shapes broadcast."""
        a, b = (side.reshape(-1) for side in np.broadcast_arrays(a, b))
        first, second = self.roots(a), self.roots(b)
        before = np.unique(np.concatenate([first, second]))
        while (apart := first != second).any():
            high, low = np.maximum(first, second)[apart], np.minimum(first, second)[apart]
            np.minimum.at(self._parent, high, low)
            first, second = self.roots(first), self.roots(second)
        np.minimum.at(self._why, self.roots(before), self._why[before])

    def freeze(self, labels: Index, node: str, sentence: str) -> None:
        """Keep these whole, whatever is tied to them; the first reason counts."""
        if labels.size:
            roots = self.roots(labels)
            self._why[roots] = np.minimum(self._why[roots], len(self.reasons))
            self.reasons.append((node, sentence))

    def is_frozen(self, labels: Index) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which of these may not go, of the same shape."""
        frozen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (
            self._why[self.roots(labels)] != _FREE
        )
        return frozen

    def reason(self, label: int) -> tuple[str, str]:
        """Node name and sentence of what froze `label`."""
        number = int(self._why[self.roots(np.asarray([label]))[0]])
        return self.reasons[number]
