"""Decide which values of a float graph become integers on one engine. Edits nothing.

The same plan is asked twice: before calibration, to know which values to observe, and when
lowering, where a value or weight without a decision keeps its op in float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from edgebm.backends.dialects import Dialect
from edgebm.ir.annotate import cell_params_of, quant_of, range_of
from edgebm.ir.edit import const, name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of, why_no_integers
from edgebm.ir.traits import (
    ACTIVATIONS,
    MATMULS,
    RECURRENT,
    activation_inputs,
    is_float,
    is_plain_gemm,
    weight_index,
)

Ignored = Callable[[str, str], bool]
NOT_QUANTIZED = "its weight was not quantized"
_IGNORED = "it is on the ignored list"


@dataclass(slots=True)
class Placement:
    """Where Q/DQ pairs go.

    `points` maps the name of each value to quantize to the value whose range it uses (itself,
    or the one a carrier took it from). `whole` are points that every consumer must read
    through DQ; of the others only integer consumers do, and each residual Add in `skips` with
    the input that is named there. `nodes` are the nodes that run on integers,
    `carriers` those that hand integers to them, and `cells` recurrent nodes that do
    inside, without Q/DQ around them. `reasons` says of every other computing node, by name, why
    it stays in float.
    """

    points: dict[str, ir.Value] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    nodes: list[ir.Node] = field(default_factory=list)
    carriers: set[ir.Node] = field(default_factory=set)
    skips: dict[ir.Node, int] = field(default_factory=dict)
    cells: list[ir.Node] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def integer_nodes(self) -> tuple[str, ...]:
        """Names of the nodes that run on integers."""
        return tuple(node.name or "?" for node in (*self.nodes, *self.cells))


def place(model: Model, dialect: Dialect, ignored: Ignored, *, decided: bool) -> Placement:
    """Plan the Q/DQ pairs of `model` for `dialect`.

    Args:
        model: canonical float graph; with `decided`, annotated.
        dialect: the engine's rules.
        ignored: `(node name, op type) -> bool`, true for nodes the user wants in float.
        decided: leave out what carries no decision (for lowering); otherwise assume that
            every weight and value will get one (for calibration).
    """
    return _Planner(dialect, ignored, decided=decided).plan(model)


class _Planner:
    def __init__(self, dialect: Dialect, ignored: Ignored, *, decided: bool) -> None:
        self.dialect, self.ignored, self.decided = dialect, ignored, decided
        self.out = Placement()
        self.integer: set[ir.Node] = set()

    def plan(self, model: Model) -> Placement:
        for node in model.nodes(*self.dialect.computes):
            reason = self._why_float(node)
            if reason:
                self.out.reasons[node.name or "?"] = reason
            else:
                self.integer.add(node)
        for node in model.nodes():
            if node.op_type in MATMULS - self.dialect.computes:
                self.out.reasons[node.name or "?"] = self.dialect.why_not(node.op_type)
        self._place_cells(model)
        joins = self._joins(model)
        for node in model.nodes():
            if node in self.integer:
                self._mark_node(node)
            elif node in joins:
                for value in node.inputs:
                    if is_float(value):
                        self._mark(value)
                self._mark_whole(self._tail(node))
        self.out.nodes = [n for n in model.nodes() if n in self.integer or n in joins]
        self._place_skips(model)
        return self.out

    def _place_skips(self, model: Model) -> None:
        for node in model.nodes("Add"):
            found = self.dialect.skip_of(node)
            if found is None or found[1] not in self.integer or not _is_f32(node.outputs[0]):
                continue
            skip = node.inputs[found[0]]
            if self.decided and range_of(skip) is None:
                continue
            self._mark(skip)
            self.out.skips[node] = found[0]

    def _why_float(self, node: ir.Node) -> str:
        """Why a computing node stays in float; an empty string if it becomes integer."""
        if self.ignored(node.name or "", node.op_type):
            return _IGNORED
        operands = activation_inputs(node)
        reason = self._unfit(node, operands) or self.dialect.unfit(node)
        return reason or (self._undecided(node, operands) if self.decided else "")

    def _place_cells(self, model: Model) -> None:
        for node in model.nodes(*RECURRENT):
            if reason := self._why_float_cell(node):
                self.out.reasons[node.name or "?"] = reason
            else:
                self.out.cells.append(node)

    def _why_float_cell(self, node: ir.Node) -> str:
        if self.ignored(node.name or "", node.op_type):
            return _IGNORED
        if node.op_type not in self.dialect.cells:
            return self.dialect.why_not(node.op_type)
        if reason := why_no_integers(cell_of(node)):
            return reason
        undecided = self.decided and cell_params_of(node) is None
        return "its integers were not laid out" if undecided else ""

    def _unfit(self, node: ir.Node, operands: list[int]) -> str:
        """What about the node itself no integer kernel of the engine takes."""
        if len(operands) == 2 and not self.dialect.attention:
            return "a product of two activations is kept in float here"
        if len(operands) < 2 and weight_index(node) != 1:
            return "its right operand is not a constant float weight"
        if not operands:
            return "its input is constant"
        if reason := self._why_no_kernel(node):
            return reason
        if node.op_type in self.dialect.needs_output:
            tail = self._tail(node)
            if tail.is_graph_output() or node.outputs[0].is_graph_output():
                return f"{self.dialect.runtime} needs its output quantized; it is a model output"
        return ""

    def _why_no_kernel(self, node: ir.Node) -> str:
        if not _is_f32(node.outputs[0]):
            kind = str(node.outputs[0].dtype).lower()
            return f"it computes in {kind}; integer kernels work beside float32 only"
        if node.op_type == "Gemm" and not is_plain_gemm(node):
            return "a Gemm with alpha, beta or transA set has no int8 kernel"
        weight = const(node.inputs[1])
        stack = node.op_type == "MatMul" and weight is not None and weight.ndim > 2
        if stack and not self.dialect.stacked_weights:
            return f"{self.dialect.runtime} has no int8 kernel for a stack of constant matrices"
        if self._is_bound(node) and node.attributes.get_int("group", 1) > 1:
            return f"{self.dialect.runtime} has no int8 kernel for a ConvTranspose with groups"
        return ""

    def _is_bound(self, node: ir.Node) -> bool:
        return node.op_type == "ConvTranspose" and not self.dialect.free_transposed

    def _undecided(self, node: ir.Node, operands: list[int]) -> str:
        weight = quant_of(node.inputs[1])
        if len(operands) == 1 and (weight is None or weight.block_size is not None):
            return "its weight was quantized in blocks" if weight else NOT_QUANTIZED
        needed = [self._source(node.inputs[i]) for i in operands]
        if node.op_type in self.dialect.needs_output:
            needed.append(self._tail(node))
        missing = [name(v) for v in needed if range_of(v) is None]
        if missing:
            return f"no range was calibrated for {', '.join(missing)}"
        span = range_of(needed[0])
        if self._is_bound(node) and span is not None and span.low < 0:
            return (
                f"{self.dialect.runtime} has an int8 kernel for a ConvTranspose only where its "
                "input is never negative"
            )
        return ""

    def _joins(self, model: Model) -> set[ir.Node]:
        """Largest set of joins that have only integer neighbours on both sides."""
        joins = {n for n in model.nodes() if self._may_join(n)}
        while True:
            wrong = {n for n in joins if not self._between(n, joins)}
            if not wrong:
                return joins
            joins -= wrong

    def _may_join(self, node: ir.Node) -> bool:
        if node.op_type not in self.dialect.joins or not _is_f32(node.outputs[0]):
            return False
        operands = [v for v in node.inputs if is_float(v)]
        if any(const(v) is not None for v in operands) or len(set(operands)) < len(operands):
            return False
        if self.ignored(node.name or "", node.op_type):
            return False
        grouped = any(_is_grouped(self._layer_before(v)) for v in operands)
        if node.op_type == "Add" and grouped and not self.dialect.grouped_adds:
            return False
        needed = [*(self._source(v) for v in operands), self._tail(node)]
        return not self.decided or all(range_of(v) is not None for v in needed)

    def _between(self, node: ir.Node, joins: set[ir.Node]) -> bool:
        sources = [self._source(v).producer() for v in node.inputs if is_float(v)]
        if not all(self._is_integer(p, joins) for p in sources):
            return False
        tail = self._tail(node)
        users = list(self._users(tail))
        return bool(users) and all(
            u is not None and (u in self.integer or u in joins) for u in users
        )

    def _layer_before(self, value: ir.Value | None) -> ir.Node | None:
        """What computes `value`, looking through carriers and a fused activation."""
        return _unfused(self._source(value).producer())

    def _is_integer(self, producer: ir.Node | None, joins: set[ir.Node]) -> bool:
        producer = _unfused(producer)
        return producer is not None and (producer in self.integer or producer in joins)

    def _users(self, value: ir.Value) -> Iterator[ir.Node | None]:
        """Nodes that read `value`, looking through carriers; None for a model output."""
        if value.is_graph_output():
            yield None
        for node, index in value.uses():
            if node.op_type in self.dialect.carries and index == 0:
                for output in node.outputs:
                    yield from self._users(output)
            else:
                yield node

    def _mark_node(self, node: ir.Node) -> None:
        for index in activation_inputs(node):
            self._mark(node.inputs[index])
        if node.op_type in self.dialect.needs_output:
            self._mark_whole(self._tail(node))

    def _mark(self, value: ir.Value | None) -> None:
        """Quantize `value` where its integers can first exist: before the carriers."""
        assert value is not None
        source = self._source(value)
        self.out.points[name(source)] = source
        while value is not source:
            producer = value.producer()
            assert producer is not None
            self.out.carriers.add(producer)
            if self.dialect.requantize_carried:
                self.out.points[name(value)] = source
            assert producer.inputs[0] is not None
            value = producer.inputs[0]

    def _mark_whole(self, tail: ir.Value) -> None:
        self.out.points[name(tail)] = tail
        self.out.whole.add(name(tail))

    def _source(self, value: ir.Value | None) -> ir.Value:
        assert value is not None
        producer = value.producer()
        while producer is not None and producer.op_type in self.dialect.carries:
            before = producer.inputs[0]
            if before is None or not is_float(before) or const(before) is not None:
                break
            value, producer = before, before.producer()
        return value

    def _tail(self, node: ir.Node) -> ir.Value:
        """The value after a fused ReLU or Clip; the output itself where none follows alone."""
        out = node.outputs[0]
        uses = tuple(out.uses())
        if len(uses) == 1 and not out.is_graph_output() and uses[0].node.op_type in ACTIVATIONS:
            return uses[0].node.outputs[0]
        return out


def _unfused(producer: ir.Node | None) -> ir.Node | None:
    """The node in front of a ReLU or Clip; any other node itself."""
    if producer is None or producer.op_type not in ACTIVATIONS:
        return producer
    before = producer.inputs[0]
    return None if before is None else before.producer()


def _is_grouped(node: ir.Node | None) -> bool:
    """Whether this is a Conv in groups of more than one channel."""
    if node is None or node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1:
        return False
    weight = const(node.inputs[1])
    return weight is not None and weight.shape[1] > 1


def _is_f32(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT
