"""What a student is compared with its teacher by, chosen from the two graphs and a few samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebm.errors import DataError, UsageError
from edgebm.grad.module import GraphModule
from edgebm.grad.teaching import Outputs, Teaching
from edgebm.grad.terms import (
    Attention,
    Feature,
    Labels,
    Lesson,
    Output,
    OutputKind,
    Relation,
    Term,
)
from edgebm.ir.edit import name
from edgebm.ir.landmarks import AttentionPlace, attentions, landmarks, shared_landmarks, thinned
from edgebm.ir.model import Model
from edgebm.ir.traits import RECURRENT, is_float

# What they give lies within bounds of its own: no logits.
_BOUNDED = RECURRENT | {
    "Tanh", "Sigmoid", "Relu", "Clip", "HardSigmoid", "LayerNormalization", "Sin", "Cos",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """A student and its teacher, as graphs and as modules."""

    student: Model
    teacher: Model
    pupil: GraphModule
    master: GraphModule


@dataclass(frozen=True, slots=True)
class Probe:
    """A few samples: `feeds` of a batch, the classes or numbers wanted, and where each counts."""

    feeds: Mapping[str, Tensor]
    labels: NDArray[Any] | None = None


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
def planned(pair: Pair, probe: Probe, teaching: Teaching) -> Plan:
    """The terms of the loss, with the powers they are relative to, measured on `probe`.

    Raises:
        UsageError: every feature that a graph does not have; nothing to learn from.
        DataError: labels are to be learned, and there are none that fit an output.
    """
    plan = Plan()
    named = _features(pair, teaching, plan)
    places = _attentions(pair, teaching, plan)
    outputs = [name(v) for v in pair.teacher.graph.graph.outputs if is_float(v)]
    theirs = [*outputs, *(t for t, _ in named), *(v for t, _ in places for v in _both(t))]
    mine = [*(s for _, s in named), *(v for _, s in places for v in _both(s)), *outputs]
    want = {k: v.float() for k, v in pair.master(probe.feeds, list(dict.fromkeys(theirs))).items()}
    got = {k: v.float() for k, v in pair.pupil(probe.feeds, list(dict.fromkeys(mine))).items()}
    if teaching.weights.outputs:
        for label in outputs:
            _add_output(plan, pair.teacher, label, want[label], probe, teaching)
    for teacher_name, student_name in named:
        _add_feature(plan, teacher_name, student_name, got, want, teaching.weights.features)
    for teacher_place, student_place in places:
        _add_attention(plan, teacher_place, student_place, got, want, teaching)
    if teaching.weights.labels:
        plan.outputs.append(_labels(outputs, want, probe, teaching.weights.labels))
    if not plan.outputs and not plan.others:
        raise UsageError(
            "there is nothing to learn by: all losses are 0, or no value fits",
            hint="give losses.outputs a weight above 0",
        )
    return plan


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


def _add_output(
    plan: Plan, teacher: Model, label: str, values: Tensor, probe: Probe, teaching: Teaching
) -> None:
    value = next(v for v in teacher.graph.graph.outputs if name(v) == label)
    producer = value.producer()
    op_type = "" if producer is None else producer.op_type
    kind, axis = output_kind(values, op_type, teaching.outputs)
    if kind in ("values", "both") and teaching.outputs == "auto" and _classes(probe, values):
        kind = "both"
    power = _power(values)
    if power == 0.0:
        plan.left_out.append((label, "the teacher gives 0 for all samples there"))
        return
    term = Output(label, kind, power, teaching.temperature, axis)
    term.weight = teaching.weights.outputs
    plan.outputs.append(term)


def _classes(probe: Probe, values: Tensor) -> bool:
    """Whether the labels are numbers of the classes that an output of shape [N, C, ...] has."""
    labels = probe.labels
    if labels is None or labels.dtype.kind not in "iu" or values.ndim < 2:
        return False
    axis = 1 if values.ndim > 3 else -1
    rest = list(values.shape)
    classes = rest.pop(axis)
    return list(labels.shape) == rest and int(labels.max()) < classes


def _features(pair: Pair, teaching: Teaching, plan: Plan) -> list[tuple[str, str]]:
    """Pairs of names, the teacher's first."""
    if not teaching.weights.features:
        return []
    known = [_floats(model) for model in (pair.teacher, pair.student)]
    if teaching.features is None:
        common = shared_landmarks(pair.teacher, pair.student)
        if not common:
            plan.left_out.append(("features", "the graphs share no value between blocks"))
        return [(label, label) for label in thinned(common)]
    pairs = [_split(text, known) for text in teaching.features]
    faults = [
        f"'{label}' is no float value of the {whose}"
        for each in pairs
        for label, names, whose in zip(each, known, ("teacher", "student"), strict=True)
        if label not in names
    ]
    if faults:
        raise UsageError(
            "features: " + "; ".join(faults),
            hint="name values of both graphs, or pairs as teacher's=student's; some of them are "
            + ", ".join(thinned(landmarks(pair.teacher))),
        )
    return pairs


