"""The check of residual Adds: which of the two inputs is the skip, and which has Q/DQ."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgebm.backends.tensorrt.reading import (
    DQ,
    Fault,
    Q,
    Reading,
    constant_behind,
    dequantizer,
    is_quantized_layer,
    source,
)
from edgebm.ir.edit import input_at, inputs, sole_user

Depths = dict[ir.Value, int]


def skips(reading: Reading) -> Iterator[Fault]:
    """W05."""
    for node in reading.of("Add"):
        found = branch_of(node)
        if found is None or not is_quantized_layer(found[1]):
            continue
        terms = inputs(node)
        branch, skip = terms[found[0]], terms[1 - found[0]]
        if _is_own(branch):
            yield node, f"the branch '{source(branch).name}' is quantized before the sum"
        if dequantizer(skip) is None:
            yield node, f"the skip '{skip.name}' is not quantized"


def branch_of(add: ir.Node) -> tuple[int, ir.Node] | None:
    """Which term of a residual sum is the branch, and the Conv that it ends in.

    None of any other Add, and where both terms end in a Conv equally far from what both come
    from.
    """
    terms = inputs(add)
    if len(terms) != 2 or any(constant_behind(value) for value in terms):
        return None
    convolutions = [_convolution(value) for value in terms]
    branch = _branch(terms, convolutions)
    layer = None if branch is None else convolutions[branch]
    return None if branch is None or layer is None else (branch, layer)


def _convolution(value: ir.Value) -> ir.Node | None:
    """The Conv that writes `value`, through Q/DQ and a BatchNormalization."""
    node = source(value).producer()
    if node is not None and node.op_type == "BatchNormalization":
        before = input_at(node, 0)
        node = None if before is None else source(before).producer()
    return node if node is not None and node.op_type == "Conv" else None


def _branch(terms: list[ir.Value], convolutions: list[ir.Node | None]) -> int | None:
    """Which term is the branch; None if neither is, or if both are and none is the longer."""
    ends = [index for index, node in enumerate(convolutions) if node is not None]
    if len(ends) < 2:
        return ends[0] if ends else None
    left, right = _ways(*terms)
    if left == right:
        return None
    return 0 if left > right else 1


def _ways(a: ir.Value, b: ir.Value) -> tuple[int, int]:
    """Nodes from either value back to the nearest one that both come from; (0, 0) if none is."""
    seen: tuple[Depths, Depths] = ({a: 0}, {b: 0})
    fronts = [[a], [b]]
    while any(fronts):
        for index in (0, 1):
            fronts[index] = _step_back(fronts[index], seen[index])
        if shared := seen[0].keys() & seen[1].keys():
            nearest = min(shared, key=lambda value: (seen[0][value] + seen[1][value], value.name))
            return seen[0][nearest], seen[1][nearest]
    return 0, 0


def _step_back(front: list[ir.Value], depths: Depths) -> list[ir.Value]:
    """The values that `front` is computed from, for the first time; Q and DQ are no step."""
    found = []
    for value in front:
        start = source(value)
        node = start.producer()
        depths.setdefault(start, depths[value])
        for before in inputs(node) if node is not None else ():
            if before not in depths and constant_behind(before) is None:
                depths[before] = depths[value] + 1
                found.append(before)
    return found


def _is_own(value: ir.Value) -> bool:
    """Whether the Q/DQ in front of the sum is there for the sum alone."""
    node = value.producer()
    if node is None or node.op_type != DQ:
        return False
    before = input_at(node, 0)
    quantizer = None if before is None else before.producer()
    return (
        quantizer is not None and quantizer.op_type == Q and sole_user(source(value)) is not None
    )
