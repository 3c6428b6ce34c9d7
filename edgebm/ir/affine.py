"""Sums of gates times affine maps: what the pieces of a recurrent cell compute."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgebm.ir.edit import Array
from edgebm.ir.parts import Part

_MOST_TERMS = 8
_MOST_GATES = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """A nonlinear function of some channels of a value."""

    op: str
    part: Part


@dataclass(slots=True)
class Form:
    """An affine map to K channels: the sum of `products`, `direct` and `bias`.

    `products` are part @ [I, K], `direct` part * [K]; `bias` is [K].
    """

    bias: Array
    products: dict[Part, Array] = field(default_factory=dict)
    direct: dict[Part, Array] = field(default_factory=dict)

    @property
    def is_constant(self) -> bool:
        return not self.products and not self.direct

    def scaled(self, factor: Array | np.float32) -> Form:
        """Each output channel times its factor; [K] or one number."""
        return Form(
            self.bias * factor,
            {part: matrix * factor for part, matrix in self.products.items()},
            {part: row * factor for part, row in self.direct.items()},
        )

    def plus(self, other: Form) -> Form:
        return Form(
            self.bias + other.bias,
            summed(self.products, other.products),
            summed(self.direct, other.direct),
        )


Gates = frozenset[Gate]
Expression = dict[Gates, Form]
NO_GATES: Gates = frozenset()


def summed(a: dict[Part, Array], b: dict[Part, Array]) -> dict[Part, Array]:
    return a | {part: a[part] + array if part in a else array for part, array in b.items()}


class NotAffine(Exception):
    """The value is no sum of gates times affine maps: it stays a value of its own."""


def added(a: Expression, b: Expression, sign: np.float32) -> Expression:
    found = dict(a)
    for gates, form in b.items():
        term = form if sign == 1 else form.scaled(sign)
        found[gates] = found[gates].plus(term) if gates in found else term
    return found


def times(a: Expression, b: Expression) -> Expression:
    found: Expression = {}
    for left, f in a.items():
        for right, g in b.items():
            if left & right or len(left | right) > _MOST_GATES:
                raise NotAffine
            if f.is_constant:
                term = g.scaled(f.bias)
            elif g.is_constant:
                term = f.scaled(g.bias)
            else:
                raise NotAffine
            found = added(found, {left | right: term}, np.float32(1))
    return found


def pruned(found: Expression) -> Expression:
    """Without terms that are zero.

    Raises:
        NotAffine: too many terms to be a cell.
    """
    kept: Expression = {}
    for gates, form in found.items():
        direct = {part: row for part, row in form.direct.items() if row.any()}
        products = {part: m for part, m in form.products.items() if m.any()}
        if direct or products or form.bias.any():
            kept[gates] = Form(form.bias, products, direct)
    if len(kept) > _MOST_TERMS:
        raise NotAffine
    return kept
