"""Names that exporters and people give to a state before and after a call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from edgebm.spec import TensorSpec

_SEP = r"[_.\-/]?"
# The rest of the name is the stem that both sides share. Strong words are used for nothing else.
_STRONG_IN = (
    rf"past_key_values{_SEP}(?P<stem>.+)",
    r"(?:past|prev|previous|old)[_.\-/](?P<stem>.+)",
    r"(?P<stem>.+)[_.\-/](?:past|prev|previous|old)",
)
_STRONG_OUT = (
    rf"present_key_values{_SEP}(?P<stem>.+)",
    r"(?:present|new|next|updated)[_.\-/](?P<stem>.+)",
    r"(?P<stem>.+)[_.\-/](?:present|new|next|updated)",
)
_WEAK_IN = (
    r"(?P<stem>.+)[_.\-/](?:in|input)",
    r"(?:in|input)[_.\-/](?P<stem>.+)",
    rf"(?P<stem>.+?){_SEP}0",
)
_WEAK_OUT = (
    r"(?P<stem>.+)[_.\-/](?:out|output)",
    r"(?:out|output)[_.\-/](?P<stem>.+)",
    rf"(?P<stem>.+?){_SEP}[nN1]",
)
# Beside "in" and "out", which images have too, the stem must speak of a state.
_STATE_WORD = re.compile(
    r"(?:.*[_.\-/])?(?:[hckv]x?|hidden|cells?|states?|cache|mem|memory|rnn|lstm|gru|buf|buffer|kv|"
    r"keys?|values?|carry|context)\d*(?:[_.\-/].*)?",
    re.IGNORECASE,
)


def match_names(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    """(input, output) of the same stem, where each side has one such name only."""
    one = [(spec, _stems(spec.name, _STRONG_IN, _WEAK_IN)) for spec in inputs]
    other = [(spec, _stems(spec.name, _STRONG_OUT, _WEAK_OUT)) for spec in outputs]
    pairs = [(a, b) for a, left in one for b, right in other if _same(left, right)]
    for a, b in pairs:
        if sum(x is a for x, _ in pairs) == 1 and sum(y is b for _, y in pairs) == 1:
            yield a, b


def _stems(label: str, strong: Iterable[str], weak: Iterable[str]) -> dict[str, int]:
    """The stems that a name may have, and how much the words around it say: 0, 1 or 2."""
    found = {label.lower(): 0}
    for weight, patterns in ((1, weak), (2, strong)):
        for pattern in patterns:
            match = re.fullmatch(pattern, label, re.IGNORECASE)
            if match is not None:
                found[match["stem"].lower()] = weight
    return found


def _same(left: dict[str, int], right: dict[str, int]) -> bool:
    for stem in left.keys() & right.keys():
        says = max(left[stem], right[stem])
        if says == 2 or (says == 1 and _STATE_WORD.fullmatch(stem)):
            return True
    return False
