"""What `Session.run` accepts, decided here and not by a vendor, so every runtime says the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import InputPort, InputShape
from edgebm.runtime.answer import Doubt
from edgebm.runtime.input_faults import (
    Fault,
    dtype_fault,
    finite_fault,
    port_error,
    raise_faults,
    range_fault,
    taken,
    unseen_fault,
)
from edgebm.runtime.shape_hint import fits, shape_hint
from edgebm.runtime.values import ValueCheck, ValueRules, Watch, widened
from edgebm.spec import Manifest, Shapes, TensorSpec

Arrays = tuple[NDArray[Any], ...]
MISSING = object()


class Face:
    """The inputs of a model and the rules for arrays given to them.

    `notes` has a hint for names that callers leave out or give where they should not, `rules`
    say what odd values do, and `stepping` that the arrays are for one step of a stream.
    """

    def __init__(
        self,
        manifest: Manifest,
        notes: Mapping[str, str] | None = None,
        rules: ValueRules = ValueRules(),  # noqa: B008 - frozen
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
        self._rules = rules
        self._seen = {} if rules.envelope == "allow" else manifest.ranges
        self._checks = tuple(self._check(index, dtype) for index, dtype in enumerate(self.dtypes))
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
        raise port_error(missing, extra, self.names, self._notes)

    def check(self, values: Sequence[Any], settled: Mapping[str, int] | None = None) -> Arrays:
        """Return plain arrays fit for the model; numpy sub-classes become base arrays.

        `settled` are free axes whose size was decided before, by the first step of a stream.

        Raises:
            InputType, InputDType, InputShape, InputRange, InputNonFinite: the class of the first
                fault; the message has every fault.
        """
        faults: list[Fault] = []
        arrays: list[NDArray[Any]] = []
        sizes = {axis: (size, "") for axis, size in (settled or {}).items()}
        for spec, dtype, value in zip(self.specs, self.dtypes, values, strict=True):
            array = taken(spec, value)
            if isinstance(array, Fault):
                faults.append(array)
                continue
            arrays.append(array)
            faults += dtype_fault(spec, dtype, array) or self._shape_faults(spec, array, sizes)
        if not faults:
            faults += self.examine(arrays)[0]
        raise_faults(faults)
        return tuple(np.asarray(array) for array in arrays)

    def watch(self, arrays: Iterable[NDArray[Any]]) -> Watch:
        """The checks of values for arrays that stay in place, one for each input."""
        return Watch(zip(arrays, self._checks, strict=True))

    def examine(self, arrays: Sequence[NDArray[Any]]) -> tuple[list[Fault], tuple[Doubt, ...]]:
        """NaN, infinities, indices outside their table and values far from those seen.

        Returns:
            What refuses the call, and what is only said of its answer.
        """
        faults: list[Fault] = []
        doubts: list[Doubt] = []
        for spec, check, array in zip(self.specs, self._checks, arrays, strict=True):
            if check is None or not array.size:
                continue
            if check.rows is not None:
                faults += range_fault(spec, array, check.rows)
            if check.finite:
                found = finite_fault(spec, array)
                if self._rules.nonfinite == "error":
                    faults += found
                else:
                    doubts += [Doubt("nonfinite", spec.name, each.message) for each in found]
            if check.bounds is not None:
                found = unseen_fault(spec, array, self._seen[spec.name], check.bounds)
                if self._rules.envelope == "error":
                    faults += found
                else:
                    doubts += [Doubt("envelope", spec.name, each.message) for each in found]
        return faults, tuple(doubts)

    def _check(self, index: int, dtype: np.dtype[Any]) -> ValueCheck | None:
        if index in self.limits:
            return ValueCheck(rows=self.limits[index])
        if dtype.kind != "f":
            return None
        seen = self._seen.get(self.names[index])
        bounds = None if seen is None else widened(seen, dtype)
        finite = self._rules.nonfinite != "allow"
        return ValueCheck(finite, bounds) if finite or bounds else None

    def zeros(self, shapes: Shapes | None = None) -> dict[str, NDArray[Any]]:
        """Inputs of zeros: of these shapes, or of the smallest that each may have."""
        found = shapes or {
            spec.name: tuple(self._axes[d][0] if isinstance(d, str) else d for d in spec.shape)
            for spec in self.specs
        }
        return {spec.name: np.zeros(found[spec.name], spec.dtype) for spec in self.specs}

    def _shape_faults(
        self, spec: TensorSpec, array: NDArray[Any], sizes: dict[str, tuple[int, str]]
    ) -> list[Fault]:
        details = {"input": spec.name, "expected": list(spec.shape), "got": list(array.shape)}
        start = f"input {spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape)}"
        if not fits(spec.shape, array.shape, self._axes):
            hint = shape_hint(spec.shape, array.shape, self._axes, stepping=self._stepping)
            return [Fault(InputShape, start + self._limits_text(spec), hint, details)]
        for dim, size in zip(spec.shape, array.shape, strict=True):
            if not isinstance(dim, str):
                continue
            known, owner = sizes.setdefault(dim, (size, spec.name))
            if known != size:
                where = repr(owner) if owner else "this stream"
                hint = "" if owner else f"reset() lets the next step choose {dim} anew"
                message = f"{start}: {dim} is {size} here and {known} in {where}"
                return [Fault(InputShape, message, hint, details)]
        return []

    def _limits_text(self, spec: TensorSpec) -> str:
        parts = [
            f"{dim} from {self._axes[dim][0]} to {self._axes[dim][1]}"
            for dim in dict.fromkeys(spec.shape)
            if isinstance(dim, str)
        ]
        return f" ({', '.join(parts)})" if parts else ""
