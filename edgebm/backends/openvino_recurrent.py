"""Make LSTM and GRU layers of an OpenVINO graph compute in 8-bit integers.

OpenVINO's CPU plugin (2026.4) has such a kernel, takes it only where all of this holds, and says
nothing where it does not: FakeQuantize directly on the input and on the initial state, the
latter no constant; one scale for both; integer weights whose rows share their scales between W
and R; one direction; for a GRU, `linear_before_reset` 0. Q/DQ nodes in an ONNX file do not lead
there, because the ONNX front end sorts the gates of weights that it takes for computed ones. So
the float graph is converted, and its sequences are replaced behind that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import BackendFailed
from edgebm.ir.annotate import cell_params_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.recurrent import Cell, cell_of
from edgebm.ir.traits import RECURRENT
from edgebm.quant.params import QuantParams, quantize
from edgebm.quant.recurrent import CellParams, folded
from edgebm.runtime.engines import import_vendor

ov = import_vendor("openvino")

_SEQUENCES = frozenset({"LSTMSequence", "GRUSequence", "RNNSequence"})
# Where OpenVINO has the gates of the ONNX standard: LSTM forget, input, cell, output.
_GATE_ORDER = {"LSTM": (2, 0, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}


def quantize_cells(converted: Any, lowered: Model) -> None:
    """Edit `converted`, the OpenVINO model of `lowered`, by the decisions on its cells.

    Every sequence gets the name of its node in `lowered`, so that what it ran in can be read back.

    Raises:
        BackendFailed: a decided cell has no sequence in `converted`.
    """
    nodes: dict[bytes, list[ir.Node]] = {}
    for node in lowered.nodes(*RECURRENT):
        if (cell := cell_of(node)) is not None:
            nodes.setdefault(_sorted_gates(cell, cell.r).tobytes(), []).append(node)
    left = {
        node.name or "?" for node in lowered.nodes(*RECURRENT) if cell_params_of(node) is not None
    }
    surgeon = _Surgeon(converted)
    for sequence in converted.get_ordered_ops():
        found = nodes.get(_recurrent_weights(sequence))
        if not found:
            continue
        node = found.pop(0)  # cells of equal weights come in the order of the graph
        sequence.set_friendly_name(node.name)
        params, cell = cell_params_of(node), cell_of(node)
        if cell is None:
            continue
        _settle_lengths(sequence, cell)
        if params is not None:
            surgeon.replace(sequence, cell, params)
            left.discard(node.name or "?")
    if left:
        raise BackendFailed(
            f"OpenVINO {ov.__version__} has no LSTMSequence or GRUSequence for {sorted(left)}; "
            "they cannot be made to compute in int8"
        )


def _recurrent_weights(sequence: Any) -> bytes:
    """The bytes of R, by which a sequence is told: names do not survive the conversion."""
    if sequence.get_type_name() not in _SEQUENCES:
        return b""
    weights = sequence.input_value(sequence.get_input_size() - 2).get_node()
    return bytes(weights.data.tobytes()) if weights.get_type_name() == "Constant" else b""


def _sorted_gates(cell: Cell, array: NDArray[Any]) -> NDArray[Any]:
    """Rows of `array` [D, G * H, ...] in OpenVINO's order of the gates."""
    gates = array.reshape(cell.directions, cell.gates, cell.hidden, *array.shape[2:])
    return gates[:, list(_GATE_ORDER[cell.op])].reshape(array.shape)


def _settle_lengths(sequence: Any, cell: Cell) -> None:
    """Make the number of steps a constant where all sequences have the same, and it is known.

    The ONNX front end computes it from the shape of x. Beside an initial state OpenVINO (2026.4)
    then takes the steps for different ones and runs a loop over single steps, many times slower.
    """
    at = sequence.get_input_size() - 4
    shape = sequence.input_value(0).get_partial_shape()
    if cell.lengths is None and shape[0].is_static and shape[1].is_static:
        batch, steps = shape[0].get_length(), shape[1].get_length()
        count = ov.opset13.constant(np.full(batch, steps, np.int32))
        sequence.input(at).replace_source_output(count.output(0))


