"""State pairs: which output of one call is which input of the next.

Two ways to find them, in this order. The structure: an input that recurrent nodes start from and
an output that holds where the same nodes ended, with nothing but moves between; that both hold
the parts in the same order is computed, not believed. Then names such as `h_in` and `h_out` or
`past_key_values.0.key` and `present.0.key`, where dtype and shape agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from edgebm.ir.edit import const, input_at, name, remove_dead, replace_uses
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.ir.recurrent import INITIAL_C, INITIAL_H, Y_C, Y_H, Y
from edgebm.ir.state_names import match_names
from edgebm.ir.traits import RECURRENT
from edgebm.spec import Dim, TensorSpec

# They move values about and change none.
_MOVES = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Concat",
     "Gather", "Identity"}
)  # fmt: skip
_SLOTS = {"h": (INITIAL_H, Y_H), "c": (INITIAL_C, Y_C)}
Slot = tuple[str, str]  # name of a recurrent node, "h" or "c"


@dataclass(frozen=True, slots=True)
class StatePair:
    """`output` of one call is `input` of the next. `how` says for people how it was found."""

    input: str
    output: str
    how: str = ""

    def __str__(self) -> str:
        return f"{self.input}:{self.output}" + (f" ({self.how})" if self.how else "")


def find_states(model: Model) -> tuple[StatePair, ...]:
    """The pairs of a canonical model, in the order of its inputs; empty where there are none.

    Names alone are not believed where they would leave no input to give: a model of one input
    `image_in` and one output `image_out` has no state.
    """
    inputs, outputs = face(model)
    found = {pair.input: pair for pair in _by_structure(model)}
    taken = {pair.output for pair in found.values()}
    rest_in = [spec for spec in inputs if spec.name not in found]
    rest_out = [spec for spec in outputs if spec.name not in taken]
    named = {
        one.name: StatePair(one.name, other.name, "by their names")
        for one, other in match_names(rest_in, rest_out)
    }
    if len(found) + len(named) < len(inputs):
        found |= named
    ins, outs = ({spec.name: spec for spec in side} for side in (inputs, outputs))
    return tuple(
        pair
        for pair in (found[spec.name] for spec in inputs if spec.name in found)
        if not pair_faults(ins[pair.input], outs[pair.output], inputs, found)
    )


def growing_axes(inputs: Sequence[TensorSpec], states: Collection[str]) -> frozenset[str]:
    """Free axes of states that no other input has: those of a cache that grows with each step."""
    mine = {dim for spec in inputs if spec.name in states for dim in spec.shape}
    others = {dim for spec in inputs if spec.name not in states for dim in spec.shape}
    return frozenset(dim for dim in mine - others if isinstance(dim, str))


def pair_faults(
    one: TensorSpec, other: TensorSpec, inputs: Sequence[TensorSpec], states: Collection[str]
) -> list[str]:
    """Why output `other` cannot be fed to input `one`; what only a run can tell is no fault.

    An axis that only `states` have may change its size from call to call. One that other inputs
    have too, such as the batch, must be the same on both sides; a name that no input has is a
    size that is known at run time only.
    """
    faults = []
    if one.dtype != other.dtype:
        faults.append(f"'{other.name}' is {other.dtype} and '{one.name}' {one.dtype}")
    axes = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    shared = axes - growing_axes(inputs, states)
    fits = len(one.shape) == len(other.shape) and all(
        _may_agree(mine, theirs, axes, shared)
        for mine, theirs in zip(one.shape, other.shape, strict=True)
    )
    if not fits:
        shapes = [f"[{', '.join(map(str, spec.shape))}]" for spec in (other, one)]
        faults.append(f"'{other.name}' has shape {shapes[0]} and '{one.name}' {shapes[1]}")
    return faults


def _may_agree(mine: Dim, theirs: Dim, axes: set[str], shared: set[str]) -> bool:
    if mine == theirs:
        return True
    if isinstance(theirs, int):
        return isinstance(mine, str) and mine not in shared
    return theirs not in axes or (isinstance(mine, str) and mine not in shared)


def _by_structure(model: Model) -> Iterator[StatePair]:
    graph = model.graph.graph
    starts: dict[str, set[Slot]] = {}
    for node in model.nodes(*RECURRENT):
        for slot, (index, _) in _SLOTS.items():
            roots = moved_from(input_at(node, index))
            if len(roots) == 1 and next(iter(roots)).is_graph_input():
                starts.setdefault(name(next(iter(roots))), set()).add((node.name or "", slot))
    taken: set[str] = set()
    for value in graph.outputs:
        ends = _ends(value)
        for label, slots in starts.items():
            free = ends and slots == ends and label not in taken
            if free and _is_fed_back(model, label, name(value), slots):
                taken.add(label)
                nodes = ", ".join(dict.fromkeys(node for node, _ in sorted(slots)))
                yield StatePair(label, name(value), f"state of {nodes}")


def moved_from(value: ir.Value | None) -> set[ir.Value]:
    """The values that `value` holds parts of, moved about by nodes that change no number."""
    if value is None:
        return set()
    node = value.producer()
    if node is None or node.op_type not in _MOVES:
        return {value}
    if node.op_type == "Gather" and const(node.inputs[1]) is None:
        return {value}
    sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return {root for source in sources for root in moved_from(source)}


def _ends(value: ir.Value) -> set[Slot]:
    """The slots that an output is made of; empty if of anything else too."""
    found: set[Slot] = set()
    for root in moved_from(value):
        node, slot = root.producer(), ""
        if node is not None and node.op_type in RECURRENT:
            slot = {Y: "h" if _one_step(node) else "", Y_H: "h", Y_C: "c"}[root.index() or 0]
        if node is None or not slot:
            return set()
        found.add((node.name or "", slot))
    return found


def _one_step(node: ir.Node) -> bool:
    """Whether all that the node gives is its last state: one step in one direction."""
    shape = node.outputs[Y].shape
    return shape is not None and len(shape) == 4 and shape[0] == 1 and shape[1] == 1


def _is_fed_back(model: Model, label: str, output: str, slots: set[Slot]) -> bool:
    """Whether the output is the input again where the nodes hand their state on unchanged.

    Computed on numbers that are all different, so that neither order nor place can be wrong.
    """
    part = model.clone()
    graph = part.graph.graph
    place = [name(value) for value in graph.outputs].index(output)
    nodes = {node.name: node for node in graph}
    for node_name, slot in slots:
        _hand_on(graph, nodes[node_name], *_SLOTS[slot])
    end = graph.outputs[place]
    if end.is_graph_input():
        return name(end) == label
    graph.outputs.clear()
    graph.outputs.append(end)
    remove_dead(graph)
    for value in [v for v in graph.inputs if not tuple(v.uses())]:
        graph.inputs.remove(value)
    feeds = {name(value): _numbers(value) for value in graph.inputs}
    if label not in feeds or part.graph.graph.outputs[0].producer() is None:
        return False
    try:
        (got,) = ReferenceEvaluator(ir.serde.serialize_model(part.graph)).run(None, feeds)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        return False  # not computed, so not proved; names may still say it
    return np.array_equal(got, feeds[label])


def _hand_on(graph: ir.Graph, node: ir.Node, index: int, out: int) -> None:
    """Let the readers of the node's last state read its first one."""
    start = node.inputs[index]
    assert start is not None
    if out < len(node.outputs):
        replace_uses(node.outputs[out], start)
    if out == Y_H and _one_step(node):
        axes = ir.node("Constant", [], {"value_ints": [0]})
        wider = ir.node("Unsqueeze", [start, axes.outputs[0]])
        axes.outputs[0].name = f"{node.name}.handed_on_axes"
        wider.outputs[0].name = f"{node.name}.handed_on"
        graph.insert_before(node, [axes, wider])
        replace_uses(node.outputs[Y], wider.outputs[0])


def _numbers(value: ir.Value) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    shape = [dim if isinstance(dim, int) else 1 for dim in value.shape or ()]
    assert value.dtype is not None
    return np.arange(int(np.prod(shape))).reshape(shape).astype(value.dtype.numpy())
