"""Two quantized files of one model, read and paired node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.backends.tensorrt.reading import (
    COPIES,
    DQ,
    Q,
    Reading,
    constant_behind,
    dequantizer,
    label,
    read,
    scale_of,
    sizes,
)
from edgebm.backends.tensorrt.versions import OLDEST
from edgebm.importers import read_model
from edgebm.ir.edit import input_at
from edgebm.ir.traits import MATMULS, is_float

_PASSED = (COPIES | {Q, DQ}) - {"MaxPool"}


@dataclass(frozen=True, slots=True)
class Operand:
    """One float input of a node: a weight or an activation, and its scales if it is int8."""

    index: int
    is_weight: bool
    scale: NDArray[np.float64] | None
    axis: int | None

    @property
    def text(self) -> str:
        """`float`, `int8`, or `int8 along axis 0`."""
        if self.scale is None:
            return "float"
        return "int8" if self.axis is None else f"int8 along axis {self.axis}"


@dataclass(frozen=True, slots=True)
class Site:
    """A node that computes, or joins or pools, and what it reads."""

    node: ir.Node
    operands: tuple[Operand, ...]
    before: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        """What nodes that belong together have in common: the operator and a shape."""
        weight = sizes(input_at(self.node, 1)) if self.node.op_type in MATMULS else None
        return self.node.op_type, weight or ()


@dataclass(frozen=True, slots=True)
class File:
    """One file: what it was made of, its sites in an order that names do not decide."""

    path: Path
    reading: Reading
    sites: tuple[Site, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same input of the same node in both files."""

    ours: Site
    theirs: Site
    mine: Operand
    other: Operand

    @property
    def agrees(self) -> bool:
        """Whether both are float, or int8 with scales along the same axis."""
        return self.mine.text == self.other.text


def open_file(path: Path) -> File:
    """Read a file of either tool."""
    reading = read(read_model(str(path)), OLDEST)
    return File(path, reading, tuple(_site(node) for node in _in_order(reading)))


def pairs(ours: File, theirs: File) -> tuple[list[Pair], list[Site], list[Site]]:
    """Inputs of nodes that both files have; then nodes that only the first or the second has."""
    left, right = ours.sites, theirs.sites
    match = SequenceMatcher(None, [s.key for s in left], [s.key for s in right], autojunk=False)
    found: list[Pair] = []
    alone: tuple[list[Site], list[Site]] = (list(left), list(right))
    for first, second, count in match.get_matching_blocks():
        for a, b in zip(left[first : first + count], right[second : second + count], strict=True):
            alone[0].remove(a)
            alone[1].remove(b)
            others = {operand.index: operand for operand in b.operands}
            found += [Pair(a, b, o, others[o.index]) for o in a.operands if o.index in others]
    return found, *alone


def _in_order(reading: Reading) -> list[ir.Node]:
    """Nodes by the way that leads to them from the outputs, copies and Q/DQ left out."""
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    left: list[tuple[ir.Node, bool]] = [(n, False) for n in _makers(reading.graph.outputs)]
    while left:
        node, is_done = left.pop()
        if is_done:
            if node.op_type not in _PASSED:
                order.append(node)
        elif node not in seen:
            seen.add(node)
            left.append((node, True))
            left += [(maker, False) for maker in reversed(list(_makers(node.inputs)))]
    return [node for node in order if any(_operands(node))]


def _makers(values: Iterable[ir.Value | None]) -> Iterator[ir.Node]:
    for value in values:
        if value is not None and (node := value.producer()) is not None:
            yield node


def _site(node: ir.Node) -> Site:
    before = tuple(kind for value in node.inputs if value for kind in _kind_before(value))
    return Site(node, tuple(_operands(node)), before, tuple(_kinds_behind(node)))


def _operands(node: ir.Node) -> Iterator[Operand]:
    for index, value in enumerate(node.inputs):
        is_weight = constant_behind(value) is not None
        # A bias, an epsilon or a table is no place for Q/DQ.
        if not is_float(value) or (is_weight and not (node.op_type in MATMULS and index == 1)):
            continue
        found = dequantizer(value)
        scale = None if found is None else scale_of(found)
        if found is None or scale is None:
            yield Operand(index, is_weight, None, None)
            continue
        rank = len(sizes(input_at(found, 0)) or ())
        axis = found.attributes.get_int("axis", 1) % rank if scale.size > 1 and rank else None
        yield Operand(index, is_weight, scale.astype(np.float64).reshape(-1), axis)


def _kind_before(value: ir.Value) -> Iterator[str]:
    """The operator that writes `value`, in front of copies, Q/DQ and the Add of a bias."""
    while (node := value.producer()) is not None:
        first = input_at(node, 0)
        biased = node.op_type == "Add" and any(constant_behind(v) for v in node.inputs)
        if node.op_type not in _PASSED | {"Relu", "Clip"} and not biased:
            yield node.op_type
            return
        if biased and constant_behind(first) is not None:
            first = input_at(node, 1)
        if first is None:
            return
        value = first
    if constant_behind(value) is None:
        yield "input"


def _kinds_behind(node: ir.Node) -> Iterator[str]:
    """Operators that read what the node writes, behind copies and Q/DQ."""
    left, seen = list(node.outputs), set[ir.Value]()
    while left:
        value = left.pop()
        if value in seen:
            continue
        seen.add(value)
        for user, _ in value.uses():
            if user.op_type in _PASSED:
                left += user.outputs
            else:
                yield user.op_type


def float_types(file: File) -> dict[str, int]:
    """How many of the nodes with a float input compute in each floating type."""
    counted: dict[str, int] = {}
    for site in file.sites:
        value = input_at(site.node, 0)
        kind = value.dtype.name if value is not None and value.dtype else "?"
        counted[kind] = counted.get(kind, 0) + 1
    return counted


def name_of(site: Site) -> str:
    """How the site's node is called in its file."""
    return label(site.node)
