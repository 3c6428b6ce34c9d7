"""What a manifest must look like, checked before anything in it is used.

The writer and the reader apply the same rules, so a bundle that was written can be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from edgebm.errors import BundleFormat
from edgebm.runtime.states import state_faults
from edgebm.spec import Dim, Manifest, Shapes, TensorSpec

MAX_ELEMENTS = 1 << 40
MAX_AXES = 32
_BITS = {"float": (16, 32, 64), "int": (8, 16, 32, 64), "uint": (8, 16, 32, 64)}
DTYPES = frozenset({"bool"} | {f"{kind}{n}" for kind, bits in _BITS.items() for n in bits})
_INTEGERS = frozenset(name for name in DTYPES if "int" in name)
PRECISIONS = frozenset({"f32", "bf16", "f16"})

_HEX = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Check = Callable[[Any], bool]


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


def _several(check: Check, count: int) -> Check:
    return lambda value: _list(check)(value) and len(value) == count


def _map(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _record(*, optional: Mapping[str, Check] = MappingProxyType({}), **fields: Check) -> Check:
    def matches(value: object) -> bool:
        return (
            isinstance(value, dict)
            and fields.keys() <= value.keys() <= {*fields, *optional}
            and all({**fields, **optional}[key](item) for key, item in value.items())
        )

    return matches


_TENSOR = _record(name=_text, dtype=_text, shape=_list(_dim), layout=_text)
_CONFIG = _record(
    precision=_text,
    threads=_whole,
    static_shapes=_list(_map(_list(_whole))),
    settings=_map(_text),
    optional={"axes": _map(_several(_whole, 3))},
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
    "axes": _map(_several(_whole, 2)),
    "index_limits": _map(_whole),
    "ranges": _map(_several(_number, 2)),
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
            yield from _tensor_faults(spec, kind, manifest)
    inputs = {spec.name: spec for spec in manifest.inputs}
    for name, (low, high) in manifest.ranges.items():
        if name not in inputs or not -math.inf < low <= high < math.inf:
            yield f"the range of {name!r} is not one of an input"
    for name, limit in manifest.index_limits.items():
        if name not in inputs or inputs[name].dtype not in _INTEGERS or limit < 1:
            yield f"the index limit of {name!r} is not one of an integer input"


def _tensor_faults(spec: TensorSpec, kind: str, manifest: Manifest) -> Iterable[str]:
    if spec.dtype not in DTYPES:
        yield f"{kind} {spec.name!r} has the unknown dtype {spec.dtype!r}"
    if len(spec.shape) > MAX_AXES:
        yield f"{kind} {spec.name!r} has more than {MAX_AXES} axes"
    # Plain Python integers: a product cannot wrap around.
    elif math.prod(_least(dim, manifest) for dim in spec.shape) > MAX_ELEMENTS:
        yield f"{kind} {spec.name!r} has more than 2**40 elements"


def _least(dim: Dim, manifest: Manifest) -> int:
    """The smallest size of an axis; one that only outputs have may be of any."""
    return manifest.axes.get(dim, (1, 1))[0] if isinstance(dim, str) else dim


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
        yield from _static_faults(variant.config.static_shapes, inputs, where)
        yield from _profile_faults(variant.config.axes, manifest, where)
        if unknown := sorted(variant.tolerance.keys() - outputs):
            yield f"{where}: tolerance for {unknown}, which are no outputs"
        if any(not 0 <= limit < math.inf for limit in variant.tolerance.values()):
            yield f"{where}: a tolerance is negative or not finite"


def _profile_faults(
    axes: Mapping[str, tuple[int, int, int]], manifest: Manifest, where: str
) -> Iterable[str]:
    for name, (low, usual, high) in axes.items():
        if name not in manifest.axes:
            yield f"{where}: {name!r} is no free axis"
        elif not manifest.axes[name][0] <= low <= usual <= high <= manifest.axes[name][1]:
            yield f"{where}: the sizes {low}, {usual}, {high} of {name!r} are senseless"


def _static_faults(
    listed: Iterable[Shapes], inputs: AbstractSet[str], where: str
) -> Iterable[str]:
    for shapes in listed:
        if shapes.keys() != inputs:
            yield f"{where}: a static shape does not name every input"
        elif any(len(s) > MAX_AXES or math.prod(s) > MAX_ELEMENTS for s in shapes.values()):
            yield f"{where}: a static shape has more than {MAX_AXES} axes or 2**40 elements"
