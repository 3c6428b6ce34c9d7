"""The state of a stream as bytes, bound to the model that made it.

All numbers are little-endian: the magic, a version, the identity of the model (32 bytes), the
number of arrays (0: the stream has not begun); for each array its sizes as 64-bit integers, then
its values in C order; last the SHA-256 of everything before.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import StateError
from edgebm.spec import TensorSpec

MAGIC = b"EDGEBMST"
VERSION = 1
_HEAD = struct.Struct("<8sI32sI")
_HASH_BYTES = 32
_HINT = "the stream goes on as it was"


def identity(report: Mapping[str, Any], specs: Sequence[TensorSpec]) -> bytes:
    """What two sessions must share so that one can take the other's states: 32 bytes.

    The bundle, the variant, and name, dtype and shape of every state.
    """
    variant = [report.get(key, "") for key in ("digest", "target", "runtime")]
    states = [[spec.name, spec.dtype, list(spec.shape)] for spec in specs]
    return hashlib.sha256(json.dumps([variant, states]).encode()).digest()


def pack(model: bytes, arrays: Sequence[NDArray[Any]]) -> bytes:
    """`arrays` as a snapshot of the model with the identity `model`."""
    parts = [_HEAD.pack(MAGIC, VERSION, model, len(arrays))]
    for array in arrays:
        parts.append(struct.pack(f"<{array.ndim}Q", *array.shape))
        parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def unpack(blob: Any, model: bytes, specs: Sequence[TensorSpec]) -> tuple[NDArray[Any], ...]:
    """The arrays of a snapshot, of the dtypes and ranks of `specs`; () if it had not begun.

    Raises:
        StateError: no snapshot, a damaged one, or one of another model.
    """
    if not isinstance(blob, (bytes, bytearray, memoryview)):
        raise StateError(f"a snapshot is bytes, not {type(blob).__name__}", hint=_HINT)
    data = bytes(blob)
    if not data.startswith(MAGIC):
        raise StateError("these bytes are no snapshot of a stream", hint=_HINT)
    body, check = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != check:
        raise StateError(
            f"the snapshot is damaged: its {len(data)} bytes are not those that were written",
            hint=_HINT,
        )
    _, version, made_by, count = _HEAD.unpack_from(body)
    if version != VERSION:
        raise StateError(
            f"the snapshot has version {version}, this edgebm reads {VERSION}", hint=_HINT
        )
    if made_by != model:
        raise StateError(
            "the snapshot is of another model",
            hint="it fits the bundle and the variant that it was taken from, and no other",
        )
    if count not in {0, len(specs)}:
        raise StateError(f"the snapshot has {count} states, the model {len(specs)}", hint=_HINT)
    return _arrays(body, specs if count else ())


def _arrays(body: bytes, specs: Sequence[TensorSpec]) -> tuple[NDArray[Any], ...]:
    place, found = _HEAD.size, []
    for spec in specs:
        sizes = struct.Struct(f"<{len(spec.shape)}Q")
        dtype = np.dtype(spec.dtype)
        if place + sizes.size > len(body):
            break
        shape = sizes.unpack_from(body, place)
        place += sizes.size
        # Plain integers: a product cannot wrap around.
        end = place + math.prod(shape) * dtype.itemsize
        if end > len(body):
            break
        raw = np.frombuffer(body[place:end], dtype.newbyteorder("<"))
        found.append(raw.astype(dtype).reshape(shape))
        place = end
    if len(found) != len(specs) or place != len(body):
        raise StateError("the snapshot holds other arrays than it says", hint=_HINT)
    return tuple(found)
