"""What is wrong with the inputs of a call, in words."""

from __future__ import annotations

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
    InputType,
)
from edgebm.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and the class of the error that says so."""

    kind: type[InputError]
    message: str
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def raise_faults(faults: Sequence[Fault]) -> None:
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


def port_error(
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
            import difflib  # needed only here, where nothing is in a hurry

            near = difflib.get_close_matches(str(key), missing or names, n=1, cutoff=0.4)
            hints += [f"{key!r} may mean {near[0]!r}"] if near else []
    hints += [notes[name] for name in (*missing, *extra) if name in notes]
    hints.append(f"the model's inputs are {list(names)}")
    details = {"missing": missing, "extra": [str(key) for key in extra]}
    return InputPort("; ".join(parts), hint="; ".join(hints), details=details)


def taken(spec: TensorSpec, value: Any) -> NDArray[Any] | Fault:
    """`value` as an array: itself, or its memory where it is a CPU tensor that speaks DLPack."""
    details = {"input": spec.name, "got": type(value).__name__}
    if isinstance(value, np.ma.MaskedArray):
        message = f"input {spec.name!r} is a masked array"
        return Fault(InputType, message, "say what the masked values are: x.filled(0)", details)
    if isinstance(value, np.ndarray):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    message = f"input {spec.name!r} is {kind}, a numpy array is expected"
    hint = f"np.asarray(x, dtype={spec.dtype!r})"
    if hasattr(value, "__dlpack_device__"):
        try:
            return np.from_dlpack(value)
        except Exception as cause:  # noqa: BLE001 - each library refuses with an exception of its own
            message = f"input {spec.name!r} is {kind}, and gives no memory of the CPU: {cause}"
    hint = "torch: x.detach().cpu().numpy()" if kind.startswith("torch.") else hint
    return Fault(InputType, message, hint, details)


def dtype_fault(spec: TensorSpec, dtype: np.dtype[Any], array: NDArray[Any]) -> list[Fault]:
    if array.dtype == dtype:
        return []
    got = array.dtype.str if array.dtype.newbyteorder("=") == dtype else str(array.dtype)
    swapped = got == array.dtype.str
    message = f"input {spec.name!r} has dtype {got}, expected {dtype}"
    hint = f"x.astype({spec.dtype!r})"
    hint = f"the bytes are in the other order: {hint}" if swapped else hint
    details = {"input": spec.name, "expected": spec.dtype, "got": got}
    return [Fault(InputDType, message, hint, details)]


def first_not_finite(array: NDArray[Any]) -> tuple[int, tuple[int, ...]] | None:
    """How many values of a float array are NaN or infinite, and where the first is."""
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if not count:
        return None
    first = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(bad)))
    return count, first[: array.ndim]


def finite_fault(spec: TensorSpec, array: NDArray[Any]) -> list[Fault]:
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
    return [Fault(InputNonFinite, message, hint, details)]


def unseen_fault(
    spec: TensorSpec,
    array: NDArray[Any],
    seen: tuple[float, float],
    bounds: tuple[float, float],
) -> list[Fault]:
    """Whether finite values are outside of `bounds`, which are wider than what was `seen`."""
    low, high = bounds
    with np.errstate(invalid="ignore"):
        odd = np.isfinite(array) & ((array < low) | (array > high))
    count = int(np.count_nonzero(odd))
    if not count:
        return []
    least, greatest = float(array[odd].min()), float(array[odd].max())
    message = (
        f"input {spec.name!r} has {count} of {array.size} values far outside of what calibration "
        f"saw, {seen[0]:.6g} to {seen[1]:.6g}: they go from {least:.6g} to {greatest:.6g}"
    )
    details = {"input": spec.name, "count": count, "seen": list(seen), "got": [least, greatest]}
    hint = "look at its scale: pixels may lack the division by 255, or a sensor its unit"
    return [Fault(InputRange, message, hint, details)]


def range_fault(spec: TensorSpec, array: NDArray[Any], limit: int) -> list[Fault]:
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
    return [Fault(InputRange, message, hint, details)]
