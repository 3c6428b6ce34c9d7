"""The one form of a model that passes and backends see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.ir.absorb import absorb_constants
from edgebm.ir.check import MAX_NODES, blaming, check_source, check_wiring, verify
from edgebm.ir.cleanup import clean_up, fix_names
from edgebm.ir.constant_fill import write_constant_fill
from edgebm.ir.flat_products import unflatten_products
from edgebm.ir.fold import fold_constants
from edgebm.ir.functions import inline_functions, write_out_newer_ops
from edgebm.ir.loops import roll_loops
from edgebm.ir.model import Model
from edgebm.ir.opset import (
    INTERNAL_OPSET,
    model_opset,
    settle_conversion,
    to_internal_opset,
)
from edgebm.ir.recurrent_forms import plain_recurrent
from edgebm.ir.sequences import split_sequences
from edgebm.ir.shapes import infer_shapes, own_axis_names
from edgebm.ir.simplify import simplify
from edgebm.ir.transposes import cancel_transposes

__all__ = ["INTERNAL_OPSET", "canonicalize"]

IR_VERSION = 10
_MAX_ROUNDS = 12


def canonicalize(model: Model) -> Model:
    """A copy of `model` in canonical form; `model` keeps what it says, its nodes in order.

    - opset `INTERNAL_OPSET` of the standard operators only; functions inlined
    - constants are initializers and no graph inputs; what depends on no input is folded, an
      `If` with a constant condition included
    - LSTM, GRU and RNN nodes are time-major, without states of zeros and lengths that say nothing
    - lists of pieces are splits; loops that step an LSTM, GRU or RNN through a sequence are nodes
    - transposes are gone where others undo them, and constants behind a convolution are its own
    - a matrix product of a sequence is no product between reshapes
    - identities, inference-mode dropouts and unused nodes are gone
    - nodes and values have unique names; dtypes are known, shapes as far as inference goes

    Names, order and dtypes of inputs and outputs are those of the source.

    Raises:
        UnsupportedModel: nodes that cannot be handled, all of them listed.
        ModelError: the model is not valid ONNX.
    """
    check_wiring(model)
    with blaming(model):
        return _canonical(model.clone())


def _canonical(work: Model) -> Model:
    write_constant_fill(work)
    check_source(work)
    _lift_weights(work.graph.graph)
    face = _names(work.graph.graph)
    own_axis_names(work)
    inline_functions(work, MAX_NODES)
    work.graph.graph.sort()
    fix_names(work)
    work = write_out_newer_ops(work)
    if model_opset(work) != INTERNAL_OPSET:
        infer_shapes(work)
    to_internal_opset(work)
    for _ in range(_MAX_ROUNDS):
        fix_names(work)
        infer_shapes(work)
        if not sum(step(work) for step in _STEPS):
            break
    settle_conversion(work)
    _forget(work.graph)
    if _names(work.graph.graph) != face:
        raise ModelError("the import changed the names of inputs or outputs")
    verify(work)
    return work


_STEPS: tuple[Callable[[Model], int], ...] = (
    partial(fold_constants, opset=INTERNAL_OPSET),
    split_sequences,
    simplify,
    plain_recurrent,
    clean_up,
    cancel_transposes,
    absorb_constants,
    unflatten_products,
    partial(roll_loops, canonical=_canonical),
)


def _names(graph: ir.Graph) -> tuple[list[str | None], list[str | None]]:
    return [value.name for value in graph.inputs], [value.name for value in graph.outputs]


def _lift_weights(graph: ir.Graph) -> None:
    """Old files list every weight among the inputs as well."""
    kept = [value for value in graph.inputs if not value.is_initializer()]
    if not kept:
        raise UnsupportedModel(
            "the model has no input that is not a constant",
            hint="export it with the inputs that it gets on the device",
        )
    if len(kept) != len(graph.inputs):
        graph.inputs.clear()
        graph.inputs.extend(kept)


def _forget(model: ir.Model) -> None:
    """Drop traces and texts of the exporter: paths of the machine it ran on, mostly."""
    model.ir_version = IR_VERSION
    model.producer_name = model.producer_version = model.doc_string = None
    model.metadata_props.clear()
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for domain in [d for d in model.opset_imports if d]:
        model.opset_imports.pop(domain)
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.doc_string = None
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.doc_string = None
        value.metadata_props.clear()
