"""What may be meant by an array of another shape than the model takes."""

from __future__ import annotations

from collections.abc import Mapping

from edgebm.spec import Dim

Limits = Mapping[str, tuple[int, int]]
_PERMUTATIONS = {"NCHW": (0, 3, 1, 2), "NHWC": (0, 2, 3, 1)}


def fits(wanted: tuple[Dim, ...], got: tuple[int, ...], axes: Limits) -> bool:
    """Whether every size is the wanted one; of a free axis, in its range in `axes`."""
    if len(wanted) != len(got):
        return False
    for dim, size in zip(wanted, got, strict=True):
        low, high = axes[dim] if isinstance(dim, str) else (dim, dim)
        if not low <= size <= high:
            return False
    return True


def longer_axis(wanted: tuple[Dim, ...], got: tuple[int, ...], axes: Limits) -> int | None:
    """The axis that has several where one is wanted, if all other sizes fit."""
    longer = [
        axis
        for axis, (dim, size) in enumerate(zip(wanted, got, strict=False))
        if dim == 1 and size > 1
    ]
    if len(longer) != 1:
        return None
    (axis,) = longer
    return axis if fits(wanted, (*got[:axis], 1, *got[axis + 1 :]), axes) else None


def shape_hint(
    wanted: tuple[Dim, ...], got: tuple[int, ...], axes: Limits, *, stepping: bool
) -> str:
    """What to do about an array of shape `got`; empty if nothing comes to mind.

    `stepping` says that the array is for a step of a stream, which may be given a sequence.
    """
    for layout, order in _PERMUTATIONS.items():
        if len(got) == 4 and fits(wanted, tuple(got[axis] for axis in order), axes):
            return f"{layout} is expected: x.transpose{order} fits"
    if fits(wanted, (1, *got), axes):
        return "the batch axis is missing: x[None] fits"
    if 0 in got:
        return "an empty array has no answer"
    if stepping and fits(wanted, (1, 1, *got), axes):
        return "batch and time axes are missing: x[None, None] fits"
    axis = longer_axis(wanted, got, axes)
    if axis is None or not (axis == 0 or stepping):
        return ""
    what = "sample" if axis == 0 else "step"
    return f"one {what} at a time: x[{':, ' * axis}i : i + 1] for each i"
