"""What `Session.run` accepts, decided here and not by a vendor, so every runtime says the same."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import (
    InputDType,
    InputError,
    InputNonFinite,
    InputPort,
    InputRange,
    InputShape,
    InputType,
)
from edgebm.runtime.shape_hint import fits, shape_hint
from edgebm.spec import Manifest, TensorSpec

Arrays = tuple[NDArray[Any], ...]
MISSING = object()


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: type[InputError]
    message: str
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Face:
    """The inputs of a model and the rules for arrays given to them.

    `notes` has a hint for names that callers leave out or give where they should not, and
    `stepping` says that the arrays are for one step of a stream.
    """

    def __init__(
        self,
        manifest: Manifest,
        notes: Mapping[str, str] | None = None,
        *,
        stepping: bool = False,
    ) -> None:
        self.specs = manifest.inputs
        self.names = tuple(spec.name for spec in manifest.inputs)
        self.dtypes = tuple(np.dtype(spec.dtype) for spec in manifest.inputs)
        self.limits = {
            index: manifest.index_limits[name]
            for index, name in enumerate(self.names)
            if name in manifest.index_limits
        }
        self._axes = manifest.axes
        self._notes, self._stepping = notes or {}, stepping

    def pick(self, inputs: Any, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Put what the caller gave into the order of the face.

        Raises:
            InputPort: a name is missing, extra or misspelt, or both forms were used.
        """
        if inputs is not MISSING and named:
            raise InputPort("inputs were given both in one argument and as keywords")
        given = named if inputs is MISSING else inputs
        # Asking an abstract class takes longer than all else here.
        if type(given) is not dict and not isinstance(given, Mapping):
            if len(self.names) == 1:
                return (given,)
            raise InputPort(
                f"the model has {len(self.names)} inputs, {type(given).__name__} was given",
                hint=f"pass a dict with the keys {list(self.names)}",
            )
        if len(given) == len(self.names):
            with contextlib.suppress(KeyError):
                return tuple([given[name] for name in self.names])
        missing = [name for name in self.names if name not in given]
        extra = [key for key in given if key not in self.names]
        raise _port_error(missing, extra, self.names, self._notes)

    def check(self, values: Sequence[Any], settled: Mapping[str, int] | None = None) -> Arrays:
        """Return plain arrays fit for the model; numpy sub-classes become base arrays.

        `settled` are free axes whose size was decided before, by the first step of a stream.

        Raises:
            InputType, InputDType, InputShape, InputRange, InputNonFinite: the class of the first
                fault; the message has every fault.
        """
        faults: list[_Fault] = []
        sizes = {axis: (size, "") for axis, size in (settled or {}).items()}
        for spec, dtype, value in zip(self.specs, self.dtypes, values, strict=True):
            found = _type_fault(spec, value) or _dtype_fault(spec, dtype, value)
            faults += found or self._shape_faults(spec, value, sizes)
        if not faults:
            faults += self.value_faults(values)
        raise_faults(faults)
        return tuple(np.asarray(value) for value in values)

    def value_faults(self, arrays: Sequence[NDArray[Any]]) -> list[_Fault]:
        """NaN, infinities and indices outside their table, with counts and first positions."""
        faults: list[_Fault] = []
        for index, (spec, array) in enumerate(zip(self.specs, arrays, strict=True)):
            if array.dtype.kind == "f":
                faults += _finite_fault(spec, array)
            elif index in self.limits:
                faults += _range_fault(spec, array, self.limits[index])
        return faults

    def smallest(self) -> dict[str, tuple[int, ...]]:
        """The smallest shape every input may have."""
        return {
            spec.name: tuple(self._axes[d][0] if isinstance(d, str) else d for d in spec.shape)
            for spec in self.specs
        }

    def _shape_faults(
        self, spec: TensorSpec, array: NDArray[Any], sizes: dict[str, tuple[int, str]]
    ) -> list[_Fault]:
        details = {"input": spec.name, "expected": list(spec.shape), "got": list(array.shape)}
        start = f"input {spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape)}"
        if not fits(spec.shape, array.shape, self._axes):
            hint = shape_hint(spec.shape, array.shape, self._axes, stepping=self._stepping)
            return [_Fault(InputShape, start + self._limits_text(spec), hint, details)]
        for dim, size in zip(spec.shape, array.shape, strict=True):
            if not isinstance(dim, str):
                continue
            known, owner = sizes.setdefault(dim, (size, spec.name))
            if known != size:
                where = repr(owner) if owner else "this stream"
                hint = "" if owner else f"reset() lets the next step choose {dim} anew"
                message = f"{start}: {dim} is {size} here and {known} in {where}"
                return [_Fault(InputShape, message, hint, details)]
        return []

    def _limits_text(self, spec: TensorSpec) -> str:
        parts = [
            f"{dim} from {self._axes[dim][0]} to {self._axes[dim][1]}"
            for dim in dict.fromkeys(spec.shape)
            if isinstance(dim, str)
        ]
        return f" ({', '.join(parts)})" if parts else ""


