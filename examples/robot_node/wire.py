"""What travels between the three processes: frames and marks of a camera, reports of the node.

Every message begins with a header of a fixed size, little-endian, with a magic number and a
version; everything in it is checked before any of it is used. Sources and nodes are told by
the moment when their process started, in nanoseconds of the machine's monotonic clock, and so
are all stamps: a bus over two machines needs a clock that both share.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
FRAME, MARK = 1, 2
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 3: np.dtype("<f4")}
# magic, version, kind, source, seq, stamp_ns, dtype, axes, 2 unused, shape, payload bytes
_FRAME = struct.Struct("<4sHHQQQBB2x4IQ")
# magic, version, verdict, late, node, number, source, first, count, stamp, in, out, meta, arrays
_REPORT = struct.Struct("<4sHBBQQQQQQQQII")
REPORT_BYTES = _REPORT.size


class WireError(ValueError):
    """A message that cannot be used: `code` for programs, `message` is the partly read one."""

    def __init__(self, code: str, text: str, message: Message | None = None) -> None:
        super().__init__(text)
        self.code, self.message = code, message


@dataclass(frozen=True, eq=False)
class Message:
    """A frame, or a mark: "I have sent `seq` frames so far"."""

    kind: int
    source: int
    seq: int
    stamp_ns: int
    image: NDArray[Any] | None = None


def pack_frame(source: int, seq: int, stamp_ns: int, image: NDArray[Any]) -> bytes:
    """A frame of one to four axes, uint8, uint16 or float32."""
    known = {dtype: code for code, dtype in DTYPES.items()}
    if image.dtype not in known or not 1 <= image.ndim <= 4:
        raise WireError("type", f"{image.dtype} with {image.ndim} axes cannot be sent")
    shape = (*image.shape, *[0] * (4 - image.ndim))
    head = (known[image.dtype], image.ndim, *shape, image.nbytes)
    return _FRAME.pack(b"EBMF", VERSION, FRAME, source, seq, stamp_ns, *head) + image.tobytes()


def pack_mark(source: int, sent: int, stamp_ns: int) -> bytes:
    """How many frames were sent so far. The last one of a camera says how many there were."""
    return _FRAME.pack(b"EBMF", VERSION, MARK, source, sent, stamp_ns, *[0] * 7)


def unpack(data: bytes) -> Message:
    """A frame or a mark; the image is a read-only view of `data`.

    Raises:
        WireError: it is none. `code` is "magic", "version", "kind", "type", "shape" or
            "truncated"; `error.message` names source and number where those could be read.
    """
    kind, source, seq, stamp_ns, code, axes, *shape, size = _begin(data, _FRAME, b"EBMF")
    known = Message(kind, source, seq, stamp_ns)
    if kind not in {FRAME, MARK}:
        raise WireError("kind", f"kind {kind} of message is not known")
    body = len(data) - _FRAME.size
    if kind == MARK:
        if size or body:
            raise WireError("truncated", f"a mark has no payload, this one has {body} bytes")
        return known
    if code not in DTYPES:
        raise WireError("type", f"frame {seq} has dtype code {code}, not of {[*DTYPES]}", known)
    if not 1 <= axes <= 4 or not all(shape[:axes]):
        raise WireError("shape", f"frame {seq} has {axes} axes of {shape}", known)
    dtype, sizes = DTYPES[code], shape[:axes]
    wanted = dtype.itemsize
    for length in sizes:  # plain integers: no product of sizes can overflow
        wanted *= length
    if not wanted == size == body:
        raise WireError(
            "truncated",
            f"frame {seq} needs {wanted} bytes for {dtype}{sizes}, says {size} and has {body}",
            known,
        )
    return replace(known, image=np.frombuffer(data, dtype, offset=_FRAME.size).reshape(sizes))


class Verdict(IntEnum):
    """What became of the frames from `first` on, `count` of them."""

    ANSWERED = 1
    FAILED = 2  # by edgebm; `meta` has the code and the sentence
    DROPPED = 3  # a newer one took its place, or the node was being stopped
    MISSED = 4  # sent by the camera, never here: lost on the way
    REFUSED = 5  # by the node: no frame that can be read, or of a second camera
    UNSEEN = 6  # sent before this node was listening
    STOPPED = 7  # from `first` on nobody looks: the node stops


@dataclass(frozen=True, eq=False)
class Report:
    """The node's word on `count` frames of `source`, the first of which is `first`.

    Attributes:
        node, number: which node says it, and its reports counted from 0.
        stamp_ns, in_ns, out_ns: the camera's stamp, when the frame came into the node, when this
            report left it; the first two are 0 where there are several frames or none.
        late: answered later than the node's deadline.
        meta: of a frame that failed or was refused, `code` and `message`.
        outputs: of a frame that was answered.
    """

    node: int
    number: int
    source: int
    first: int
    count: int
    verdict: Verdict
    stamp_ns: int = 0
    in_ns: int = 0
    out_ns: int = 0
    late: bool = False
    meta: dict[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def pack(self, *, short: bool = False) -> bytes:
        """As bytes; `short` is the header alone, as the node keeps it in its ledger."""
        meta, arrays = b"", b""
        if not short and (self.meta or self.outputs):
            listed = [[k, x.dtype.str, list(x.shape)] for k, x in self.outputs.items()]
            meta = json.dumps(self.meta | {"outputs": listed}).encode()
            arrays = b"".join(x.tobytes() for x in self.outputs.values())
        who = (self.verdict, self.late, self.node, self.number, self.source)
        what = (self.first, self.count, self.stamp_ns, self.in_ns, self.out_ns)
        head = _REPORT.pack(b"EBMR", VERSION, *who, *what, len(meta), len(arrays))
        return head + meta + arrays


def unpack_report(data: bytes) -> Report:
    """What `Report.pack` wrote.

    Raises:
        WireError: it is no report.
    """
    verdict, late, *numbers, meta_bytes, array_bytes = _begin(data, _REPORT, b"EBMR")
    if len(data) != REPORT_BYTES + meta_bytes + array_bytes:
        raise WireError("truncated", f"a report of {len(data)} bytes is not whole")
    try:
        kind = Verdict(verdict)
        meta = json.loads(data[REPORT_BYTES : REPORT_BYTES + meta_bytes] or b"{}")
        outputs, at = {}, REPORT_BYTES + meta_bytes
        for name, text, shape in meta.pop("outputs", []):
            dtype = np.dtype(text)
            count = int(np.prod(shape, dtype=object))
            outputs[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
    except (ValueError, TypeError, AttributeError) as cause:
        raise WireError("body", f"a report that cannot be read: {cause}") from cause
    node, number, source, first, count, stamp_ns, in_ns, out_ns = numbers
    times = (stamp_ns, in_ns, out_ns)
    return Report(node, number, source, first, count, kind, *times, bool(late), meta, outputs)


def _begin(data: bytes, header: struct.Struct, magic: bytes) -> tuple[Any, ...]:
    """The fields after magic and version, which are checked."""
    if len(data) < header.size:
        raise WireError("truncated", f"{len(data)} bytes, the header alone has {header.size}")
    found, version, *fields = header.unpack_from(data)
    if found != magic:
        raise WireError("magic", f"a message that begins with {found!r} is none of this example")
    if version != VERSION:
        raise WireError("version", f"version {version} of the header, {VERSION} is known here")
    return tuple(fields)
