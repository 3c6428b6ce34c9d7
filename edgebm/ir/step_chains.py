"""Steps of recurrent cells that follow each other with the same weights: one layer, unrolled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgebm.ir.edit import Array, inputs
from edgebm.ir.expressions import Form, Reader
from edgebm.ir.model import Model
from edgebm.ir.parts import Part
from edgebm.ir.recurrent import GATES
from edgebm.ir.steps import Step, step_at

_RTOL, _ATOL = 1e-5, 1e-6
# Its own tanh and the next step's product with the forget gate.
_READERS_OF_C = 2
_MOVES = frozenset({"Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to take a step: which part is h, and the weights that follow from it.

    G gates, H units: `w` is [G * H, I], `r` [G * H, H], `wb` and `rb` [G * H]; `xs` are the
    parts whose channels are the I inputs.
    """

    h: Part
    xs: tuple[Part, ...]
    w: Array
    r: Array
    wb: Array
    rb: Array
    kind: tuple[bool, str]
    """Whether the reset is behind the product, and the activation."""

    def equals(self, other: Reading) -> bool:
        same = self.kind == other.kind and all(
            a.shape == b.shape and (a is b or bool((a == b).all()))
            for a, b in ((self.w, other.w), (self.r, other.r))
        )
        return same and _close(self.wb, other.wb) and _close(self.rb, other.rb)


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
            chain = Chain([step], reader.known, list(_readings(step)))
            chains.append(chain)
        ends[step.out] = chain
    return [one for chain in chains for one in _usable(model, chain)]


def _continued(ends: dict[ir.Value, Chain], step: Step) -> Chain | None:
    for reading in _readings(step):
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
        elif (xs := _starts(last, reading)) is not None:
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


def _starts(step: Step, reading: Reading) -> tuple[Part, ...] | None:
    """The inputs of a first step from zero states, if it has the weights of `reading`."""
    letters = GATES[step.op]
    xs = _parts(step.gates.values())
    if [x.width for x in xs] != [x.width for x in reading.xs]:
        return None
    if step.activation != reading.kind[1]:
        return None
    rows = reading.w.reshape(len(letters), -1, reading.w.shape[1])
    wb, rb = (b.reshape(len(letters), -1) for b in (reading.wb, reading.rb))
    for k, letter in enumerate(letters):
        form = step.gates.get(letter)
        if form is None:
            continue
        if not np.array_equal(_matrix(form, xs), rows[k]):
            return None
        if step.behind_reset is not None and letter == "h":
            if not (_close(form.bias, wb[k]) and _close(step.behind_reset.bias, rb[k])):
                return None
        elif not _close(form.bias, wb[k] + rb[k]):
            return None
    return xs


def _readings(step: Step) -> Iterator[Reading]:
    """The ways to take a step that has all its gates; the most usual one first."""
    if set(step.gates) != set(GATES[step.op]):
        return
    parts = _parts(step.gates.values())
    if step.h is not None:
        candidates = [step.h]
    elif step.op == "GRU":
        return
    else:
        # x W + h R: the state comes last. One that lies beside c in a tensor is surely it.
        candidates = [part for part in reversed(parts) if part.width == step.width]
        candidates.sort(key=lambda part: step.c is None or part.value is not step.c.value)
    for h in candidates:
        xs = tuple(part for part in parts if part != h)
        if xs:
            yield _reading(step, h, xs)


def _reading(step: Step, h: Part, xs: tuple[Part, ...]) -> Reading:
    letters, units = GATES[step.op], step.width
    forms = [step.gates[letter] for letter in letters]
    inner = list(forms)
    rb = [np.zeros(units, np.float32) for _ in letters]
    if step.behind_reset is not None:
        inner[-1], rb[-1] = step.behind_reset, step.behind_reset.bias
    return Reading(
        h,
        xs,
        np.concatenate([_matrix(form, xs) for form in forms]),
        np.concatenate([_matrix(form, (h,)) for form in inner]),
        np.concatenate([form.bias for form in forms]),
        np.concatenate(rb),
        (step.behind_reset is not None, step.activation),
    )


def _parts(forms: Iterable[Form]) -> tuple[Part, ...]:
    found: dict[Part, None] = {}
    for form in forms:
        found |= dict.fromkeys(form.products)
    return tuple(found)


def _matrix(form: Form, parts: tuple[Part, ...]) -> Array:
    """The rows [H, I] that make a gate from some parts; zeros where it does not read one."""
    units = len(form.bias)
    blocks = [form.products.get(part, np.zeros((part.width, units), np.float32)) for part in parts]
    return np.concatenate(blocks).T


def _close(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=_RTOL, atol=_ATOL))


def _usable(model: Model, chain: Chain) -> list[Chain]:
    """The chain, or its steps each by itself where an input is made from an earlier output."""
    if len(chain.steps) > 1 and not _feeds_itself(chain):
        return [chain]
    if len(chain.steps) > 1:
        parts = [Chain([step], chain.known, list(_readings(step))) for step in chain.steps]
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
