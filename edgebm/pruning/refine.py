"""How the axes of a value before and behind a Reshape are made of the same factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgebm.ir.dims import Free, shape_array

Size = int | Free


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of one axis before and of one axis behind; several follow from the left."""

    size: Size
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Part:
    """Axes before and behind that share factors; no `factors` where they cannot be told."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    factors: tuple[Factor, ...]


def sizes(value: ir.Value) -> list[Size] | None:
    """The shape of `value`, free sizes as products of names; None if its rank is not known."""
    shape = shape_array(value)
    return None if shape is None else list(shape)


def refine(before: Sequence[Size], after: Sequence[Size]) -> list[Part]:
    """Parts of the axes of a reshape from `before` to `after`, from left to right.

    [N, 768] to [N, 12, 64] gives N; 12 and 64. Axes of size 1 belong to no part. What cannot
    be told (unnamed sizes, [4, 6] to [3, 8]) is one part without factors in the middle.
    """
    left, right = _wide(before), _wide(solved(before, after))
    head, left, right = _run(left, right)
    tail, left, right = _run(left[::-1], right[::-1])
    middle = []
    if left or right:
        axes = [tuple(sorted(axis for axis, _ in side)) for side in (left, right)]
        middle = [Part(axes[0], axes[1], ())]
    # Factors were found from the right: each axis' own are put back into order.
    back = [Part(p.before[::-1], p.after[::-1], p.factors[::-1]) for p in tail[::-1]]
    return [*head, *middle, *back]


def _wide(shape: Sequence[Size]) -> list[tuple[int, Size]]:
    return [(axis, size) for axis, size in enumerate(shape) if size != 1]


def solved(before: Sequence[Size], after: Sequence[Size]) -> list[Size]:
    """`after`, with the one size that has other names than `before` found by division."""
    names = {label for size in before if isinstance(size, Free) for label in size.names}
    strange = [
        axis
        for axis, size in enumerate(after)
        if isinstance(size, Free) and not names.issuperset(size.names)
    ]
    found = list(after)
    if len(strange) == 1:
        rest = [size for axis, size in enumerate(after) if axis != strange[0]]
        quotient = divided(_product(before), _product(rest))
        if quotient is not None:
            found[strange[0]] = quotient
    return found


def _product(shape: Sequence[Size]) -> Size:
    total: Size = 1
    for size in shape:
        total = total * size
    return total


def divided(a: Size, b: Size) -> Size | None:
    """A / b, or None where b is no divisor of a."""
    names = list(a.names) if isinstance(a, Free) else []
    factor = a.factor if isinstance(a, Free) else a
    for label in b.names if isinstance(b, Free) else ():
        if label not in names:
            return None
        names.remove(label)
    by = b.factor if isinstance(b, Free) else b
    if by == 0 or factor % by:
        return None
    return Free(tuple(names), factor // by) if names else factor // by


def _run(
    left: list[tuple[int, Size]], right: list[tuple[int, Size]]
) -> tuple[list[Part], list[tuple[int, Size]], list[tuple[int, Size]]]:
    """Parts from one end as far as it goes, and what is left of both sides."""
    parts: list[Part] = []
    i = j = 0
    while i < len(left) and j < len(right):
        found = _part(left[i:], right[j:])
        if found is None:
            break
        parts.append(found)
        i, j = i + len(found.before), j + len(found.after)
    return parts, left[i:], right[j:]


def _part(left: list[tuple[int, Size]], right: list[tuple[int, Size]]) -> Part | None:
    """The first axes on both sides with the same product, as common factors."""
    factors: list[Factor] = []
    i = j = 0
    a, b = left[0][1], right[0][1]
    while a != b:
        from_left, from_right = divided(b, a), divided(a, b)
        if from_left is not None:
            factors.append(Factor(a, left[i][0], right[j][0]))
            i, b = i + 1, from_left
        elif from_right is not None:
            factors.append(Factor(b, left[i][0], right[j][0]))
            j, a = j + 1, from_right
        if (from_left is None and from_right is None) or i == len(left) or j == len(right):
            return None
        a, b = (left[i][1], b) if from_left is not None else (a, right[j][1])
    factors.append(Factor(a, left[i][0], right[j][0]))
    axes = [left[k][0] for k in range(i + 1)], [right[k][0] for k in range(j + 1)]
    return Part(tuple(axes[0]), tuple(axes[1]), tuple(factors))
