"""Steps of recurrent cells that follow each other with the same weights: one layer, unrolled."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from edgebm.ir.edit import inputs
from edgebm.ir.expressions import Reader
from edgebm.ir.model import Model
from edgebm.ir.parts import Part
from edgebm.ir.step_readings import Reading, readings, starts
from edgebm.ir.steps import Step, step_at

# Its own tanh and the next step's product with the forget gate.
_READERS_OF_C = 2
_MOVES = frozenset({"Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(slots=True)
class Chain:
    """Steps in order; `xs` of each. `h` is where the first starts, None for zeros.

    `known` has values of the graph that are just one part.
    """

    steps: list[Step]
    known: dict[Part, ir.Value]
    readings: list[Reading]
    """Those of the first step that are still possible; of all steps once there are two."""
    xs: list[tuple[Part, ...]] = field(default_factory=list)
    h: Part | None = None

    @property
    def op(self) -> str:
        return self.steps[0].op

    @property
    def c(self) -> Part | None:
        return self.steps[0].c

    @property
    def weights(self) -> Reading:
        return self.readings[0]

    def settle(self) -> None:
        """Take the first step as its first reading says."""
        self.h, self.xs = self.weights.h, [self.weights.xs]


def find_chains(model: Model, op: str) -> list[Chain]:
    """Every chain of steps of one kind, as long as it goes; single steps are chains of one."""
    reader = Reader()
    ends: dict[ir.Value, Chain] = {}
    chains = []
    for node in model.graph.graph:
        step = step_at(reader, node, op)
        if step is None:
            continue
        if op != "RNN":
            reader.end(step.out)
            reader.end(step.c_out)
        chain = _continued(ends, step)
        if chain is None:
            chain = Chain([step], reader.known, list(readings(step)))
            chains.append(chain)
        ends[step.out] = chain
    return [one for chain in chains for one in _usable(model, chain)]


def _continued(ends: dict[ir.Value, Chain], step: Step) -> Chain | None:
    for reading in readings(step):
        chain = ends.get(reading.h.value) if reading.h.is_whole else None
        if chain is not None and _continues(chain, step, reading):
            return chain
    return None


def _continues(chain: Chain, step: Step, reading: Reading) -> bool:
    """Put `step` behind the chain's last one, if its states come from there; else False."""
    last = chain.steps[-1]
    if last.out is not reading.h.value:
        return False
    if last.c_out is not None:
        if step.c is None or step.c.value is not last.c_out or not step.c.is_whole:
            return False
        if _read_elsewhere(last.c_out):
            return False
    if len(chain.steps) == 1:
        same = [found for found in chain.readings if found.equals(reading)]
        if same:
            chain.readings = same
            chain.settle()
        elif (xs := starts(last, reading)) is not None:
            chain.readings, chain.xs, chain.h = [reading], [xs], None
        else:
            return False
    elif not chain.weights.equals(reading):
        return False
    chain.steps.append(step)
    chain.xs.append(reading.xs)
    return True


def _read_elsewhere(c: ir.Value) -> bool:
    return c.is_graph_output() or len(tuple(c.uses())) > _READERS_OF_C


def _usable(model: Model, chain: Chain) -> list[Chain]:
    """The chain, or its steps each by itself where an input is made from an earlier output."""
    if len(chain.steps) > 1 and not _feeds_itself(chain):
        return [chain]
    if len(chain.steps) > 1:
        parts = [Chain([step], chain.known, list(readings(step))) for step in chain.steps]
        return [one for part in parts for one in _usable(model, part)]
    if not chain.readings:
        return []
    chain.settle()
    return [chain] if chain.op != "RNN" or _is_state(model, chain) else []


def _feeds_itself(chain: Chain) -> bool:
    made = {step.out for step in chain.steps} | {step.c_out for step in chain.steps}
    ahead = [part.value for xs in chain.xs for part in xs]
    seen: set[ir.Value] = set()
    while ahead:
        value = ahead.pop()
        if value in made:
            return True
        if value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        ahead += inputs(producer) if producer is not None else []
    return False


def _is_state(model: Model, chain: Chain) -> bool:
    """Whether an RNN's h is an input of the model whose next value is an output.

    tanh(x W + h R) alone may be any layer of two inputs.
    """
    h, out = chain.weights.h, chain.steps[0].out
    graph = model.graph.graph
    moved = [usage.node for usage in out.uses() if usage.node.op_type in _MOVES]
    reached = {out} | {value for node in moved for value in node.outputs}
    return h.value in set(graph.inputs) and any(value in reached for value in graph.outputs)