class _Surgeon:
    """Puts integer sequences in the place of float ones, in one OpenVINO model."""

    def __init__(self, converted: Any) -> None:
        self._silence = _Silence(converted)
        self._widths: set[tuple[str, str, int, int]] = set()

    def replace(self, sequence: Any, cell: Cell, params: CellParams) -> None:
        op, spare = ov.opset13, self._spare_columns(cell)
        moved, bias = folded(params, cell.w[0], cell.bias[0])
        moved = np.pad(moved, ((0, 0), (0, spare)))
        weights = [_weight(cell, array, params.weights) for array in (moved, cell.r[0])]
        x = _on_grid(sequence.input_value(0), params)
        if spare:
            ends = [op.constant(np.array(each)) for each in ((0, 0, 0), (0, 0, spare))]
            x = op.pad(x, *ends, "constant", op.constant(np.float32(0)))
        state = sequence.input_value(1)
        if not _is_fed(cell.initial_h):
            # FakeQuantize of a constant would be folded away, and the cell stay in float.
            state = op.add(state, self._silence())
        rest = [sequence.input_value(i) for i in range(2, sequence.get_input_size() - 3)]
        b = op.constant(_sorted_gates(cell, bias[None]).astype(np.float32))
        make = ov.opset5.lstm_sequence if cell.op == "LSTM" else ov.opset5.gru_sequence
        x, h = _rounded(x, params), _rounded(state, params)
        made = make(x, h, *rest, *weights, b, cell.hidden, cell.direction)
        made.set_friendly_name(sequence.get_friendly_name())
        for index in range(sequence.get_output_size()):
            names = sequence.output(index).names
            sequence.output(index).replace(made.output(index))
            made.output(index).set_names(names)

    def _spare_columns(self, cell: Cell) -> int:
        """How many zero columns give the cell a width of x that no other one of its form has.

        Of integer cells of one form OpenVINO (2026.4) builds one kernel and uses it for all of
        them, with the scales of the weights of the first.
        """
        spare = 0
        while (key := (cell.op, cell.direction, cell.hidden, cell.inputs + spare)) in self._widths:
            spare += 1
        self._widths.add(key)
        return spare


def _on_grid(x: Any, params: CellParams) -> Any:
    """X' = (x - offset) / stretch."""
    op = ov.opset13
    scale = op.constant((1 / params.stretch)[None, None].astype(np.float32))
    shift = op.constant((-params.offset / params.stretch)[None, None].astype(np.float32))
    return op.add(op.multiply(x, scale), shift)


def _rounded(value: Any, params: CellParams) -> Any:
    op, (low, high) = ov.opset13, (params.hidden.low, params.hidden.high)
    ends = [op.constant(np.float32(end)) for end in (low, high, low, high)]
    return op.fake_quantize(value, *ends, 256)


def _weight(cell: Cell, array: NDArray[Any], params: QuantParams) -> Any:
    """Rows in OpenVINO's order as int8, times their scales; [1, G * H, columns]."""
    op = ov.opset13
    integers = _sorted_gates(cell, quantize(array, params).astype(np.int8)[None])
    scale = _sorted_gates(cell, params.scale[None])[..., None]
    return op.multiply(op.convert(op.constant(integers), "f32"), op.constant(scale))


def _is_fed(state: ir.Value | None) -> bool:
    """Whether the initial state depends on what the model is fed, and not on its shape alone."""
    pending, seen = [state], set()
    while pending:
        value = pending.pop()
        if value is None or value in seen or const(value) is not None:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is None:
            return True
        if producer.op_type != "Shape":
            pending += producer.inputs
    return False


class _Silence:
    """A zero that depends on the data, whatever that is: |x| < -1, for a number x that is fed.

    Made once for a model, where it is first needed.
    """

    def __init__(self, converted: Any) -> None:
        self._fed = converted.inputs[0]
        self._made: Any = None

    def __call__(self) -> Any:
        if self._made is None:
            op = ov.opset13
            flat = op.reshape(
                self._fed.get_node(), op.constant(np.array([-1])), special_zero=False
            )
            first = op.gather(flat, op.constant(np.array([0])), op.constant(np.int64(0)))
            size = op.abs(op.convert(first, "f32"))
            below = op.less(size, op.constant(np.float32(-1)))
            self._made = op.convert(below, "f32")
        return self._made
