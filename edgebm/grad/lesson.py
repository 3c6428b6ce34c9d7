"""What a student is compared with its teacher by, chosen from the two graphs and a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.errors import DataError, UsageError
from edgebm.grad.inside import found_inside
from edgebm.grad.pair import Pair, Probe, Seen, power_of, seen_by
from edgebm.grad.teaching import Outputs, Teaching
from edgebm.grad.terms import Labels, Lesson, Output, OutputKind, Term
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT, is_float

# What they give lies within bounds of its own: no logits.
_BOUNDED = RECURRENT | {
    "Tanh", "Sigmoid", "Relu", "Clip", "HardSigmoid", "LayerNormalization", "Sin", "Cos",
}  # fmt: skip


@dataclass(slots=True)
class Plan:
    """The terms, and sentences on what was left out, each with the name it is about."""

    outputs: list[Term] = field(default_factory=list)
    others: list[Term] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def lesson(self) -> Lesson:
        """All of it."""
        return Lesson([*self.outputs, *self.others])


@torch.no_grad()
def planned(pair: Pair, probes: Sequence[Probe], teaching: Teaching) -> Plan:
    """The terms of the loss, with the powers they are relative to, measured on `probes`.

    Raises:
        UsageError: every feature that a graph does not have; outputs of other sizes than the
            teacher's, all of them; nothing to learn from.
        DataError: labels are to be learned, and there are none that fit an output.
    """
    inside = found_inside(pair, teaching)
    outputs = [name(v) for v in pair.teacher.graph.graph.outputs if is_float(v)]
    seen = seen_by(pair, probes, [*outputs, *inside.fetched], [*outputs, *inside.wanted])
    _check_sizes(outputs, seen)
    plan = Plan(others=list(inside.terms(seen, teaching.weights)), left_out=inside.left_out)
    if teaching.weights.outputs:
        for label in outputs:
            _add_output(plan, pair.teacher, label, seen, teaching)
    if teaching.weights.labels:
        plan.outputs.append(_labels(outputs, seen, teaching.weights.labels))
    if not plan.outputs and not plan.others:
        raise UsageError(
            "there is nothing to learn by: all losses are 0, or no value fits",
            hint="give losses.outputs a weight above 0",
        )
    return plan


def _check_sizes(outputs: list[str], seen: Seen) -> None:
    faults = [
        f"{label} is {list(seen.want[label].shape)} in the teacher and "
        f"{list(seen.got[label].shape)} in the student"
        for label in outputs
        if seen.got[label].shape != seen.want[label].shape
    ]
    if faults:
        raise UsageError(
            f"outputs of the student have other sizes: {'; '.join(faults)}",
            hint="give a student with the outputs of its teacher",
            details={"faults": faults},
        )


def output_kind(values: Tensor, op_type: str, wanted: Outputs = "auto") -> tuple[OutputKind, int]:
    """What an output is by the values [N, ...] that a teacher gives, and its axis of classes.

    Rows that are not negative and add up to 1, along the last axis or axis 1, are probabilities.
    Rows of length 1 are embeddings. Other outputs of rank 2 or 3 may be logits or not: they are
    compared as both. All else are values: other ranks, single numbers, and what comes out of an
    op with bounds of its own.
    """
    axis = 1 if values.ndim > 3 else -1
    if values.ndim < 2 or values.shape[axis] < 2:
        return "values", axis
    for along in (-1, 1):
        sums = values.sum(along)
        if bool((values >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            return "probabilities", along
    if wanted != "auto":
        return wanted, axis
    if values.ndim > 3:
        return "values", axis
    lengths = values.norm(dim=-1)
    if torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3):
        return "embedding", axis
    return ("values" if op_type in _BOUNDED else "both"), axis


def _add_output(plan: Plan, teacher: Model, label: str, seen: Seen, teaching: Teaching) -> None:
    values, power = seen.want[label], seen.powers[label]
    value = next(v for v in teacher.graph.graph.outputs if name(v) == label)
    producer = value.producer()
    op_type = "" if producer is None else producer.op_type
    kind, axis = output_kind(values, op_type, teaching.outputs)
    if kind in ("values", "both") and teaching.outputs == "auto" and _classes(seen.labels, values):
        kind = "both"
    if power == 0.0:
        plan.left_out.append((label, "the teacher gives 0 for all samples there"))
        return
    term = Output(label, kind, power, teaching.temperature, axis)
    term.weight = teaching.weights.outputs
    plan.outputs.append(term)


def _classes(labels: NDArray[Any] | None, values: Tensor) -> bool:
    """Whether the labels are numbers of the classes that an output of shape [N, C, ...] has."""
    if labels is None or labels.dtype.kind not in "iu" or values.ndim < 2:
        return False
    axis = 1 if values.ndim > 3 else -1
    rest = list(values.shape)
    classes = rest.pop(axis)
    return list(labels.shape) == rest and int(labels.max()) < classes


def _labels(outputs: list[str], seen: Seen, weight: float) -> Labels:
    if seen.labels is None:
        raise DataError(
            "losses.labels is above 0, and the samples have no labels",
            hint="give labels with the samples, or set losses.labels to 0",
        )
    term: Labels | None = None
    for label in outputs:
        values = seen.want[label]
        if _classes(seen.labels, values):
            term = Labels(label, None, output_kind(values, "")[0] == "probabilities")
        elif seen.labels.size == values.numel():
            term = Labels(label, power_of(torch.from_numpy(seen.labels.astype("f4"))) or 1.0)
        if term is not None:
            term.weight = weight
            return term
    raise DataError(
        f"losses.labels is above 0, and labels {list(seen.labels.shape)} fit no output: "
        + ", ".join(f"{k} {list(seen.want[k].shape)}" for k in outputs),
        hint="labels are class numbers [N] of an output [N, C], or numbers of its own shape",
    )
