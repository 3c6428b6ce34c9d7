"""The sister of a GRU before any training: a linear least squares problem.

    behind: n = tanh(W x + Wb + r * (R h + Rb))        before: n = tanh(W' x + b' + R' (r * h))

No weights make the two equal: r acts on the units that are computed, or on those that are read.
But R', W' and b' enter a sum, so the ones that come nearest to the original's sums, over given
inputs and states, have a closed form. The gates z and r stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from edgebm.grad.gru_cell import GruCell, Lesson, states_of
from edgebm.grad.recurrent import reversed_in_time
from edgebm.grad.sequences import Sequences
from edgebm.grad.tensors import to_tensor

# Of the mean of the diagonal: where the data says little, weights stay near the old ones.
_RIDGE = 1e-3


@torch.no_grad()
def regressed(old: GruCell, now: GruCell, lesson: Lesson, *, own_states: bool) -> GruCell:
    """`now` with the candidate gate that comes nearest to the sums of `old`.

    Args:
        old: the original, with the reset behind the product.
        now: its sister so far.
        lesson: what both read.
        own_states: whether the states that R' reads are those that `now` gets itself to; else
            they are the original's.
    """
    teacher, student = old.module(), now.module()
    w, r, b = now.w.copy(), now.r.copy(), now.b.copy()
    gate = slice(2 * old.hidden, 3 * old.hidden)
    for d in range(len(old.w)):
        system = _System(old, now, d)
        for part in lesson.parts():
            wanted = states_of(teacher, part.teacher)
            got = states_of(student, part.student) if own_states else wanted
            system.add(_Steps(old, part.teacher, wanted, d), _Steps(old, part.student, got, d))
        start = np.concatenate([r[d, gate].T, w[d, gate].T, b[d, None, gate]])
        found = system.solved(torch.from_numpy(start).double()).float().numpy()
        r[d, gate], w[d, gate] = found[: old.hidden].T, found[old.hidden : -1].T
        b[d, gate] = found[-1]
    return replace(now, w=w, r=r, b=b)


class _Steps:
    """All steps of direction `d` in one row each: inputs [M, I] and the states before [M, H]."""

    def __init__(self, cell: GruCell, read: Sequences, states: Tensor, d: int) -> None:
        x, y = read.x, states[:, d]
        if cell.runs_backwards(d):
            x, y = (reversed_in_time(each, read.lengths) for each in (x, y))
        inside = read.inside
        self.x = x[inside]
        self.h = torch.cat([read.initial[d, None], y[:-1]])[inside]


class _System:
    """Normal equations of the candidate gate of direction `d`."""

    def __init__(self, old: GruCell, now: GruCell, d: int) -> None:
        self._old, self._now = _Gates(old, d), _Gates(now, d)
        features = old.hidden + old.w.shape[2] + 1
        self._square = torch.zeros(features, features, dtype=torch.float64)
        self._right = torch.zeros(features, old.hidden, dtype=torch.float64)

    def add(self, teacher: _Steps, student: _Steps) -> None:
        """The sums that the original makes, and what the sister makes its own of."""
        wanted = self._old.candidate(teacher)
        ones = student.x.new_ones(len(student.x), 1)
        read = torch.cat([self._now.reset(student) * student.h, student.x, ones], 1).double()
        self._square += read.t() @ read
        self._right += read.t() @ wanted.double()

    def solved(self, start: Tensor) -> Tensor:
        """[H + I + 1, H]: the transposed R', W' and b'; `start` is what they are drawn to."""
        ridge = _RIDGE * self._square.diagonal().mean()
        damped = self._square + ridge * torch.eye(len(self._square), dtype=torch.float64)
        moved = torch.linalg.solve(damped, self._right - self._square @ start)
        found: Tensor = start + moved
        return found


class _Gates:
    """The reset gate of a cell and, with the reset behind the product, the candidate's sum."""

    def __init__(self, cell: GruCell, d: int) -> None:
        w, r, b = (to_tensor(array[d]) for array in (cell.w, cell.r, cell.b))
        self._w, self._r = w.chunk(3), r.chunk(3)
        self._wb, self._rb = (half.chunk(3) for half in b.chunk(2))

    def _sums(self, steps: _Steps, gate: int) -> tuple[Tensor, Tensor]:
        of_x = linear(steps.x, self._w[gate], self._wb[gate])
        return of_x, linear(steps.h, self._r[gate], self._rb[gate])

    def reset(self, steps: _Steps) -> Tensor:
        of_x, of_h = self._sums(steps, 1)
        return torch.sigmoid(of_x + of_h)

    def candidate(self, steps: _Steps) -> Tensor:
        of_x, of_h = self._sums(steps, 2)
        return of_x + self.reset(steps) * of_h
