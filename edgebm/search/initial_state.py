"""`--initial-state`: what states hold before the first step, checked all at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.data.files import open_npz
from edgebm.data.scan import non_finite
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

InitialState = Mapping[str, Any] | str | os.PathLike[str]
Arrays = dict[str, NDArray[Any]]


def initial_state(
    given: InitialState | None, states: Sequence[TensorSpec], growing: frozenset[str]
) -> Arrays:
    """The given arrays by the input that holds the state, in its dtype.

    Args:
        given: arrays by input name, or an `.npz` file of such.
        states: inputs that hold a state.
        growing: axes that may have any size; other free axes have size 1.

    Raises:
        DataError: every name that is no state, and array that does not fit.
    """
    if given is None:
        return {}
    arrays = given if isinstance(given, Mapping) else _read(Path(given))
    known = {spec.name: spec for spec in states}
    faults: list[str] = []
    found: Arrays = {}
    for key, value in arrays.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            tip = f"; did you mean '{near[0]}'?" if near else ""
            faults.append(f"'{key}' is no state of the model{tip}")
            continue
        array = np.asarray(value)
        wrong = list(_faults(array, known[key], growing))
        faults += wrong
        if not wrong:
            found[key] = array.astype(known[key].dtype)
    if faults:
        raise DataError(
            "--initial-state: " + "; ".join(faults),
            hint=f"the states are {'; '.join(map(str, states)) or 'none'}",
            details={"faults": faults},
        )
    return found


def _read(path: Path) -> Arrays:
    return {key: np.stack(list(c.rows(range(c.shape[0])))) for key, c in open_npz(path).items()}


def _faults(array: NDArray[Any], spec: TensorSpec, growing: frozenset[str]) -> Iterator[str]:
    same = array.dtype == np.dtype(spec.dtype)
    if not same and not (array.dtype.kind in "iuf" and np.dtype(spec.dtype).kind == "f"):
        yield f"'{spec.name}' is {spec.dtype}, the array is {array.dtype}"
    fits = array.ndim == len(spec.shape) and all(
        size == dim if isinstance(dim, int) else dim in growing or size == 1
        for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        yield f"'{spec.name}' wants {spec}, the array has {list(array.shape)}"
    elif what := non_finite(array):
        yield f"'{spec.name}' holds {what}"
