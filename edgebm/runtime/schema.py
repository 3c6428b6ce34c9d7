"""What a manifest must look like, checked before anything in it is used.

The writer and the reader apply the same rules, so a bundle that was written can be read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from edgebm.errors import BundleFormat
from edgebm.runtime.states import state_faults
from edgebm.spec import Manifest, TensorSpec

MAX_MANIFEST_BYTES = 8 << 20
MAX_DEPTH = 32
MAX_ELEMENTS = 1 << 40
_BITS = {"float": (16, 32, 64), "int": (8, 16, 32, 64), "uint": (8, 16, 32, 64)}
DTYPES = frozenset({"bool"} | {f"{kind}{n}" for kind, bits in _BITS.items() for n in bits})
PRECISIONS = frozenset({"f32", "bf16", "f16"})

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_HEX = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Check = Callable[[Any], bool]


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """Parse strictly: no duplicate keys, NaN, infinities, lone surrogates or deep nesting.

    Raises:
        BundleFormat: says which rule was broken.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleFormat(f"{where} has {len(raw)} bytes, more than {MAX_MANIFEST_BYTES}")
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
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} comes twice")
    return made


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} does not fit a float")
    return value


def _text(value: object) -> bool:
    return isinstance(value, str)


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _number(value: object) -> bool:
    return type(value) in {int, float}


def _flag(value: object) -> bool:
    return type(value) is bool


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _dim(value: object) -> bool:
    return (_text(value) and value != "") or _whole(value)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _pair(check: Check) -> Check:
    return lambda value: _list(check)(value) and len(value) == 2


def _map(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _record(**fields: Check) -> Check:
    def matches(value: object) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() == fields.keys()
            and all(check(value[key]) for key, check in fields.items())
        )

    return matches


_TENSOR = _record(name=_text, dtype=_text, shape=_list(_dim), layout=_text)
_CONFIG = _record(
    precision=_text,
    threads=_whole,
    static_shapes=_list(_map(_list(_whole))),
    settings=_map(_text),
)
_VARIANT = _record(
    target=_text,
    runtime=_text,
    precision=_text,
    files=_map(_text),
    config=_CONFIG,
    runtime_version=_text,
    requires=_list(_text),
    tolerance=_map(_number),
    layers=_map(_whole),
    cells=_map(_text),
)
_MANIFEST: Mapping[str, Check] = {
    "manifest_version": _whole,
    "name": _text,
    "edgebm_version": _text,
    "inputs": _list(_TENSOR),
    "outputs": _list(_TENSOR),
    "variants": _list(_VARIANT),
    "states": _list(_record(input=_text, output=_text, initial=_text)),
    "axes": _map(_pair(_whole)),
    "index_limits": _map(_whole),
    "ranges": _map(_pair(_number)),
    "golden": _whole,
    "constraints_met": _flag,
    "members": _map(_record(sha256=_text, size=_whole)),
    "provenance": _object,
    "candidates": _list(_VARIANT),
}
_OPTIONAL = {"candidates"}


def read_manifest(raw: Mapping[str, Any], where: str) -> Manifest:
    """Check parsed JSON field by field and build the manifest.

    Raises:
        BundleFormat: lists every field that is missing, unknown, mistyped or senseless.
        BundleIncompatible: written by an edgebm with another manifest version.
    """
    if type(raw.get("manifest_version")) is not int:
        raise BundleFormat(f"{where} has no manifest_version")
    known = dict(raw)
    Manifest.check_version(raw)
    faults = [f"{key!r} is missing" for key in _MANIFEST.keys() - known.keys() - _OPTIONAL]
    faults += [f"{key!r} is unknown" for key in known.keys() - _MANIFEST.keys()]
    faults += [
        f"{key!r} has a wrong type or field"
        for key, check in _MANIFEST.items()
        if key in known and not check(known[key])
    ]
    if faults:
        raise BundleFormat(f"{where}: " + "; ".join(sorted(faults)))
    manifest = Manifest.from_dict(raw)
    check_manifest(manifest, where)
    return manifest


def check_manifest(manifest: Manifest, where: str) -> None:
    """Check that the parts of a manifest agree with each other.

    Raises:
        BundleFormat: lists every fault.
    """
    faults = [*_face_faults(manifest), *_axis_faults(manifest), *_variant_faults(manifest)]
    names = [candidate.id for candidate in manifest.candidates]
    faults += [f"two candidates are called {name}" for name in set(names) if names.count(name) > 1]
    faults += state_faults(manifest)
    for name, member in manifest.members.items():
        if not _HEX.fullmatch(member.sha256):
            faults.append(f"the sha256 of member {name!r} is not one")
    if faults:
        raise BundleFormat(f"{where}: " + "; ".join(faults))


def _face_faults(manifest: Manifest) -> Iterable[str]:
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names) or "" in names or (kind == "output" and not names):
            yield f"the {kind} names {names} are not unique and non-empty"
        for spec in specs:
            yield from _tensor_faults(spec, kind)
    inputs = {spec.name: spec for spec in manifest.inputs}
    for name, (low, high) in manifest.ranges.items():
        if name not in inputs or not -math.inf < low <= high < math.inf:
            yield f"the range of {name!r} is not one of an input"
    for name, limit in manifest.index_limits.items():
        if name not in inputs or np.dtype(inputs[name].dtype).kind not in "iu" or limit < 1:
            yield f"the index limit of {name!r} is not one of an integer input"


def _tensor_faults(spec: TensorSpec, kind: str) -> Iterable[str]:
    if spec.dtype not in DTYPES:
        yield f"{kind} {spec.name!r} has the unknown dtype {spec.dtype!r}"
    # Plain Python integers: a product cannot wrap around.
    if math.prod(dim for dim in spec.shape if isinstance(dim, int)) > MAX_ELEMENTS:
        yield f"{kind} {spec.name!r} has more than 2**40 elements"
    if len(spec.shape) > 32:
        yield f"{kind} {spec.name!r} has more than 32 axes"


def _axis_faults(manifest: Manifest) -> Iterable[str]:
    free = {dim for spec in manifest.inputs for dim in spec.shape if isinstance(dim, str)}
    if missing := sorted(free - manifest.axes.keys()):
        yield f"the free axes {missing} have no range in 'axes'"
    for name, (low, high) in manifest.axes.items():
        if not 0 <= low <= high:
            yield f"the axis {name!r} has the senseless range {low}..{high}"


def _variant_faults(manifest: Manifest) -> Iterable[str]:
    if not manifest.variants:
        yield "there are no variants"
    inputs = {spec.name for spec in manifest.inputs}
    outputs = {spec.name for spec in manifest.outputs}
    for variant in (*manifest.variants, *manifest.candidates):
        where = f"variant {variant.target}/{variant.runtime}"
        if lost := sorted(set(variant.files.values()) - manifest.members.keys()):
            yield f"{where}: {lost} are not members"
        if bad := sorted(name for name in variant.files if not _FILE_NAME.fullmatch(name)):
            yield f"{where}: {bad} are no file names"
        if variant.config.precision not in PRECISIONS:
            yield f"{where}: unknown precision {variant.config.precision!r}"
        if variant.config.threads < 1:
            yield f"{where}: threads must be 1 or more"
        if any(shapes.keys() != inputs for shapes in variant.config.static_shapes):
            yield f"{where}: a static shape does not name every input"
        if unknown := sorted(variant.tolerance.keys() - outputs):
            yield f"{where}: tolerance for {unknown}, which are no outputs"
        if any(not 0 <= limit < math.inf for limit in variant.tolerance.values()):
            yield f"{where}: a tolerance is negative or not finite"
