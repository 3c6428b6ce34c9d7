"""Values inside by which a student is compared with its teacher."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgebm.errors import UsageError
from edgebm.grad.pair import Pair, Seen
from edgebm.grad.teaching import Teaching, Weights
from edgebm.grad.terms import Attention, Feature, Relation, Term
from edgebm.ir.edit import name
from edgebm.ir.landmarks import AttentionPlace, attentions, landmarks, shared_landmarks, thinned
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float


@dataclass(slots=True)
class Inside:
    """Features, as pairs of names with the teacher's first, and attentions that both have.

    `left_out` has what cannot be compared, with a reason.
    """

    features: list[tuple[str, str]]
    attentions: list[AttentionPlace]
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wanted(self) -> list[str]:
        """Names of the teacher's values."""
        return [theirs for theirs, _ in self.features] + self._of_attentions()

    @property
    def fetched(self) -> list[str]:
        """Names of the student's values."""
        return [mine for _, mine in self.features] + self._of_attentions()

    def _of_attentions(self) -> list[str]:
        return [v for place in self.attentions for v in (place.probabilities, place.values)]

    def terms(self, seen: Seen, weights: Weights) -> Iterator[Term]:
        """Each kind counts as a whole by its weight, however many there are of it."""
        tried = [self._feature(pair, seen) for pair in self.features]
        features = [each for each in tried if each is not None]
        maps = [Attention(each.probabilities) for each in self.attentions if weights.attention]
        alike = [_relation(each, seen) for each in self.attentions if weights.relations]
        kinds: tuple[tuple[Sequence[Term], float], ...] = (
            (features, weights.features),
            (maps, weights.attention),
            (alike, weights.relations),
        )
        for terms, weight in kinds:
            for term in terms:
                term.weight = weight / len(terms)
                yield term

    def _feature(self, pair: tuple[str, str], seen: Seen) -> Feature | None:
        theirs, mine = pair
        aim, have, power = seen.want[theirs], seen.got[mine], seen.powers[theirs]
        sizes = list(zip(have.shape, aim.shape, strict=False))
        differing = [axis for axis, (a, b) in enumerate(sizes) if a != b]
        if have.ndim != aim.ndim or len(differing) > 1:
            what = f"{list(aim.shape)} in the teacher and {list(have.shape)} in the student"
            self.left_out.append((theirs, f"it is {what}"))
            return None
        if power == 0.0:
            self.left_out.append((theirs, "it is 0 for all samples"))
            return None
        axis = differing[0] if differing else -1
        term = Feature(mine, theirs, power, axis, (have.shape[axis], aim.shape[axis]))
        term.to(aim.device).regress(have, aim)
        return term


def found_inside(pair: Pair, teaching: Teaching) -> Inside:
    """What `teaching` names or, where it does not, a few values that both graphs have.

    Raises:
        UsageError: every feature that a graph does not have.
    """
    found = Inside([], [])
    weights = teaching.weights
    if weights.features:
        found.features = _named(pair, teaching.features) if teaching.features else _shared(pair)
        if not found.features:
            found.left_out.append(("features", "the graphs share no value between blocks"))
    if weights.attention or weights.relations:
        mine = set(attentions(pair.student))
        found.attentions = thinned([each for each in attentions(pair.teacher) if each in mine])
        if not found.attentions:
            found.left_out.append(("attention", "the graphs share no attention"))
    return found


def _shared(pair: Pair) -> list[tuple[str, str]]:
    common = shared_landmarks(pair.teacher, pair.student)
    return [(label, label) for label in thinned(common)]


def _named(pair: Pair, features: Sequence[str]) -> list[tuple[str, str]]:
    known = [_floats(model) for model in (pair.teacher, pair.student)]
    pairs = [_split(text, known[0]) for text in features]
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


def _relation(place: AttentionPlace, seen: Seen) -> Relation:
    sizes = (seen.got[place.values].shape[1], seen.want[place.values].shape[1])
    return Relation(place.values, math.gcd(*sizes))


def _split(text: str, known: set[str]) -> tuple[str, str]:
    if text in known:  # names may hold a = themselves
        return text, text
    theirs, _, mine = text.partition("=")
    return theirs, mine or theirs


def _floats(model: Model) -> set[str]:
    """Names of what nodes compute, but for what is known to be no float."""
    computed = (v for node in model.nodes() for v in node.outputs if v.name)
    return {name(v) for v in computed if v.dtype is None or is_float(v)}
