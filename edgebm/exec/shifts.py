"""How far each quantized layer moves the mean of its output channels, in one sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import const, main_graph, name, sole_user
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS, MOVES

F64 = NDArray[np.float64]


def output_shifts(
    lowered: Model, original: Model, samples: Iterable[Feeds], progress: Callable[[], None]
) -> dict[str, F64]:
    """Mean of a layer's output less what it would be in float, for the same unrounded input.

    The input is that of the quantized graph, in front of the last rounding: the layers before,
    whose own shifts are corrected where they arise, do not count again. A channel's mean is known
    to within its standard error over the samples; what is closer to zero than that is not told
    from chance, and the rest is shrunk by it, as a Wiener filter shrinks noise.

    Args:
        lowered: Q/DQ graph.
        original: the float graph of the same node names; its weights are the exact ones.
        samples: a few; one is held in memory at a time.
        progress: called after each sample.

    Returns:
        For each Conv, ConvTranspose, Gemm and MatMul with an integer weight, by name: shape [C].
    """
    probe = lowered.clone()
    weights = {node.name: const(node.inputs[1]) for node in original.nodes(*MATMULS)}
    fetched = {}
    before = _BeforeRounding()
    for node in list(probe.nodes(*MATMULS)):
        exact, known = weights.get(node.name), node.outputs[0].shape is not None
        if exact is not None and known and _is_dequantized(node.inputs[1]):
            fetched[f"{node.name}@shift"] = node.name or "?"
            _watch(probe, node, before.of(node.inputs[0]), exact)
    probe.graph.graph.sort()
    runner = FloatRunner(probe, list(fetched), plain=True)
    means = _Means()
    for feeds in samples:
        means.add(runner.run(feeds))
        progress()
    return {fetched[label]: shift for label, shift in means.shrunk().items()}


def final_layers(lowered: Model) -> dict[str, ir.Node]:
    """Layers of integer weights that write the model's outputs, by the name of what they write."""
    return {
        name(node.outputs[0]): node
        for node in lowered.nodes(*MATMULS)
        if node.outputs[0].shape is not None
        and _is_dequantized(node.inputs[1])
        and _ends_the_model(node.outputs[0])
    }


def final_shifts(
    lowered: Model, original: Model, samples: Iterable[Feeds], progress: Callable[[], None]
) -> dict[str, F64]:
    """What all rounding together adds to the mean of each of `final_layers`, by the layer's name.

    Shrunk as in `output_shifts`, and of the same form.
    """
    last = final_layers(lowered)
    plain, rounded = (
        FloatRunner(original, list(last)),
        FloatRunner(lowered, list(last), plain=True),
    )
    means = _Means()
    for feeds in samples:
        want, got = plain.run(feeds), rounded.run(feeds)
        means.add(
            {label: _by_channel(node, got[label] - want[label]) for label, node in last.items()}
        )
        progress()
    return {last[label].name or "?": shift for label, shift in means.shrunk().items()}


class _Means:
    """Mean of arrays of equal shapes over samples, by name."""

    def __init__(self) -> None:
        self._sums: dict[str, F64] = {}
        self._squares: dict[str, F64] = {}
        self._count = 0

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in one sample."""
        self._count += 1
        for label, array in arrays.items():
            x = np.asarray(array, np.float64)
            self._sums[label] = self._sums.get(label, 0.0) + x
            self._squares[label] = self._squares.get(label, 0.0) + x**2

    def shrunk(self) -> dict[str, F64]:
        """The means as far as they are told from chance; of one sample nothing is."""
        n = self._count
        if n < 2:
            return {}
        return {
            k: _shrunk(self._sums[k] / n, square / n, n) for k, square in self._squares.items()
        }


def _shrunk(mean: F64, square: F64, count: int) -> F64:
    """`mean` of `count` draws times the share of its square that is not its own error's."""
    error = np.maximum(square - mean**2, 0.0) / (count - 1)
    signal = np.maximum(mean**2 - error, 0.0)
    return np.asarray(mean * signal / np.maximum(mean**2, np.finfo(np.float64).tiny))


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _watch(model: Model, node: ir.Node, value: ir.Value, exact: NDArray[np.generic]) -> None:
    """Add a twin of `node` that reads `value` and multiplies by `exact`, both in float.

    Behind it comes the mean over all but the channels of what the two are apart.
    """
    graph, label = model.graph.graph, node.name or "?"
    weight = ir.val(f"{label}.exact", const_value=ir.tensor(exact, name=f"{label}.exact"))
    graph.register_initializer(weight)
    rest = [value for value in node.inputs[2:] if value is not None]
    twin = ir.node(node.op_type, [value, weight, *rest], node.attributes.copy())
    difference = ir.node("Sub", [node.outputs[0], twin.outputs[0]])
    axes = np.array(_other_axes(node, len(node.outputs[0].shape or ())), np.int64)
    over = ir.val(f"{label}.axes", const_value=ir.tensor(axes, name=f"{label}.axes"))
    graph.register_initializer(over)
    mean = ir.node("ReduceMean", [difference.outputs[0], over], {"keepdims": 0})
    for each in (twin, difference, mean):
        each.outputs[0].dtype = ir.DataType.FLOAT
        graph.append(each)
    mean.outputs[0].name = f"{label}@shift"


def _other_axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """All axes of the output of `node` but that of its channels."""
    channels = 1 if node.op_type.startswith("Conv") else rank - 1
    return tuple(i for i in range(rank) if i != channels)


def _by_channel(node: ir.Node, output: NDArray[Any]) -> F64:
    return np.asarray(output.mean(axis=_other_axes(node, output.ndim), dtype=np.float64))


def _ends_the_model(value: ir.Value) -> bool:
    """Whether `value` becomes a model output, with nothing but moves and constants on the way."""
    if value.is_graph_output():
        return True
    user = sole_user(value)
    if user is None or user.op_type not in MOVES | {"Add"}:
        return False
    steady = user.op_type in MOVES or any(const(v) is not None for v in user.inputs)
    return steady and _ends_the_model(user.outputs[0])


class _BeforeRounding:
    """Finds what a value would be without the Q/DQ pair that it comes from.

    Where what only moves values lies between, it gets a copy that moves the unrounded ones.
    """

    def __init__(self) -> None:
        self._copies: dict[ir.Node, ir.Node] = {}

    def of(self, value: ir.Value | None) -> ir.Value:
        assert value is not None
        node = value.producer()
        if node is None or not node.inputs or node.inputs[0] is None:
            return value
        if node.op_type == "DequantizeLinear":
            quantize = node.inputs[0].producer()
            rounds = quantize is not None and quantize.op_type == "QuantizeLinear"
            return self.of(quantize.inputs[0]) if quantize is not None and rounds else value
        if node.op_type not in MOVES:
            return value
        exact = self.of(node.inputs[0])
        if exact is node.inputs[0]:
            return value
        if node not in self._copies:
            self._copies[node] = _copy(node, exact)
        return self._copies[node].outputs[node.outputs.index(value)]


def _copy(node: ir.Node, value: ir.Value) -> ir.Node:
    """A node beside `node` that reads `value` in place of its first input."""
    copied = ir.node(
        node.op_type,
        [value, *node.inputs[1:]],
        node.attributes.copy(),
        num_outputs=len(node.outputs),
    )
    for fresh, old in zip(copied.outputs, node.outputs, strict=True):
        fresh.type, fresh.shape = old.type, old.shape
    main_graph(node).append(copied)
    return copied
