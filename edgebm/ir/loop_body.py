"""The body of a Loop over a sequence: which of its values are states, steps and counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgebm.ir.dims import Free, Known, shape_array
from edgebm.ir.edit import const, input_at, inputs, name
from edgebm.ir.loop_count import Count, Counting
from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET

_FIRST = 2  # of the carried values: the number of steps and the condition come before


class NoStep(Exception):
    """Why a Loop is not one step of something repeated over a sequence."""


@dataclass(slots=True)
class Body:
    """One step as a model; its inputs and outputs by name.

    `sequences` has the value of the outer graph [T, B, I] that an input takes its steps from,
    `initial` that a state [B, H] starts from, `next_state` the output that follows a state.
    `final`, `stacked` and `unchanged` say what the outputs of the Loop are, by index: the last of
    a state, all values of an output, a value of the outer graph.
    """

    model: Model
    sequences: dict[str, ir.Value] = field(default_factory=dict)
    initial: dict[str, ir.Value] = field(default_factory=dict)
    next_state: dict[str, str] = field(default_factory=dict)
    final: dict[int, str] = field(default_factory=dict)
    stacked: dict[int, str] = field(default_factory=dict)
    unchanged: dict[int, ir.Value] = field(default_factory=dict)


def read_body(loop: ir.Node, sizes: Known) -> Body:
    """The step that `loop` repeats once for each element of axis 0 of what it reads.

    `sizes` are the outer graph's small integer tensors, as far as they are known.

    Raises:
        NoStep: it is no such loop; the text says why.
    """
    return _Reader(loop, sizes).read()


class _Reader:
    def __init__(self, loop: ir.Node, sizes: Known) -> None:
        self.loop, self.sizes = loop, sizes
        self.graph = loop.attributes["body"].as_graph()
        count = len(loop.inputs) - _FIRST
        self.given = list(self.graph.inputs)[_FIRST:]
        self.after = [_origin(v) for v in list(self.graph.outputs)[1 : 1 + count]]
        self.scans = [_origin(v) for v in list(self.graph.outputs)[1 + count :]]
        self.start = [self._start(index) for index in range(count)]
        self.counting = Counting(self.graph, sizes, counters={self.graph.inputs[0]})
        self.step = ir.Graph([], [], nodes=[], opset_imports={"": INTERNAL_OPSET}, name="step")
        self.body = Body(Model(ir.Model(self.step, ir_version=10), f"the body of '{loop.name}'"))
        self.made: dict[ir.Value, ir.Value] = {}

    def _start(self, index: int) -> ir.Value:
        value = self.loop.inputs[_FIRST + index]
        if value is None:
            raise NoStep("a carried value has no start")
        return value

    def read(self) -> Body:
        states = self._roles()
        trips = self._trips()
        self._check_condition(trips)
        for value, start in states:
            self.body.initial[name(self._input(value, start, self._shape(start)))] = start
        outputs: dict[ir.Value, str] = {}
        for value in [*self.after, *self.scans]:
            if (
                value in self.counting.fixed
                or value in self.counting.counters
                or self._counts(value)
            ):
                continue
            if value not in outputs:
                made = self._copy(value, trips)
                outputs[value] = name(made)
                self.step.outputs.append(made)
        self._describe(states, outputs)
        self.step.sort()
        return self.body

    def _roles(self) -> list[tuple[ir.Value, ir.Value]]:
        """Tell counters and what never changes from states; the states with their starts."""
        states = []
        for value, after, start in zip(self.given, self.after, self.start, strict=True):
            count = const(start)
            if after is value:
                self.counting.fixed[value] = start
            elif count is not None and count.size == 1 and count.dtype.kind == "i" and not count:
                self.counting.counters.add(value)
                if self.counting.count(after) != Count(1, None, 1):
                    raise NoStep(f"'{value.name}' is an integer that does not count the steps")
            else:
                states.append((value, start))
        return states

    def _trips(self) -> Count:
        first = self.loop.inputs[0]
        count = None if first is None else self.counting.count(first)
        if count is None or count.steps:
            raise NoStep("how often it runs is not the length of a sequence")
        return count

    def _check_condition(self, trips: Count) -> None:
        """It must hold until the last step: then the number of steps is that of the trips."""
        first = self.loop.inputs[1]
        if (
            first is not None and not self.counting.holds(first, trips)
        ) or not self.counting.holds(self.graph.outputs[0], trips):
            raise NoStep("it may stop before the end of the sequence")

    def _counts(self, value: ir.Value) -> bool:
        count = self.counting.count(value)
        return count is not None and count.steps == 1

    def _input(self, value: ir.Value, like: ir.Value, shape: ir.Shape | None) -> ir.Value:
        if shape is None or like.dtype is None:
            raise NoStep(f"the shape of '{like.name}' is not known")
        if len(shape) != 2:
            raise NoStep(f"a step of '{like.name}' has {len(shape)} axes, not [batch, channels]")
        made = ir.val(f"in_{len(self.step.inputs)}", like.dtype, ir.Shape(["batch", shape[1]]))
        self.step.inputs.append(made)
        self.made[value] = made
        return made

    def _shape(self, start: ir.Value) -> ir.Shape | None:
        """The shape of a state; of one that is filled with zeros, what it is filled to."""
        node = start.producer()
        places = {"ConstantOfShape": 0, "Expand": 1}
        place = None if node is None else places.get(node.op_type)
        target = None if node is None or place is None else node.inputs[place]
        sizes = None if target is None else self.sizes.get(target)
        if sizes is None or sizes.ndim != 1:
            return start.shape
        return ir.Shape([None if isinstance(dim, Free) else int(dim) for dim in sizes])

    def _copy(self, value: ir.Value, trips: Count) -> ir.Value:
        """The value in the step's own graph, with all that computes it."""
        ready = [value]
        while ready:
            current = ready[-1]
            if current in self.made:
                ready.pop()
                continue
            missing = [v for v in self._needs(current, trips) if v not in self.made]
            ready += missing
            if not missing and current not in self.made:  # a step of a sequence was made there
                self._make(current)
        return self.made[value]

    def _needs(self, value: ir.Value, trips: Count) -> Iterator[ir.Value]:
        """What must be there before `value`; steps of sequences become inputs."""
        node = value.producer()
        outer = self.counting.fixed.get(value, value)
        if const(outer) is not None or node is None or node.graph is not self.graph:
            return
        if node.op_type == "Gather" and (index := input_at(node, 1)) is not None:
            sequence = node.inputs[0]
            if self.counting.count(index) == Count(1, None, 0) and sequence is not None:
                self._step_of(value, sequence, node, trips)
                return
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            raise NoStep(f"its body branches ({node.op_type})")  # fmt: skip
        yield from inputs(node)

    def _step_of(self, value: ir.Value, given: ir.Value, node: ir.Node, trips: Count) -> None:
        sequence = self.counting.fixed.get(given, given)
        shape = shape_array(sequence)
        if node.attributes.get_int("axis", 0) or shape is None or sequence.shape is None:
            raise NoStep(f"'{sequence.name}' is not gathered along its first axis")
        producer = sequence.producer()
        if producer is not None and producer.graph is self.graph:
            raise NoStep(f"the sequence '{sequence.name}' is made inside of it")
        length = shape[0]
        wanted = trips.size if trips.size is not None else trips.number
        if length != wanted or (trips.size is not None and trips.number):
            raise NoStep(f"it does not run once for each step of '{sequence.name}'")
        made = self._input(value, sequence, ir.Shape(list(sequence.shape)[1:]))
        self.body.sequences[name(made)] = sequence

    def _make(self, value: ir.Value) -> None:
        outer = self.counting.fixed.get(value, value)
        array, node = const(outer), value.producer()
        if array is not None:
            fresh = ir.val(f"c_{len(self.made)}", const_value=ir.tensor(np.array(array)))
            fresh.shape, fresh.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
            self.step.register_initializer(fresh)
            self.made[value] = fresh
            return
        if node is None or node.graph is not self.graph:
            raise NoStep(f"its steps read '{outer.name}', which is no constant")
        args = [None if v is None else self.made[v] for v in node.inputs]
        count = len(node.outputs)
        copy = ir.Node("", node.op_type, args, node.attributes.values(), num_outputs=count)
        self.step.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type = f"v_{len(self.made)}", old.type
            self.made[old] = new

    def _describe(
        self, states: list[tuple[ir.Value, ir.Value]], outputs: dict[ir.Value, str]
    ) -> None:
        of_state = {value: name(self.made[value]) for value, _ in states}
        for index, (value, after) in enumerate(zip(self.given, self.after, strict=True)):
            if value in self.counting.fixed:
                self.body.unchanged[index] = self.counting.fixed[value]
            elif value in of_state:
                self.body.next_state[of_state[value]] = outputs[after]
                self.body.final[index] = of_state[value]
            elif _is_read(self.loop.outputs[index]):
                raise NoStep("the number of its steps is read behind it")
        for index, value in enumerate(self.scans, len(self.given)):
            if value in outputs:
                self.body.stacked[index] = outputs[value]
            elif _is_read(self.loop.outputs[index]):
                raise NoStep(f"output {index} is no state")


def _is_read(value: ir.Value) -> bool:
    return bool(tuple(value.uses())) or value.is_graph_output()


def _origin(value: ir.Value) -> ir.Value:
    producer = value.producer()
    while producer is not None and producer.op_type == "Identity":
        before = producer.inputs[0]
        if before is None:
            break
        value, producer = before, before.producer()
    return value