def _split(text: str, known: list[set[str]]) -> tuple[str, str]:
    if text in known[0]:  # names may hold a = themselves
        return text, text
    theirs, _, mine = text.partition("=")
    return theirs, mine or theirs


def _floats(model: Model) -> set[str]:
    """Names of what nodes compute, but for what is known to be no float."""
    computed = (v for node in model.nodes() for v in node.outputs if v.name)
    return {name(v) for v in computed if v.dtype is None or is_float(v)}


def _attentions(
    pair: Pair, teaching: Teaching, plan: Plan
) -> list[tuple[AttentionPlace, AttentionPlace]]:
    """A few attentions of the teacher that the student still has, the last one among them."""
    if not (teaching.weights.attention or teaching.weights.relations):
        return []
    mine = set(attentions(pair.student))
    both = [(place, place) for place in attentions(pair.teacher) if place in mine]
    if not both:
        plan.left_out.append(("attention", "no attention has a name that both graphs have"))
    return thinned(both)


def _both(place: AttentionPlace) -> tuple[str, str]:
    return place.probabilities, place.values


def _add_feature(
    plan: Plan, theirs: str, mine: str, got: Mapping[str, Tensor], want: Mapping[str, Tensor],
    weight: float,
) -> None:  # fmt: skip
    aim, have = want[theirs], got[mine]
    differing = (
        [a for a, (x, y) in enumerate(zip(have.shape, aim.shape, strict=True)) if x != y]
        if have.ndim == aim.ndim
        else [-1, -1]
    )
    power = _power(aim)
    if len(differing) > 1 or power == 0.0:
        what = f"it is {list(aim.shape)} in the teacher and {list(have.shape)} in the student"
        plan.left_out.append((theirs, what if power else "it is 0 for all samples"))
        return
    axis = differing[0] if differing else -1
    term = Feature(mine, theirs, power, axis, (have.shape[axis], aim.shape[axis]))
    term.to(aim.device)
    term.regress(have, aim)
    term.weight = weight
    plan.others.append(term)


def _add_attention(
    plan: Plan, theirs: AttentionPlace, mine: AttentionPlace, got: Mapping[str, Tensor],
    want: Mapping[str, Tensor], teaching: Teaching,
) -> None:  # fmt: skip
    if teaching.weights.attention:
        term: Term = Attention(mine.probabilities, theirs.probabilities)
        term.weight = teaching.weights.attention
        plan.others.append(term)
    if teaching.weights.relations:
        heads = math.gcd(got[mine.values].shape[1], want[theirs.values].shape[1])
        term = Relation(mine.values, theirs.values, heads)
        term.weight = teaching.weights.relations
        plan.others.append(term)


def _labels(outputs: list[str], want: Mapping[str, Tensor], probe: Probe, weight: float) -> Labels:
    if probe.labels is None:
        raise DataError(
            "losses.labels is above 0, and the samples have no labels",
            hint="give labels with the samples, or set losses.labels to 0",
        )
    term: Labels | None = None
    for label in outputs:
        values = want[label]
        if _classes(probe, values):
            term = Labels(label, None, output_kind(values, "")[0] == "probabilities")
        elif probe.labels.size == values.numel():
            term = Labels(label, _power(torch.from_numpy(probe.labels.astype("f4"))) or 1.0)
        if term is not None:
            term.weight = weight
            return term
    raise DataError(
        f"losses.labels is above 0, and labels {list(probe.labels.shape)} fit no output: "
        + ", ".join(f"{k} {list(want[k].shape)}" for k in outputs),
        hint="labels are class numbers [N] of an output [N, C], or numbers of its own shape",
    )


def _power(values: Tensor) -> float:
    return float(values.double().square().mean())
