"""One compiled model as a file that only this device can have written.

    8 bytes  magic, then format (u32), length of the header (u32), length of the body (u64), key
    header   JSON: the facts of the key, the options and the length of each blob, times
    32 bytes HMAC-SHA256 of all before: lets the header be read without the body
    body     the blobs, one after another
    32 bytes HMAC-SHA256 of all before

All numbers are little-endian. Nothing is mapped; no byte is given out before its code is right.
"""

from __future__ import annotations

import hmac
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebm.errors import EngineStale
from edgebm.runtime.cache_key import FORMAT

MAGIC = b"EDGEBMCM"
KEY_BYTES = CODE_BYTES = 32
_HEAD = struct.Struct(f"<8sIIQ{KEY_BYTES}s")
_MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Head:
    """The start of an entry whose first code is right. `sizes` are those of the blobs."""

    key: bytes
    header: Mapping[str, Any]
    sizes: tuple[int, ...]
    bytes_read: bytes


def write_entry(
    file: int, secret: bytes, key: bytes, header: Mapping[str, Any], blobs: Sequence[bytes]
) -> int:
    """Write an entry to an open file; the number of bytes it has.

    Raises:
        OSError: the system's own.
    """
    sizes = [len(blob) for blob in blobs]
    text = json.dumps({**header, "sizes": sizes}, sort_keys=True).encode()
    head = _HEAD.pack(MAGIC, FORMAT, len(text), sum(sizes), key) + text
    code = hmac.new(secret, head, "sha256")
    parts = [head, code.digest()]
    code.update(parts[1])
    for blob in blobs:
        code.update(blob)
    written = 0
    for part in (*parts, *blobs, code.digest()):
        written += _write_all(file, part)
    return written


def read_head(file: int, secret: bytes) -> Head:
    """Read and check the start of an entry.

    Raises:
        EngineStale: says why these bytes are not what edgebm wrote here.
        OSError: the system's own.
    """
    size = os.fstat(file).st_size
    start = _read_exactly(file, _HEAD.size)
    magic, version, header_bytes, body_bytes, key = _HEAD.unpack(start)
    if magic != MAGIC or version != FORMAT:
        raise EngineStale("it is no compiled model of this edgebm")
    expected = _HEAD.size + header_bytes + body_bytes + 2 * CODE_BYTES
    if size != expected or header_bytes > _MAX_HEADER_BYTES:
        raise EngineStale(f"it has {size} bytes, its own head says {expected}")
    head = start + _read_exactly(file, header_bytes)
    code = _read_exactly(file, CODE_BYTES)
    if not hmac.compare_digest(hmac.digest(secret, head, "sha256"), code):
        raise EngineStale("its head has not the code that this device gives")
    header = json.loads(head[_HEAD.size :])
    return Head(key, header, tuple(header["sizes"]), head + code)


def read_body(file: int, secret: bytes, head: Head) -> tuple[bytes, ...]:
    """Read the blobs behind a head that was just read, and check all bytes of the file.

    Raises:
        EngineStale: says why these bytes are not what edgebm wrote here.
        OSError: the system's own.
    """
    code = hmac.new(secret, head.bytes_read, "sha256")
    blobs = []
    for size in head.sizes:
        blobs.append(_read_exactly(file, size))
        code.update(blobs[-1])
    if not hmac.compare_digest(code.digest(), _read_exactly(file, CODE_BYTES)):
        raise EngineStale("its bytes have not the code that this device gives")
    return tuple(blobs)


def _read_exactly(file: int, count: int) -> bytes:
    parts = []
    left = count
    while left:
        # One read takes at most 2 GiB.
        part = os.read(file, min(left, 1 << 30))
        if not part:
            raise EngineStale("it ends too early")
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write_all(file: int, data: bytes) -> int:
    view, done = memoryview(data), 0
    while done < len(view):
        # In pieces, so that a full disk or Ctrl-C is noticed on the way.
        done += os.write(file, view[done : done + _CHUNK_BYTES])
    return done
