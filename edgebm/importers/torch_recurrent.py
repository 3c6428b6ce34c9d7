"""How torch's recurrent layers become ONNX nodes, where torch's own exporter does not say it well.

`nn.RNN` would be written out step by step, for as many steps as the example had; an `nn.LSTM`
with a projection would lose it. Both become nodes here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxscript import opset18
from onnxscript.values import Op, Opset

from edgebm.errors import UnsupportedModel
from edgebm.ir.simplify import is_zeros

op: Any = opset18  # typed for eager arrays; while tracing it takes and gives graph values
_DOMAIN = "edgebm.torch"
_LARGEST_CONDITION = 1e4
# Places of torch's gates (LSTM: ifgo) in the order of the standard (iofc).
_GATES = {"LSTM": (0, 3, 1, 2), "RNN": (0,)}


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    return {
        torch.ops.aten.lstm.input: _lstm,
        torch.ops.aten.rnn_tanh.input: _rnn_of("Tanh"),
        torch.ops.aten.rnn_relu.input: _rnn_of("Relu"),
    }


@contextlib.contextmanager
def free_steps() -> Iterator[None]:
    """While a module is traced, let the number of steps of an `nn.RNN` stay free.

    torch's own tracing rule walks over the steps, and so fixes their number. It has rules that
    do not for LSTM and GRU; this one only says what comes out, for the node is kept whole.
    """
    key = torch._C.DispatchKey.CompositeImplicitAutograd  # noqa: SLF001 - as torch.export does
    ops = [torch.ops.aten.rnn_tanh.input, torch.ops.aten.rnn_relu.input]
    before = [rule.py_kernels.get(key) for rule in ops]
    for rule in ops:
        rule.py_kernels[key] = _shapes
    try:
        yield
    finally:
        for rule, kernel in zip(ops, before, strict=True):
            rule.py_kernels.pop(key)
            if kernel is not None:
                rule.py_kernels[key] = kernel


def _shapes(x: Any, hx: Any, _: Any, *settings: Any) -> tuple[Any, Any]:
    directions = 1 + settings[4]
    return x.new_empty(*x.shape[:2], directions * hx.shape[2]), hx.new_empty(hx.shape)


def _lstm(x: Any, hx: Sequence[Any], params: Sequence[Any], *settings: Any) -> tuple[Any, ...]:
    """aten::lstm.input; see `torch.nn.LSTM` for the shapes and the order of `params`.

    `settings`: has_biases, num_layers, dropout, train, bidirectional, batch_first.
    """
    return _layers("LSTM", "", params, *settings).run(x, hx)


def _rnn_of(activation: str) -> Callable[..., tuple[Any, ...]]:
    def rnn(x: Any, hx: Any, params: Sequence[Any], *settings: Any) -> tuple[Any, ...]:
        """aten::rnn_tanh.input or aten::rnn_relu.input; `settings` as for `_lstm`."""
        return _layers("RNN", activation, params, *settings).run(x, [hx])

    return rnn


def _layers(kind: str, activation: str, params: Sequence[Any], *settings: Any) -> _Layers:
    biased, count, _, _, bidirectional, batch_first = settings
    return _Layers(kind, activation, params, biased, count, 1 + bidirectional, batch_first)


@dataclass(frozen=True)
class _Layers:
    """The layers of one module: `params` lists W, R, then biases, then the projection."""

    kind: str
    activation: str
    params: Sequence[Any]
    biased: bool
    count: int
    directions: int
    batch_first: bool

    @property
    def hidden(self) -> int:
        """Units: W has gates times units rows."""
        return int(self.params[0].shape[0]) // len(_GATES[self.kind])

    @property
    def projects(self) -> bool:
        """Whether a step hands on fewer numbers than it has units: R has fewer columns."""
        return int(self.params[1].shape[1]) != self.hidden

    def run(self, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        if self.batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        ends: list[tuple[Any, ...]] = []
        for layer in range(self.count):
            start = layer * self.directions
            cut = [op.Slice(s, [start], [start + self.directions], axes=[0]) for s in states]
            x, *last = self._layer(x, cut, layer)
            ends.append(tuple(last))
        if self.batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        joined = (op.Concat(*parts, axis=0) for parts in zip(*ends, strict=True))
        return x, *joined

    def _layer(self, x: Any, states: list[Any], layer: int) -> tuple[Any, ...]:
        parts = [self._direction(layer * self.directions + d) for d in range(self.directions)]
        w, r, b = (
            None if column[0] is None else op.Concat(*column, axis=0)
            for column in zip(*(part[:3] for part in parts), strict=True)
        )
        out = [part[3] for part in parts]
        if self.projects:
            states = [_each(states[0], [_unprojected(p) for p in out]), states[1]]
        initial = dict(zip(("initial_h", "initial_c"), states, strict=False))
        y, *ends = getattr(op, self.kind)(
            x, w, r, b, **initial, hidden_size=self.hidden,
            direction="bidirectional" if self.directions == 2 else "forward",
            **({"activations": [self.activation] * self.directions} if self.activation else {}),
        )  # fmt: skip
        if not self.projects:
            flat = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
            return flat, *ends
        turned = [op.Transpose(p, perm=[1, 0]) for p in out]
        pairs = zip(_sides(y, 1, len(out)), turned, strict=True)
        flat = op.Concat(*(op.MatMul(side, p) for side, p in pairs), axis=2)
        return flat, _each(ends[0], turned), *ends[1:]

    def _direction(self, index: int) -> tuple[Any, Any, Any, Any]:
        """W, R and B of one layer in one direction, [1, ...] each, and its projection or None.

        An LSTM whose output is P h' of h' = o tanh(c) hands on P h': with R P in the place of R
        the standard's LSTM computes h', and P comes behind it (Sak et al. 2014,
        arXiv:1402.1128, section 2).
        """
        count = 2 + 2 * self.biased + self.projects
        w, r, *rest = self.params[index * count : (index + 1) * count]
        projection = rest[-1] if self.projects else None
        if projection is not None:
            r = op.MatMul(r, projection)
        biases = [self._gates(b) for b in rest[:2]] if self.biased else []
        b = op.Unsqueeze(op.Concat(*biases, axis=0), [0]) if biases else None
        return (
            op.Unsqueeze(self._gates(w), [0]), op.Unsqueeze(self._gates(r), [0]), b, projection,
        )  # fmt: skip

    def _gates(self, stacked: Any) -> Any:
        order, size = _GATES[self.kind], self.hidden
        if len(order) == 1:
            return stacked
        cut = [op.Slice(stacked, [k * size], [(k + 1) * size], axes=[0]) for k in order]
        return op.Concat(*cut, axis=0)


def _sides(value: Any, axis: int, count: int) -> list[Any]:
    """The directions of a value, each without the axis that told them apart."""
    pieces = [op.Slice(value, [d], [d + 1], axes=[axis]) for d in range(count)]
    return [op.Squeeze(piece, [axis]) for piece in pieces]


def _each(state: Any, matrices: list[Any]) -> Any:
    """[D, B, K] times one matrix [K, N] per direction."""
    sides = _sides(state, 0, len(matrices))
    done = [op.Unsqueeze(op.MatMul(s, m), [0]) for s, m in zip(sides, matrices, strict=True)]
    return op.Concat(*done, axis=0)


def _unprojected(projection: Any) -> Any:
    """A matrix that takes P h' to one of the h' that have it; `finish` computes it."""
    schema = onnx.defs.OpSchema(
        "RightInverse", _DOMAIN, 1,
        inputs=[onnx.defs.OpSchema.FormalParameter("p", "tensor(float)")],
        outputs=[onnx.defs.OpSchema.FormalParameter("q", "tensor(float)")],
    )  # fmt: skip
    return Op(Opset(_DOMAIN, 1), schema.name, schema)(projection)


def finish(model: ir.Model) -> None:
    """Compute what the translations above left open until the weights are known, in place.

    Raises:
        UnsupportedModel: a projection has no stable inverse, and an initial state needs one.
    """
    for node in [n for n in model.graph if n.domain == _DOMAIN]:
        value = node.inputs[0]
        assert value is not None
        assert value.const_value is not None
        projection = value.const_value.numpy().astype(np.float64)
        condition = float(np.linalg.cond(projection))
        starts = [usage.node.inputs[0] for usage in node.outputs[0].uses()]
        needed = not all(start is not None and is_zeros(start) for start in starts)
        if needed and not condition < _LARGEST_CONDITION:
            raise UnsupportedModel(
                f"weight '{value.name}' projects the states of an LSTM with condition number "
                f"{condition:.0f}: an initial state that it was projected to cannot be taken back",
                hint="start the LSTM from zero states, or train it without proj_size",
            )
        # [P, H] with P <= H: x = h pinv(P)^T is the shortest with P x = h.
        inverse = np.linalg.pinv(projection).T.astype(np.float32)
        constant = ir.node("Constant", [], {"value": ir.tensor(inverse)})
        model.graph.insert_before(node, constant)
        constant.name, constant.outputs[0].name = node.name, f"{value.name}.right_inverse"
        ir.convenience.replace_all_uses_with(node.outputs[0], constant.outputs[0])
        model.graph.remove(node, safe=True)
    model.opset_imports.pop(_DOMAIN, None)
