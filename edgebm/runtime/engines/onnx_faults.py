"""What no ONNX artifact may hold, told without a parser of ONNX.

A bundle is complete, so an artifact that names a path is refused: OpenVINO would read any file
there that the process may read, even where the model itself comes from memory. Lowered graphs
have no loops and no branches; in an artifact of another program a loop may have no end, and both
runtimes run it while they load. A Scan ends with its sequence: cells with stored weights are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED_BYTES = {_EIGHT: 8, _FOUR: 4}
# Fields by their numbers in onnx.proto: those of interest, and those that lead to others.
_OP_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 4, 13, 14
_CONTROL_FLOW = {b"Loop", b"If"}
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


class Malformed(Exception):
    """No protobuf message; the runtime says so in its own words."""


def onnx_faults(model: bytes) -> list[str]:
    """A sentence for each kind of thing in the ONNX file `model` that no artifact holds.

    What is no such file has no faults here: its runtime refuses it.
    """
    waiting = [("model", 0, len(model))]
    is_elsewhere, flows = False, set[bytes]()
    try:
        while waiting:
            kind, start, end = waiting.pop()
            for number, value, size in fields(model, start, end):
                if kind == "tensor" and number in {_EXTERNAL_DATA, _DATA_LOCATION}:
                    is_elsewhere |= bool(size or value)
                elif kind == "node" and number == _OP_TYPE:
                    flows |= {model[value : value + size]} & _CONTROL_FLOW
                elif size and (inside := _INSIDE[kind].get(number)):
                    waiting.append((inside, value, value + size))
    except Malformed:
        return []
    faults = ["model.onnx keeps weights in other files"] if is_elsewhere else []
    return faults + [f"model.onnx has a node {name.decode()}" for name in sorted(flows)]


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
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
                raise Malformed
            yield number, at, size
            at += size
        elif wire in _FIXED_BYTES:
            at += _FIXED_BYTES[wire]
        elif wire > _FOUR:
            raise Malformed


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise Malformed
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed
