"""LSTM, GRU and RNN on torch's fused kernels, where torch has the form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from edgebm.grad.gru import ResetBeforeGru
from edgebm.grad.op import Compute, Family, NotCovered
from edgebm.ir.edit import input_at
from edgebm.ir.recurrent import GATES, PEEPHOLES

# Where each of torch's gates lies among ONNX's: torch has i, f, g, o and r, z, n.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def _rule(node: ir.Node) -> Compute:
    attributes = node.attributes
    direction = attributes.get_string("direction", "forward")
    layer = _Layer(
        op=node.op_type,
        kernel=_kernel(node, 2 if direction == "bidirectional" else 1),
        direction=direction,
        batch_first=attributes.get_int("layout", 0) == 1,
    )
    return layer.run


def _kernel(node: ir.Node, directions: int) -> str:
    """The name of the kernel that computes this form of cell.

    Raises:
        NotCovered: activations, clipping or peepholes that no kernel has.
    """
    op, attributes = node.op_type, node.attributes
    extra = [key for key in ("clip", "activation_alpha", "activation_beta") if key in attributes]
    extra += ["input_forget"] if attributes.get_int("input_forget", 0) else []
    extra += ["peepholes"] if input_at(node, PEEPHOLES) is not None else []
    if extra:
        raise NotCovered(f"torch has no {op} with {', '.join(extra)}")
    named = attributes.get_strings("activations", _USUAL[op] * directions)
    activations = [name.lower() for name in named]
    if op == "RNN" and activations == ["relu"] * directions:
        return "rnn_relu"
    if activations != _USUAL[op] * directions:
        raise NotCovered(f"torch has no {op} with the activations {', '.join(activations)}")
    if op == "GRU" and attributes.get_int("linear_before_reset", 0) == 0:
        return "reset_before"
    return {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[op]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One recurrent node by its attributes. T steps, N sequences, D directions, H units."""

    op: str
    kernel: str
    direction: str
    batch_first: bool

    def run(
        self,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Tensor | None = None,
        *initial: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Y [T, D, N, H], Y_h [D, N, H] and, of an LSTM, Y_c; with N first where `layout` is 1."""
        if self.batch_first:
            x = x.transpose(0, 1)
        if lengths is not None and bool((lengths == len(x)).all()):
            lengths = None  # the kernels are faster without
        zeros = x.new_zeros(r.shape[0], x.shape[1], r.shape[2])
        given = [*initial, None, None][: 2 if self.op == "LSTM" else 1]
        states = [zeros if s is None else self._turned(s) for s in given]
        fused = self._reset_before if self.kernel == "reset_before" else self._fused
        if self.direction == "reverse":
            x = reversed_in_time(x, lengths)
        y, *last = fused(x, (w, r, b), lengths, states)
        if self.direction == "reverse":
            y = reversed_in_time(y, lengths)
        y = y.reshape(*y.shape[:2], r.shape[0], r.shape[2]).transpose(1, 2)
        if self.batch_first:
            y = y.permute(2, 0, 1, 3)
        return (y, *(self._turned(state) for state in last))

    def _turned(self, state: Tensor) -> Tensor:
        return state.transpose(0, 1).contiguous() if self.batch_first else state

    def _fused(
        self,
        x: Tensor,
        weights: tuple[Tensor, Tensor, Tensor | None],
        lengths: Tensor | None,
        states: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Y [T, N, D * H] and the last states [D, N, H]."""
        flat, biased = self._flat(*weights), weights[2] is not None
        both = self.direction == "bidirectional"
        h = tuple(states) if self.op == "LSTM" else states[0]
        kernel = getattr(torch._VF, self.kernel)  # noqa: SLF001 - where torch.nn calls it from
        one_layer = (1, 0.0, False, both)  # no dropout, no training
        if lengths is None:
            return tuple(kernel(x, h, flat, biased, *one_layer, False))  # noqa: FBT003 - time first
        packed = pack_padded_sequence(x, lengths.cpu().to(torch.int64), enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        assert order is not None
        assert back is not None
        h = tuple(s[:, order] for s in states) if self.op == "LSTM" else states[0][:, order]
        y, *last = kernel(packed.data, packed.batch_sizes, h, flat, biased, *one_layer)
        padded, _ = pad_packed_sequence(
            torch.nn.utils.rnn.PackedSequence(y, packed.batch_sizes, order, back),
            total_length=len(x),
        )
        return (padded, *(state[:, back] for state in last))

    def _flat(self, w: Tensor, r: Tensor, b: Tensor | None) -> list[Tensor]:
        """Weights as torch's kernels take them: per direction W, R and the two biases."""
        gates = len(GATES[self.op])

        def ordered(rows: Tensor) -> Tensor:
            parts = rows.chunk(gates)
            return rows if gates == 1 else torch.cat([parts[i] for i in _ORDER[self.op]])

        flat = []
        for d in range(w.shape[0]):
            flat += [ordered(w[d]), ordered(r[d])]
            flat += [] if b is None else [ordered(half) for half in b[d].chunk(2)]
        return flat

    def _reset_before(
        self,
        x: Tensor,
        weights: tuple[Tensor, Tensor, Tensor | None],
        lengths: Tensor | None,
        states: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """As `_fused`; both biases are summed, since neither sits behind a gate."""
        w, r, b = weights
        outputs, last = [], []
        for d in range(w.shape[0]):
            source = x if d == 0 else reversed_in_time(x, lengths)
            bias = None if b is None else b[d].chunk(2)[0] + b[d].chunk(2)[1]
            given = torch.nn.functional.linear(source, w[d], bias)
            y, h = _masked_states(given, states[0][d], r[d], lengths)
            outputs.append(y if d == 0 else reversed_in_time(y, lengths))
            last.append(h)
        return torch.cat(outputs, 2), torch.stack(last)


def _masked_states(
    given: Tensor, initial: Tensor, r: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States [T, N, H], zero behind the end of each sequence, and the last of each [N, H]."""
    hidden = r.shape[1]
    if lengths is None:
        y = _states(given, initial, r)
        return y, y[-1]
    ended = torch.arange(len(given), device=given.device)[:, None] >= lengths.to(given.device)
    # A update gate of exactly 1 keeps the state; no gradient passes it.
    kept = given[:, :, :hidden].masked_fill(ended[..., None], torch.inf)
    y = _states(torch.cat([kept, given[:, :, hidden:]], 2), initial, r)
    return y.masked_fill(ended[..., None], 0), y[-1]


def _states(given: Tensor, initial: Tensor, r: Tensor) -> Tensor:
    states: Tensor = ResetBeforeGru.apply(given, initial, r)  # type: ignore[no-untyped-call]
    return states


def reversed_in_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence of [T, N, ...] backwards; what lies behind its end stays where it is."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(len(x), device=x.device)[:, None]
    ends = lengths.to(device=x.device, dtype=torch.int64)
    source = torch.where(t < ends, ends - 1 - t, t)
    return x.gather(0, source.reshape(*source.shape, *[1] * (x.ndim - 2)).expand_as(x))


OPS: Family = dict.fromkeys(("LSTM", "GRU", "RNN"), _rule)
