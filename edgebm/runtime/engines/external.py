"""Whether an ONNX file keeps weights in other files, told without a parser of ONNX.

A bundle is complete, so an artifact that names a path is refused. OpenVINO would read any file
there that the process may read, even where the model itself comes from memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED_BYTES = {_EIGHT: 8, _FOUR: 4}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# The fields that lead to tensors, by their numbers in onnx.proto.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


class _Malformed(Exception):
    """No protobuf message; the runtime says so in its own words."""


def has_external_data(model: bytes) -> bool:
    """Whether a tensor of the ONNX file `model` lies elsewhere; False if it is no such file."""
    waiting = [("model", 0, len(model))]
    try:
        while waiting:
            kind, start, end = waiting.pop()
            for number, value, size in _fields(model, start, end):
                if kind == "tensor" and number in {_EXTERNAL_DATA, _DATA_LOCATION}:
                    if size or value:
                        return True
                elif size and (inside := _INSIDE[kind].get(number)):
                    waiting.append((inside, value, value + size))
    except _Malformed:
        return False
    return False


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, value and 0 of each varint; number, place and length of each run of bytes."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
            yield number, value, 0
        elif wire == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise _Malformed
            yield number, at, size
            at += size
        elif wire in _FIXED_BYTES:
            at += _FIXED_BYTES[wire]
        elif wire > _FOUR:
            raise _Malformed


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Malformed
