"""Free axes: which sizes they may take, and which shapes get a compiled copy of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgebm.errors import UsageError
from edgebm.search.candidates import Face
from edgebm.spec import Shapes, TensorSpec

LARGEST_AXIS = 65536
ShapeLists = Mapping[str, Sequence[Sequence[int]]]


def axis_ranges(face: Face, limits: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Sizes that each free axis of an input may take: 1 to 65,536, or to its limit."""
    names = {dim for spec in face.inputs for dim in spec.shape if isinstance(dim, str)}
    return {name: (1, limits.get(name, LARGEST_AXIS)) for name in sorted(names)}


def size_faults(face: Face, limits: Mapping[str, int], shapes: Shapes) -> list[str]:
    """Sizes of free axes in `shapes`, by the names of inputs, that are above their limit."""
    return [
        f"{spec} has {size} {dim} in {list(shapes[spec.name])}, and the model counts "
        f"{limits[dim]} of them"
        for spec in face.inputs
        if len(shapes.get(spec.name, ())) == len(spec.shape)
        for dim, size in zip(spec.shape, shapes[spec.name], strict=True)
        if isinstance(dim, str) and size > limits.get(dim, size)
    ]


def is_free(face: Face) -> bool:
    """Whether some input has a free axis."""
    return any(isinstance(dim, str) for spec in face.inputs for dim in spec.shape)


def static_shapes(face: Face, listed: ShapeLists, sample: Shapes) -> tuple[Shapes, ...]:
    """Complete shape sets that get a compiled copy of their own.

    Args:
        face: the model's inputs.
        listed: `--shapes`: for an input name the shapes wanted, the k-th of every input
            together. Inputs left out follow by the axis names they share with those given.
        sample: shapes of one sample; the only copy when nothing is listed.

    Raises:
        UsageError: an unknown input, lists of different lengths, a shape that does not fit,
            or an axis that no listed shape settles.
    """
    if not is_free(face):
        return ()
    if not listed:
        return (dict(sample),)
    specs = {spec.name: spec for spec in face.inputs}
    faults = [f"there is no input '{name}'" for name in listed if name not in specs]
    if len({len(shapes) for shapes in listed.values()}) > 1:
        faults.append("every input must list as many shapes as the others")
    if faults:
        raise _refused(faults, face)
    count = len(next(iter(listed.values())))
    found = []
    for k in range(count):
        given = {name: tuple(shapes[k]) for name, shapes in listed.items()}
        sizes, wrong = _sizes(specs, given)
        faults += wrong
        found.append({name: _resolve(spec, sizes, given, faults) for name, spec in specs.items()})
    if faults:
        raise _refused(sorted(set(faults)), face)
    return tuple(found)


def profile_axes(
    face: Face, seen: Iterable[Shapes], sample: Shapes, growing: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int, int]]:
    """Smallest, usual and largest size of each free axis of an input, as `EngineConfig.axes`.

    Args:
        face: the model's inputs.
        seen: shapes of inputs that must be possible.
        sample: the usual one of each input.
        growing: the whole range of axes whose sizes samples do not tell.
    """
    specs = {spec.name: spec for spec in face.inputs}
    usual, _ = _sizes(specs, sample)
    lists = [_sizes(specs, shapes)[0] for shapes in seen]
    found = {}
    for axis, size in usual.items():
        sizes = [size, *(each[axis] for each in lists if axis in each), *growing.get(axis, ())]
        found[axis] = (min(sizes), size, max(sizes))
    return found


def _sizes(specs: Mapping[str, TensorSpec], given: Shapes) -> tuple[dict[str, int], list[str]]:
    """The size of each named axis, and what does not fit."""
    sizes: dict[str, int] = {}
    faults = []
    for name, shape in given.items():
        spec = specs[name]
        if len(shape) != len(spec.shape):
            faults.append(f"shape {list(shape)} does not fit {spec}")
            continue
        for want, got in zip(spec.shape, shape, strict=True):
            known = sizes.setdefault(want, got) if isinstance(want, str) else want
            if known != got or got < 1:
                faults.append(f"shape {list(shape)} does not fit {spec}: axis {want} is {known}")
    return sizes, faults


def _resolve(
    spec: TensorSpec, sizes: Mapping[str, int], given: Shapes, faults: list[str]
) -> tuple[int, ...]:
    if spec.name in given:
        return given[spec.name]
    unknown = [dim for dim in spec.shape if isinstance(dim, str) and dim not in sizes]
    if unknown:
        faults.append(f"no listed shape says how large {', '.join(unknown)} of {spec} is")
    return tuple(sizes.get(dim, 1) if isinstance(dim, str) else dim for dim in spec.shape)


def _refused(faults: Sequence[str], face: Face) -> UsageError:
    inputs = "; ".join(map(str, face.inputs))
    return UsageError("--shapes: " + "; ".join(faults), hint=f"the inputs are {inputs}")
