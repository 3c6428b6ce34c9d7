"""A model of whole sequences as one of single steps, whose states are inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.errors import UnsupportedModel
from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import Array, add_const, const, input_at, name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import X, Y, cell_of
from edgebm.ir.states import StatePair, find_states
from edgebm.ir.stream_states import Made, carry_states
from edgebm.ir.time_axis import Traced, trace_time
from edgebm.ir.time_place import Place, Where
from edgebm.ir.traits import RECURRENT

_HINT = (
    "a stream gives one step at a time: leave out --streaming, or export a model whose steps "
    "depend on each other through recurrent states alone"
)


@dataclass(frozen=True, slots=True)
class Streaming:
    """A model of single steps made from one of sequences.

    `times` has the time axis of each input that is no state, None where it has none, `ends` where
    time was in each output of the sequence model, and `initial` what states hold before the first
    step where that is not zero. `pairs` are all states.
    """

    model: Model
    pairs: tuple[StatePair, ...]
    times: Mapping[str, int | None]
    ends: Mapping[str, Where]
    initial: Mapping[str, Array]


def to_streaming(model: Model) -> Streaming:
    """Turn a canonical model into its streaming form; `model` stays as it is.

    Initial states of forward LSTM, GRU and RNN nodes that are constant or absent become inputs
    (`<node>.h0`, `<node>.c0`), their last states outputs (`<node>.h0.next`); states that are
    inputs already stay. The time axis of every input has size 1 then.

    Raises:
        UnsupportedModel: every node that cannot be computed step by step, with the reason.
    """
    if not any(model.nodes(*RECURRENT)):
        raise UnsupportedModel(
            "--streaming: the model has no LSTM, GRU or RNN node, so no state that goes from step "
            "to step",
            hint="a model of single steps needs no --streaming; name its states with --state",
        )
    kept = {pair.input: pair for pair in find_states(model)}
    traced = trace_time(model, frozenset(kept))
    faults = [fault for node in model.nodes(*RECURRENT) for fault in _cell_faults(node)]
    if traced is None or not traced.over_time:
        if not faults:
            faults = _untraced(model)
        if faults:
            raise _refused(faults)
    if traced is not None:
        faults += [*traced.offenders, *_end_faults(traced)]
        faults += [
            f"{node.name} ({node.op_type}): its input could not be followed to an input over time"
            for node in model.nodes(*RECURRENT)
            if node.name not in traced.over_time and not _runs_elsewhere(traced, node)
        ]
    work = model.clone()
    made = Made({}, {}, faults)
    for node in list(work.nodes(*RECURRENT)):
        if traced is None or node.name in traced.over_time:
            carry_states(work, node, traced, kept, made)
    if faults:
        raise _refused(faults)
    if traced is not None:
        _shrink(work, traced)
    pairs = (*kept.values(), *made.pairs.values())
    times = dict(traced.inputs) if traced is not None else {}
    ends = traced.outputs if traced is not None else {}
    return Streaming(canonicalize(work), pairs, times, ends, made.initial)


def _refused(faults: list[str]) -> UnsupportedModel:
    listed = "".join(f"\n- {fault}" for fault in dict.fromkeys(faults))
    return UnsupportedModel(
        f"--streaming: the model cannot be computed step by step:{listed}",
        hint=_HINT,
        details={"faults": list(dict.fromkeys(faults))},
    )


def _untraced(model: Model) -> list[str]:
    """Empty where nothing has to be followed: every node runs one step already."""
    single = [node for node in model.nodes(*RECURRENT) if _steps(node) == 1]
    return [
        f"{node.name} ({node.op_type}): its {_steps(node) or 'unknown number of'} steps are not "
        "those of an axis of an input; something before it joins or splits steps"
        for node in model.nodes(*RECURRENT)
        if node not in single
    ]


def _steps(node: ir.Node) -> int | None:
    value = node.inputs[X]
    size = value.shape[0] if value is not None and value.shape is not None else None
    return size if isinstance(size, int) else None


def _runs_elsewhere(traced: Traced, node: ir.Node) -> bool:
    """Whether the node runs over another axis than time, or was said to be wrong already."""
    twin = next(each for each in traced.sized.nodes() if each.name == node.name)
    known = any(fault.startswith(f"{node.name} (") for fault in traced.offenders)
    return known or isinstance(traced.walk.at(twin.outputs[Y]), Place)


def _cell_faults(node: ir.Node) -> Iterator[str]:
    direction = node.attributes.get_string("direction", "forward")
    label = f"{node.name} ({node.op_type})"
    if direction != "forward":
        yield (
            f"{label}: runs {direction}, and a stream does not know the steps that come: train "
            "the model with forward cells"
        )
    if node.attributes.get_int("layout", 0):
        yield f"{label}: layout=1 is not followed; export it with layout=0"
    if cell_of(node) is None:
        yield f"{label}: its weights are computed"


def _end_faults(traced: Traced) -> Iterator[str]:
    for label, end in traced.outputs.items():
        if isinstance(end, Place) and (end.outer, end.inner) != (1, 1):
            batch = set(traced.sizes.values())
            if (end.outer * end.inner) not in batch:
                yield f"output '{label}' has no axis of its own for time"


def _shrink(work: Model, traced: Traced) -> None:
    """One step in place of T: on the time axes of inputs and outputs, and in constants."""
    graph = work.graph.graph
    for value in graph.inputs:
        axis = traced.inputs.get(name(value))
        if axis is not None and value.shape is not None:
            value.shape = ir.Shape([1 if k == axis else dim for k, dim in enumerate(value.shape)])
    for value in graph.outputs:
        end = traced.outputs.get(name(value))
        if isinstance(end, Place) and value.shape is not None:
            dims = [1 if k == end.axis else dim for k, dim in enumerate(value.shape)]
            value.shape = ir.Shape(dims)
    _edit_constants(work, traced)
    for value in (v for node in work.nodes() for v in node.outputs):
        if not value.is_graph_output():
            value.shape = None  # inferred anew


def _edit_constants(work: Model, traced: Traced) -> None:
    """Shapes and places that hold T; those that are computed from a shape follow by themselves."""
    graph = work.graph.graph
    nodes = {node.name: node for node in work.nodes()}
    for (label, index), changes in traced.walk.edits.items():
        node = nodes.get(label)
        array = None if node is None else const(input_at(node, index))
        if node is None or array is None:
            continue
        for change in changes:
            array = change(array)
        node.replace_input_with(index, add_const(graph, f"{label}.step", np.asarray(array)))