def raise_faults(faults: Sequence[_Fault]) -> None:
    """Raise every fault of one call as one error of the first one's class.

    Raises:
        InputError: when there are faults.
    """
    if not faults:
        return
    first = faults[0]
    details = dict(first.details)
    if len(faults) > 1:
        details["faults"] = [{"code": fault.kind.code, **fault.details} for fault in faults]
    hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
    message = "; ".join(fault.message for fault in faults)
    raise first.kind(message, hint="; ".join(hints), details=details)


def _port_error(
    missing: list[str], extra: list[Any], names: tuple[str, ...], notes: Mapping[str, str]
) -> InputPort:
    parts, hints = [], []
    if missing:
        parts.append(f"missing inputs {missing}")
    if extra:
        parts.append(f"unknown inputs {extra}")
        for key in extra:
            if key in notes:
                continue
            near = difflib.get_close_matches(str(key), missing or names, n=1, cutoff=0.4)
            hints += [f"{key!r} may mean {near[0]!r}"] if near else []
    hints += [notes[name] for name in (*missing, *extra) if name in notes]
    hints.append(f"the model's inputs are {list(names)}")
    details = {"missing": missing, "extra": [str(key) for key in extra]}
    return InputPort("; ".join(parts), hint="; ".join(hints), details=details)


def _type_fault(spec: TensorSpec, value: Any) -> list[_Fault]:
    details = {"input": spec.name, "got": type(value).__name__}
    if isinstance(value, np.ma.MaskedArray):
        message = f"input {spec.name!r} is a masked array"
        return [_Fault(InputType, message, "say what the masked values are: x.filled(0)", details)]
    if isinstance(value, np.ndarray):
        return []
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    message = f"input {spec.name!r} is {kind}, a numpy array is expected"
    hint = "torch: x.detach().cpu().numpy()" if kind.startswith("torch.") else ""
    hint = hint or f"np.asarray(x, dtype={spec.dtype!r})"
    return [_Fault(InputType, message, hint, details)]


def _dtype_fault(spec: TensorSpec, dtype: np.dtype[Any], array: NDArray[Any]) -> list[_Fault]:
    if array.dtype == dtype:
        return []
    got = array.dtype.str if array.dtype.newbyteorder("=") == dtype else str(array.dtype)
    swapped = got == array.dtype.str
    message = f"input {spec.name!r} has dtype {got}, expected {dtype}"
    hint = f"x.astype({spec.dtype!r})"
    hint = f"the bytes are in the other order: {hint}" if swapped else hint
    details = {"input": spec.name, "expected": spec.dtype, "got": got}
    return [_Fault(InputDType, message, hint, details)]


def first_not_finite(array: NDArray[Any]) -> tuple[int, tuple[int, ...]] | None:
    """How many values of a float array are NaN or infinite, and where the first is."""
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if not count:
        return None
    first = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))
    return count, first[: array.ndim]


def _finite_fault(spec: TensorSpec, array: NDArray[Any]) -> list[_Fault]:
    found = first_not_finite(array)
    if found is None:
        return []
    count, first = found
    message = (
        f"input {spec.name!r} has {count} of {array.size} values that are NaN or infinite, "
        f"the first at {list(first)}"
    )
    details = {"input": spec.name, "count": count, "first": first}
    hint = "look at what makes the input: a missing value, a division by zero"
    return [_Fault(InputNonFinite, message, hint, details)]


def _range_fault(spec: TensorSpec, array: NDArray[Any], limit: int) -> list[_Fault]:
    bad = (array < 0) | (array >= limit)
    count = int(np.count_nonzero(bad))
    if not count:
        return []
    first = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))[: array.ndim]
    message = (
        f"input {spec.name!r} has {count} of {array.size} indices outside 0..{limit - 1}, "
        f"the first is {int(array[first])} at {list(first)}"
    )
    details = {"input": spec.name, "count": count, "first": first, "limit": limit}
    hint = "it may come from another tokenizer or vocabulary"
    return [_Fault(InputRange, message, hint, details)]
