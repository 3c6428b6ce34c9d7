"""JSON with one meaning, of bounded size and depth, checked in time that grows with its length."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from edgebm.errors import BundleFormat

MAX_BYTES = 8 << 20
MAX_DEPTH = 32

# A string without an end reaches to the end of the text: to look for its end again from every
# later quote would take hours.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """Parse strictly: no duplicate keys, NaN, infinities, lone surrogates or deep nesting.

    Raises:
        BundleFormat: says which rule was broken.
    """
    if len(raw) > MAX_BYTES:
        raise BundleFormat(f"{where} has {len(raw)} bytes, more than {MAX_BYTES}")
    _check_depth(raw, where)
    try:
        parsed = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as cause:
        raise BundleFormat(f"{where} is not strict JSON: {cause}") from cause
    if not isinstance(parsed, dict):
        raise BundleFormat(f"{where} is not a JSON object")
    return parsed


def _check_depth(raw: bytes, where: str) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BundleFormat(f"{where} is nested deeper than {MAX_DEPTH}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} comes twice")
    return made


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} does not fit a float")
    return value
