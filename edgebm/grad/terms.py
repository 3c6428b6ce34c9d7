"""The terms of what a student is taught by: its values against those of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgebm.grad.losses import (
    Objective,
    Tensors,
    attention_divergence,
    classification,
    cosine_distance,
    kl_divergence,
    logs,
    relations,
    relative_mse,
    sample_mean,
)

OutputKind = Literal["logits", "probabilities", "embedding", "values", "both"]
LABELS, INSIDE = "@labels", "@inside"
"""Targets that are no values of the teacher: labels, and which positions count ([N, T])."""
_COSINE = 4.0  # small angles: 1 - cos is half of their square


class Term(nn.Module):
    """One number of the values `fetch` of the student and `wants` of the teacher."""

    weight: float
    fetch: tuple[str, ...]
    wants: tuple[str, ...]

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        raise NotImplementedError


class Lesson(Objective):
    """The weighted sum of terms."""

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self._listed = list(terms)
        self.fetch = tuple(dict.fromkeys(k for term in terms for k in term.fetch))
        self.wants = tuple(dict.fromkeys(k for term in terms for k in term.wants))

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        return torch.stack([term.weight * term(got, want) for term in self._listed]).sum()


class Output(Term):
    """An output against the teacher's, as what it is.

    Logits: KL with temperature. Probabilities: the same of their logarithms. Embeddings: four
    times the cosine distance. Values: error relative to their power. "both" is KL of logits plus
    that error.
    """

    def __init__(
        self, label: str, kind: OutputKind, power: float, temperature: float, axis: int = -1
    ) -> None:
        super().__init__()
        self.weight, self.fetch, self.wants = 1.0, (label,), (label,)
        self.kind, self.power, self.temperature, self.axis = kind, power, temperature, axis

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        mine, aim = got[self.fetch[0]], want[self.wants[0]]
        if self.kind == "embedding":
            return _COSINE * cosine_distance(mine, aim)
        if self.kind == "probabilities":
            return kl_divergence(logs(mine), logs(aim), self.temperature, self.axis)
        error = relative_mse(mine, aim, self.power)
        if self.kind == "values":
            return error
        divergence = kl_divergence(mine, aim, self.temperature, self.axis)
        return divergence + error if self.kind == "both" else divergence


class Feature(Term):
    """A value inside against the teacher's, relative to its power.

    Where one axis is narrower in the student, a learned projection leads from there to the
    teacher's width. Positions that do not count are left out of values [N, T, ...].
    """

    def __init__(
        self,
        mine: str,
        theirs: str,
        power: float,
        axis: int = -1,
        widths: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.weight, self.fetch, self.wants = 1.0, (mine,), (theirs,)
        self.power, self.axis = power, axis
        self.projection = None if widths[0] == widths[1] else nn.Linear(*widths)

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        mine, aim = self.projected(got[self.fetch[0]]), want[self.wants[0]]
        inside = want.get(INSIDE)
        if inside is not None and aim.ndim > 2 and aim.shape[:2] == inside.shape:
            return sample_mean((mine - aim).square(), inside) / self.power
        return relative_mse(mine, aim, self.power)

    def projected(self, mine: Tensor) -> Tensor:
        if self.projection is None:
            return mine
        wide: Tensor = self.projection(mine.movedim(self.axis, -1))
        return wide.movedim(-1, self.axis)

    @torch.no_grad()
    def regress(self, mine: Tensor, aim: Tensor, ridge: float = 1e-3) -> None:
        """Let the projection begin with the least squares fit of `aim` to `mine`."""
        if self.projection is None:
            return
        x = mine.movedim(self.axis, -1).flatten(0, -2).double()
        y = aim.movedim(self.axis, -1).flatten(0, -2).double()
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        square = x.t() @ x
        damped = square + ridge * square.diagonal().mean() * torch.eye(
            len(square), dtype=x.dtype, device=x.device
        )
        found = torch.linalg.solve(damped, x.t() @ y)
        self.projection.weight.copy_(found[:-1].t())
        self.projection.bias.copy_(found[-1])


class Attention(Term):
    """Attention maps of one layer: KL of the student's from the teacher's."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.weight, self.fetch, self.wants = 1.0, (label,), (label,)

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        mine, aim = got[self.fetch[0]], want[self.wants[0]]
        return attention_divergence(mine, aim, want.get(INSIDE))


class Relation(Term):
    """How alike the positions' values are: KL of the student's relations from the teacher's."""

    def __init__(self, label: str, heads: int) -> None:
        super().__init__()
        self.weight, self.fetch, self.wants, self.heads = 1.0, (label,), (label,), heads

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        mine, aim = (
            relations(each, self.heads) for each in (got[self.fetch[0]], want[self.wants[0]])
        )
        return attention_divergence(mine, aim, want.get(INSIDE))


class Labels(Term):
    """The task itself: cross-entropy where labels are whole numbers, else their relative error."""

    def __init__(
        self,
        label: str,
        power: float | None,
        probabilities: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__()
        self.weight, self.fetch, self.wants, self.power = 1.0, (label,), (), power
        self.probabilities = probabilities

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        mine, labels = got[self.fetch[0]], want[LABELS]
        if self.power is None:
            return classification(logs(mine) if self.probabilities else mine, labels)
        return relative_mse(mine, labels.to(mine.dtype).reshape(mine.shape), self.power)
