"""Nodes as users name them: by name, by a pattern with * and ?, or by op type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from edgebm.ir.model import Model

_NEAR = 3


def is_listed(name: str, op_type: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` is the node's op type, or matches its name."""
    return any(op_type == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def lost_patterns(model: Model, patterns: Sequence[str]) -> list[str]:
    """Those that match no node, each with the nearest names that there are."""
    nodes = [(node.name or "", node.op_type) for node in model.nodes()]
    known = dict.fromkeys(word for pair in nodes for word in pair)
    lost = [p for p in patterns if not any(is_listed(*node, [p]) for node in nodes)]
    return [pattern + _near(pattern, list(known)) for pattern in lost]


def _near(pattern: str, known: list[str]) -> str:
    found = difflib.get_close_matches(pattern, known, n=_NEAR)
    return f" (near: {', '.join(found)})" if found else ""
