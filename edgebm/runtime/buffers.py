"""Arrays the caller gives for the outputs of a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import InputDType, InputPort, InputShape, InputType
from edgebm.runtime.answer import Answer
from edgebm.spec import TensorSpec

_USE = "out= takes writable numpy arrays of the outputs' own dtypes and shapes"


def check_buffers(out: Mapping[str, Any], specs: Sequence[TensorSpec]) -> None:
    """Refuse what cannot take an output, before the call is made.

    Raises:
        InputType: `out` is no mapping, or a value is no writable array.
        InputPort: a name is not an output.
        InputDType: another dtype.
    """
    if not isinstance(out, Mapping):
        raise InputType(f"out is {type(out).__name__}, a mapping from output name is expected")
    dtypes = {spec.name: np.dtype(spec.dtype) for spec in specs}
    if unknown := [name for name in out if name not in dtypes]:
        raise InputPort(f"out has {unknown}, the outputs are {list(dtypes)}", hint=_USE)
    for name, buffer in out.items():
        if not isinstance(buffer, np.ndarray) or not buffer.flags.writeable:
            raise InputType(f"out[{name!r}] is not a writable numpy array", hint=_USE)
        if buffer.dtype != dtypes[name]:
            raise InputDType(
                f"out[{name!r}] has dtype {buffer.dtype}, expected {dtypes[name]}", hint=_USE
            )


def fill_buffers(
    out: Mapping[str, NDArray[Any]], found: Iterable[tuple[str, NDArray[Any]]]
) -> Answer:
    """Copy outputs into the caller's buffers, or into new arrays where there is none.

    Raises:
        InputShape: a buffer has another shape; no buffer has been written then.
    """
    pairs = list(found)
    for name, array in pairs:
        if name in out and out[name].shape != array.shape:
            raise InputShape(
                f"out[{name!r}] has shape {list(out[name].shape)}, the output has "
                f"{list(array.shape)}",
                hint=_USE,
                details={"output": name, "expected": list(array.shape)},
            )
    answer = Answer()
    for name, array in pairs:
        if name in out:
            out[name][...] = array
            answer[name] = out[name]
        else:
            answer[name] = array.copy()
    return answer
