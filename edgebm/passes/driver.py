"""Run passes in order, each on its own copy, and check what each must leave true."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgebm.errors import EdgebmError, PassError
from edgebm.ir.annotate import annotated
from edgebm.ir.check import verify
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Pass


def run_passes(model: Model, steps: Sequence[Pass], ctx: Context) -> tuple[Model, list[float]]:
    """Apply `steps` in order; `model` is left as it was.

    Returns:
        The new model, and the seconds each step took.

    Raises:
        PassError: a step failed, made the graph illegal, changed its inputs or outputs, or
            undid an earlier step's decision.
    """
    signature = _signature(model)
    seconds = []
    for step in steps:
        decided, start = annotated(model), time.perf_counter()
        try:
            model = step(model.clone(), ctx)
        except EdgebmError:
            raise
        except Exception as cause:
            raise PassError(
                f"unexpected {type(cause).__name__}: {cause}", step=step.kind
            ) from cause
        try:
            verify(model)
        except Exception as cause:
            raise PassError(f"left an illegal graph: {cause}", step=step.kind) from cause
        if _signature(model) != signature:
            raise PassError("the model's inputs or outputs changed", step=step.kind)
        if lost := decided - annotated(model):
            hint = "put steps that edit weights before the ones that decide how to quantize them"
            raise PassError(f"undid the quantization of {sorted(lost)}", step=step.kind, hint=hint)
        seconds.append(time.perf_counter() - start)
    return model, seconds


def _signature(model: Model) -> tuple[tuple[str | None, str, str], ...]:
    graph = model.graph.graph
    return tuple((v.name, str(v.dtype), str(v.shape)) for v in (*graph.inputs, *graph.outputs))
