"""What a layer multiplies its weight with, row by row, and the weight as a matrix of that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.bias import subtract_from_bias, why_no_bias
from edgebm.ir.edit import add_const, const, input_at, main_graph, name, replace_const
from edgebm.ir.recurrent import B, R, W, X, cell_of
from edgebm.ir.traits import MATMULS, RECURRENT, is_float_const, is_transposed

F64 = NDArray[np.float64]
Rows = NDArray[Any]
_WIDEST = 2304  # 256 channels of 3x3: columns whose second moments are held


@dataclass(frozen=True, slots=True)
class Product:
    """One matrix product inside a layer: rows of what `read` holds times [K, N].

    `index` is the node's input with the weight, `axis` the axis of it that is summed over,
    `direction` that of a recurrent layer. Rows of a convolution are patches: all channels and
    `taps` places of the kernel. Those of a wide one are its channels at one place; `taps` is 1.
    """

    node: ir.Node
    index: int
    axis: int
    read: str
    taps: int = 1
    direction: int = 0

    @property
    def weight(self) -> NDArray[Any]:
        """The constant, as the node holds it."""
        array = const(self.node.inputs[self.index])
        assert array is not None
        return array

    def matrix(self) -> F64:
        """The weight as [K, N]: K columns of the rows, with all else along N."""
        weight = self._moved(self.weight)
        rows = -1 if self.taps > 1 else len(weight)
        return weight.reshape(rows, weight.shape[-1] if self.taps > 1 else -1).astype(np.float64)

    def columns(self, positions: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which columns of the rows positions on the weight's axis have."""
        return np.repeat(positions, self.taps)

    def rows(self, value: NDArray[Any], most: int, number: int) -> Rows:
        """At most `most` rows [n, K] of a value, evenly spread; `number` moves them along."""
        if self.taps > 1:
            return _patches(self.node, value, self.weight.shape[2:], most, number)
        if self.node.op_type in RECURRENT and self.index == R:
            value = value[:, self.direction]
        axis = 1 if self.node.op_type.startswith("Conv") else -1
        rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
        return rows[_spread(len(rows), most, number)]

    def write(self, matrix: F64, shift: F64 | None) -> None:
        """Put a matrix [K, N] in the place of the weight, and add a shift [N] to the bias."""
        value, fresh = self.node.inputs[self.index], np.array(self.weight)
        assert value is not None
        moved = self._moved(fresh)
        moved[...] = matrix.reshape(moved.shape)
        replace_const(value, fresh)
        if shift is None:
            return
        if self.node.op_type in RECURRENT:
            self._shift_gates(shift)
        elif self.taps > 1 or self.node.op_type != "Conv":
            subtract_from_bias(self.node, -shift)
        else:  # each place of the kernel sees the constant
            subtract_from_bias(self.node, -shift.reshape(len(fresh), -1).sum(1))

    def why_no_shift(self) -> str:
        """Why a constant cannot be added to what the product gives; empty where it can."""
        if self.node.op_type in RECURRENT:
            return ""
        if self.node.op_type == "ConvTranspose":
            return "its kernels overlap"
        first = self.node.op_type == "Conv" or is_transposed(self.node)
        return why_no_bias(self.node, self.weight.shape[0 if first else 1])

    def fixed(self) -> NDArray[np.bool_]:
        """Outputs [N] that are no sums of these rows, and must stay as they are.

        The candidate of a GRU that resets before its product reads a gated state.
        """
        stays = np.zeros(self.matrix().shape[1], np.bool_)
        cell = cell_of(self.node)
        if cell is not None and cell.op == "GRU" and self.index == R and not cell.resets_after:
            stays[2 * cell.hidden :] = True
        return stays

    def _moved(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view with the axis that is summed over first, and behind it the places."""
        if self.node.op_type in RECURRENT:
            return np.moveaxis(array[self.direction], self.axis - 1, 0)
        moved = np.moveaxis(array, self.axis, 0)
        return np.moveaxis(moved, 1, -1) if self.taps > 1 else moved

    def _shift_gates(self, shift: F64) -> None:
        """Each of the two products of a cell has its own half of the biases."""
        value, size = input_at(self.node, B), self.weight.shape[1]
        old = const(value)
        shape = (self.weight.shape[0], 2 * size)
        bias = np.zeros(shape, self.weight.dtype) if old is None else np.array(old)
        first = 0 if self.index == W else size
        bias[self.direction, first : first + size] += shift.astype(bias.dtype)
        if value is not None:
            replace_const(value, bias)
            return
        if len(self.node.inputs) <= B:
            self.node.resize_inputs(B + 1)
        label = f"{self.node.name}.bias"
        self.node.replace_input_with(B, add_const(main_graph(self.node), label, bias))


def products_of(node: ir.Node) -> Iterator[Product]:
    """The products of a layer whose weights can be fitted; none of a grouped convolution.

    A weight that others read too is left out.
    """
    if node.op_type in RECURRENT:
        yield from _recurrent(node)
        return
    if node.op_type not in MATMULS or not _is_own(node.inputs[1]):
        return
    read, weight = node.inputs[0], const(node.inputs[1])
    if read is None or weight is None or const(read) is not None:
        return
    if node.op_type in {"Conv", "ConvTranspose"}:
        if node.attributes.get_int("group", 1) == 1:
            yield _convolution(node, weight.shape, name(read))
    elif weight.ndim == 2 and node.attributes.get_int("transA", 0) == 0:
        yield Product(node, 1, 1 if is_transposed(node) else 0, name(read))


def _convolution(node: ir.Node, shape: tuple[int, ...], read: str) -> Product:
    if node.op_type == "ConvTranspose":
        return Product(node, 1, 0, read)
    places = math.prod(shape[2:])
    sized = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    fits = shape[1] * places <= _WIDEST and not sized
    return Product(node, 1, 1, read, places if fits else 1)


def _recurrent(node: ir.Node) -> Iterator[Product]:
    cell, bias = cell_of(node), input_at(node, B)
    if cell is None or node.attributes.get_int("layout", 0) == 1:
        return
    if bias is not None and not _is_own(bias):
        return
    for index, value in ((W, node.inputs[X]), (R, node.outputs[0])):
        seen = value is not None and (index == W or bool(value.uses()))
        if value is not None and seen and _is_own(node.inputs[index]):
            for direction in range(cell.directions):
                yield Product(node, index, 2, name(value), direction=direction)


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and is_float_const(value) and len(tuple(value.uses())) == 1


def _patches(
    node: ir.Node, value: NDArray[Any], kernel: tuple[int, ...], most: int, number: int
) -> Rows:
    """Rows [n, channels * places] that a convolution multiplies its kernel with."""
    rank = len(kernel)
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    strides = node.attributes.get_ints("strides", [1] * rank)
    dilations = node.attributes.get_ints("dilations", [1] * rank)
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(value, around), spans, axes)
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    windows = windows[(slice(None), slice(None), *steps)]
    grid = (len(value), *windows.shape[2 : 2 + rank])
    at = np.unravel_index(_spread(math.prod(grid), most, number), grid)
    rows: Rows = np.moveaxis(windows, 1, 1 + rank)[at]
    return rows.reshape(len(rows), -1)


def _spread(count: int, most: int, number: int) -> NDArray[np.int64]:
    """Evenly spread numbers below `count`."""
    stride = max(1, -(-count // most))
    return np.arange(number % stride, count, stride)
