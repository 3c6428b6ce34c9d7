"""LSTM, GRU and RNN nodes by the names of their parts, not by the numbers of their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import const, input_at
from edgebm.ir.traits import RECURRENT

# Rows of W, R and B are stacked gate by gate, in the order of the ONNX standard.
GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "i"}
# Sigmoid for gates, tanh for what is squashed: Hochreiter & Schmidhuber 1997 with forget gates,
# Cho et al. 2014, Elman 1990.
STANDARD = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = range(8)
Y, Y_H, Y_C = range(3)


@dataclass(frozen=True, slots=True)
class Cell:
    """A recurrent node with constant weights. G gates, H hidden units, I inputs, D directions.

    `w` is [D, G * H, I], `r` [D, G * H, H] and `b` [D, 2 * G * H] (the biases of `w`, then those
    of `r`) or None for zeros; all are views that must not be written to.
    """

    node: ir.Node
    w: NDArray[Any]
    r: NDArray[Any]
    b: NDArray[Any] | None

    @property
    def op(self) -> str:
        return self.node.op_type

    @property
    def gates(self) -> int:
        return len(GATES[self.op])

    @property
    def hidden(self) -> int:
        return int(self.r.shape[2])

    @property
    def inputs(self) -> int:
        return int(self.w.shape[2])

    @property
    def direction(self) -> str:
        """One of "forward", "reverse" and "bidirectional"."""
        return self.node.attributes.get_string("direction", "forward")

    @property
    def directions(self) -> int:
        return int(self.w.shape[0])

    @property
    def resets_after(self) -> bool:
        """Whether a GRU applies its reset gate to the product with R (PyTorch, Keras, cuDNN)."""
        return self.op == "GRU" and self.node.attributes.get_int("linear_before_reset", 0) != 0

    @property
    def bias(self) -> NDArray[Any]:
        """The sum of both biases [D, G * H], zeros without any; not for `resets_after`."""
        if self.b is None:
            return np.zeros(self.r.shape[:2], self.r.dtype)
        ours, theirs = np.split(self.b, 2, axis=1)
        total: NDArray[Any] = ours + theirs
        return total

    @property
    def lengths(self) -> ir.Value | None:
        """Steps of each sequence of the batch, or None where all have the same."""
        return input_at(self.node, LENGTHS)

    @property
    def initial_h(self) -> ir.Value | None:
        return input_at(self.node, INITIAL_H)

    @property
    def initial_c(self) -> ir.Value | None:
        return input_at(self.node, INITIAL_C) if self.op == "LSTM" else None

    @property
    def is_standard(self) -> bool:
        """Whether gates and output have their usual functions and nothing is clipped or extra.

        The usual ones are those of `STANDARD`.
        """
        attributes = self.node.attributes
        wanted = STANDARD[self.op] * self.directions
        named = attributes.get_strings("activations", wanted)
        return (
            [name.lower() for name in named] == wanted
            and not {"clip", "activation_alpha", "activation_beta"} & set(attributes)
            and attributes.get_int("layout", 0) == 0
            and attributes.get_int("input_forget", 0) == 0
            and input_at(self.node, PEEPHOLES) is None
        )


def cell_of(node: ir.Node) -> Cell | None:
    """The recurrent node by its parts; None for another op, or where a weight is computed."""
    if node.op_type not in RECURRENT:
        return None
    w, r, bias = const(node.inputs[W]), const(node.inputs[R]), input_at(node, B)
    b = const(bias)
    if w is None or r is None or (bias is not None and b is None):
        return None
    return Cell(node, w, r, b)


def why_no_integers(cell: Cell | None) -> str:
    """Why no integer kernel takes a cell of this form; an empty string if one does.

    `cell` is None where a weight is computed.
    """
    if cell is None:
        return "its weights are computed, not constant"
    reasons = {
        "no runtime has an int8 kernel for a vanilla RNN": cell.op == "RNN",
        "an int8 GRU kernel exists only where the reset gate comes before the product "
        "(linear_before_reset=0)": cell.resets_after,
        "an int8 kernel exists only for sigmoid gates and tanh, and nothing clipped": (
            not cell.is_standard
        ),
        "an int8 kernel takes one direction": cell.directions > 1,
        f"its weights are {cell.w.dtype}; integer kernels work beside float32 only": (
            cell.w.dtype != np.float32
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")
