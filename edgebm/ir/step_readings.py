"""The weights of a step, and which of its inputs is the state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgebm.ir.affine import Form
from edgebm.ir.edit import Array
from edgebm.ir.parts import Part
from edgebm.ir.recurrent import GATES
from edgebm.ir.steps import Step

_RTOL, _ATOL = 1e-5, 1e-6


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to take a step: which part is h, and the weights that follow from it.

    G gates, H units: `w` is [G * H, I], `r` [G * H, H], `wb` and `rb` [G * H]; `xs` are the
    parts whose channels are the I inputs.
    """

    h: Part
    xs: tuple[Part, ...]
    w: Array
    r: Array
    wb: Array
    rb: Array
    kind: tuple[bool, str]
    """Whether the reset is behind the product, and the activation."""

    def equals(self, other: Reading) -> bool:
        same = self.kind == other.kind and all(
            a.shape == b.shape and (a is b or bool((a == b).all()))
            for a, b in ((self.w, other.w), (self.r, other.r))
        )
        return same and _close(self.wb, other.wb) and _close(self.rb, other.rb)


def starts(step: Step, reading: Reading) -> tuple[Part, ...] | None:
    """The inputs of a first step from zero states, if it has the weights of `reading`."""
    letters = GATES[step.op]
    xs = _parts(step.gates.values())
    if [x.width for x in xs] != [x.width for x in reading.xs]:
        return None
    if step.activation != reading.kind[1]:
        return None
    rows = reading.w.reshape(len(letters), -1, reading.w.shape[1])
    wb, rb = (b.reshape(len(letters), -1) for b in (reading.wb, reading.rb))
    for k, letter in enumerate(letters):
        form = step.gates.get(letter)
        if form is None:
            continue
        if not np.array_equal(_matrix(form, xs), rows[k]):
            return None
        if step.behind_reset is not None and letter == "h":
            if not (_close(form.bias, wb[k]) and _close(step.behind_reset.bias, rb[k])):
                return None
        elif not _close(form.bias, wb[k] + rb[k]):
            return None
    return xs


def readings(step: Step) -> Iterator[Reading]:
    """The ways to take a step that has all its gates; the most usual one first."""
    if set(step.gates) != set(GATES[step.op]):
        return
    parts = _parts(step.gates.values())
    if step.h is not None:
        candidates = [step.h]
    elif step.op == "GRU":
        return
    else:
        # x W + h R: the state comes last. One that lies beside c in a tensor is surely it.
        candidates = [part for part in reversed(parts) if part.width == step.width]
        candidates.sort(key=lambda part: step.c is None or part.value is not step.c.value)
    for h in candidates:
        xs = tuple(part for part in parts if part != h)
        if xs:
            yield _reading(step, h, xs)


def _reading(step: Step, h: Part, xs: tuple[Part, ...]) -> Reading:
    letters, units = GATES[step.op], step.width
    forms = [step.gates[letter] for letter in letters]
    inner = list(forms)
    rb = [np.zeros(units, np.float32) for _ in letters]
    if step.behind_reset is not None:
        inner[-1], rb[-1] = step.behind_reset, step.behind_reset.bias
    return Reading(
        h,
        xs,
        np.concatenate([_matrix(form, xs) for form in forms]),
        np.concatenate([_matrix(form, (h,)) for form in inner]),
        np.concatenate([form.bias for form in forms]),
        np.concatenate(rb),
        (step.behind_reset is not None, step.activation),
    )


def _parts(forms: Iterable[Form]) -> tuple[Part, ...]:
    found: dict[Part, None] = {}
    for form in forms:
        found |= dict.fromkeys(form.products)
    return tuple(found)


def _matrix(form: Form, parts: tuple[Part, ...]) -> Array:
    """The rows [H, I] that make a gate from some parts; zeros where it does not read one."""
    units = len(form.bias)
    blocks = [form.products.get(part, np.zeros((part.width, units), np.float32)) for part in parts]
    return np.concatenate(blocks).T


def _close(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=_RTOL, atol=_ATOL))
