"""Do these arrays fit these inputs? Every fault at once, each with what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.batch import Batch, has_batch_axis
from edgebm.data.columns import Column
from edgebm.data.steps import STATELESS, Sized, Steps, sequence_faults, step_column
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

_SHOWN = 8
_LAYOUTS: dict[tuple[int, ...], str] = {
    (2, 0, 1): "it is NHWC, the model NCHW: ",
    (1, 2, 0): "it is NCHW, the model NHWC: ",
}
_KEYED = "samples lie along axis 0, keyed by the model's input names"


def raise_faults(source: str, faults: Sequence[str], hint: str = _KEYED) -> None:
    """One DataError for all of `faults`; the first few are listed, the rest counted."""
    if not faults:
        return
    listed = [f"- {fault}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        listed.append(f"- and {len(faults) - _SHOWN} more")
    what = faults[0] if len(faults) == 1 else "\n".join([f"{len(faults)} faults:", *listed])
    raise DataError(
        f"{source}: {what}",
        hint=hint,
        details={"faults": list(faults)},
    )


def batch_faults(
    batch: Batch, inputs: Sequence[TensorSpec], steps: Steps = STATELESS
) -> Iterator[str]:
    """What is wrong with the names, counts, dtypes and shapes of a batch."""
    at = f"{batch.where}: " if batch.where else ""
    known = {spec.name: spec for spec in inputs}
    missing = [spec.name for spec in steps.fed(inputs) if spec.name not in batch.columns]
    for name in batch.columns:
        if name not in known:
            near = difflib.get_close_matches(name, missing or list(known), 1)
            tip = f"did you mean '{near[0]}'?" if near else f"inputs are {_listed(list(known))}"
            yield f"{at}'{name}' is not an input of the model; {tip}"
    for name in missing:
        yield f"{at}input '{name}' has no array; the samples have {_listed(list(batch.columns))}"
    counts = {name: c.shape[0] if c.shape else 0 for name, c in batch.columns.items()}
    if batch.labels is not None:
        counts["labels"] = batch.labels.shape[0] if batch.labels.shape else 0
    if len(set(counts.values())) > 1:
        pairs = ", ".join(f"{name} has {n}" for name, n in counts.items())
        yield f"{at}the arrays have different numbers of samples: {pairs}"
    yield from (f"{at}{fault}" for fault in sequence_faults(batch, inputs, steps))
    sizes: dict[str, tuple[str, int]] = {}
    for name, spec in known.items():
        if name in batch.columns:
            column = batch.columns[name]
            yield from (f"{at}{fault}" for fault in _dtype_faults(spec, column.dtype))
            timed = name not in steps.states
            judged = step_column(column, spec, steps) if timed else (spec, column)
            # The sequence model's own form, if it was meant, says where time is.
            stepped = steps.states and timed and judged[0] is spec
            tip = f"; sequences have one axis more: {_form(spec, 'time')}" if stepped else ""
            yield from (f"{at}{fault}{tip}" for fault in _shape_faults(*judged, sizes))


def _dtype_faults(spec: TensorSpec, got: np.dtype[Any]) -> Iterator[str]:
    want = np.dtype(spec.dtype)
    if got.kind == want.kind or (got.kind in "iub" and want.kind in "iu"):
        return
    tip = ""
    if got == np.uint8 and want.kind == "f":
        tip = "; raw pixels? scale them as in training, for example x.astype(np.float32) / 255"
    elif got.kind in "iufb" and want.kind in "iufb":
        tip = f"; if that is meant, convert with x.astype(np.{want.name})"
    yield f"input '{spec.name}' is {want.name}, the array is {got.name}{tip}"


def _shape_faults(
    spec: TensorSpec, column: Column | Sized, sizes: dict[str, tuple[str, int]]
) -> Iterator[str]:
    """`sizes` remembers the size of each free axis, so that inputs sharing it must agree."""
    sample = column.shape[1:]
    if len(sample) == len(spec.shape):
        axes = list(spec.shape)
    elif len(sample) == len(spec.shape) - 1 and has_batch_axis(spec):
        axes = list(spec.shape[1:])
    else:
        yield f"{_expected(spec)}, the array has {list(column.shape)}"
        return
    wrong = [
        (want, got)
        for want, got in zip(axes, sample, strict=True)
        if isinstance(want, int) and want != got
    ]
    if wrong:
        yield f"{_expected(spec)}, the array has {list(column.shape)}{_transposed(axes, sample)}"
        return
    for axis, got in zip(axes, sample, strict=True):
        if isinstance(axis, str):
            other, size = sizes.setdefault(axis, (spec.name, got))
            if size != got:
                yield f"axis '{axis}' is {size} in input '{other}' and {got} in '{spec.name}'"


def _expected(spec: TensorSpec) -> str:
    return f"input '{spec.name}' wants an array {_form(spec)}"


def _form(spec: TensorSpec, *axes: str) -> str:
    """An array of samples as text, with `axes` behind the first."""
    rest = spec.shape[1:] if has_batch_axis(spec) else spec.shape
    return f"[{', '.join(map(str, ('samples', *axes, *rest)))}]"


def _transposed(axes: Sequence[int | str], sample: tuple[int, ...]) -> str:
    """A hint when only the order of the axes is wrong (NHWC for NCHW, most often)."""
    if not 2 <= len(sample) <= 4:
        return ""
    orders = permutations(range(len(sample)))
    likely = [(2, 0, 1), (1, 2, 0)] if len(sample) == 3 else []
    for order in [*likely, *orders]:
        if all(isinstance(a, str) or a == sample[i] for a, i in zip(axes, order, strict=True)):
            moved = ", ".join(str(i + 1) for i in order)
            return f"; {_LAYOUTS.get(order, '')}use x.transpose(0, {moved})"
    return ""


def convert(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """One sample as the model takes it: shape of `spec` with a batch axis of 1, its dtype.

    Raises:
        DataError: an integer does not fit the model's dtype.
    """
    array = np.asarray(array)
    if array.ndim == len(spec.shape) - 1:
        array = array[None]
    want = np.dtype(spec.dtype)
    if array.dtype == want:
        return array
    if want.kind in "iu" and array.size and array.dtype.kind in "iu":
        limits, low, high = np.iinfo(want), int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            worst = low if low < limits.min else high
            raise DataError(
                f"input '{spec.name}' is {want.name} and cannot hold {worst}",
                hint="check the values: ids beyond the model's vocabulary?",
            )
    return array.astype(want)


def narrowing(batch: Batch, inputs: Sequence[TensorSpec]) -> Iterator[str]:
    """Sentences about float arrays that lose digits on the way into the model."""
    for spec in inputs:
        if spec.name not in batch.columns:
            continue  # a state that starts at its initial value
        got, want = batch.columns[spec.name].dtype, np.dtype(spec.dtype)
        if got.kind == "f" and want.kind == "f" and got.itemsize > want.itemsize:
            yield f"input '{spec.name}' is {want.name}: the {got.name} samples were rounded to it"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
