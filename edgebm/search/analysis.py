"""Which layer is to blame, and what its numbers look like: the `analysis` of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.backends.dialects import Dialect
from edgebm.backends.placement import Placement, place
from edgebm.exec.collect import collect
from edgebm.exec.statistics import (
    ActivationStatistics,
    ActivationWatcher,
    Counts,
    WeightStatistics,
    spread,
    weight_statistics,
)
from edgebm.ir.annotate import quant_of, range_of
from edgebm.ir.edit import const, input_at, inputs, name
from edgebm.ir.model import Model
from edgebm.ir.traits import weight_index
from edgebm.quant.params import Range, range_params, with_bits
from edgebm.search.job import Job, Progress
from edgebm.search.sensitivity import LayerErrors


@dataclass(frozen=True, slots=True)
class Known:
    """What others measured, by node name; all of it may be missing.

    Attributes:
        local_db: SQNR of the node's own output in the whole INT8 model.
        float_us: time of the node in the float artifact.
        int8_us: its time in the integer artifact.
        lifted: nodes that were lifted back to float.
        repair: the `repair` part of the analysis.
    """

    local_db: Mapping[str, float] = field(default_factory=dict)
    float_us: Mapping[str, float] = field(default_factory=dict)
    int8_us: Mapping[str, float] = field(default_factory=dict)
    lifted: AbstractSet[str] = frozenset()
    repair: Mapping[str, Any] | None = None


_NOTHING_KNOWN = Known()


def analysis_dict(
    job: Job,
    decided: Model,
    dialect: Dialect,
    errors: LayerErrors,
    progress: Progress,
    known: Known = _NOTHING_KNOWN,
) -> dict[str, Any]:
    """The `analysis` of `report.json`: one entry for each layer in `errors`, in their order.

    The calibration samples run once through the float graph of `decided`; memory does not grow
    with their number.

    Args:
        job: the samples, and what the user wants in float.
        decided: annotated model; not changed.
        dialect: the placement that `errors` was measured on.
        errors: the layers, most harmful first.
        progress: called as `progress(step, done, total)`.
        known: what was measured elsewhere.

    Returns:
        JSON types only; a figure that is infinite or unknown is None.

    Raises:
        DataError: a value is NaN or infinite on some sample, or there are no samples.
    """
    plan = place(decided, dialect, job.is_ignored, decided=True)
    nodes = {node.name or "?": node for node in decided.nodes()}
    values = {label: _operands(nodes[label], plan) for label in (e.name for e in errors.layers)}
    axes: dict[str, int | None] = {}
    for label, operands in values.items():
        for operand in operands:
            axes[operand] = axes.get(operand) or _channels(nodes[label], operand)
    seen = _watch(job, decided, dialect, plan, axes, progress)
    layers = []
    for each in errors.layers:
        node = nodes[each.name]
        layers.append(
            {
                "name": each.name,
                "op": each.op,
                "alone_db": _finite(each.alone_db),
                "without_db": _finite(each.without_db),
                "local_db": _finite(known.local_db.get(each.name)),
                "weight": _weight(node, dialect),
                "activation": _activation(values[each.name], plan, seen),
                "float_us": known.float_us.get(each.name),
                "int8_us": known.int8_us.get(each.name),
                "lifted": each.name in known.lifted,
            }
        )
    return {
        "samples": errors.samples,
        "grid": str(dialect.grid),
        "runtime": dialect.runtime,
        "full_db": _finite(errors.full_db),
        "layers": layers,
        "repair": None if known.repair is None else dict(known.repair),
    }


def _operands(node: ir.Node, plan: Placement) -> list[str]:
    """The quantized values that `node` reads, looking through carriers; none twice."""
    found = [_quantized(value, plan) for value in inputs(node)]
    return list(dict.fromkeys(label for label in found if label))


def _quantized(value: ir.Value, plan: Placement) -> str:
    while value.name not in plan.points:
        producer = value.producer()
        before = None if producer is None else input_at(producer, 0)
        if producer not in plan.carriers or before is None:
            return ""
        value = before
    return name(value)


def _watch(
    job: Job,
    decided: Model,
    dialect: Dialect,
    plan: Placement,
    axes: Mapping[str, int | None],
    progress: Progress,
) -> dict[str, ActivationStatistics]:
    """Statistics of each value in `axes` over the calibration samples, in one sweep."""
    if not axes:
        return {}
    watchers = {}
    for label, axis in axes.items():
        span = _span(plan, label)
        bits, signed = dialect.grid.activation_bits, dialect.signed_activations
        params = range_params(span, bits=bits, signed=signed)
        watchers[label] = ActivationWatcher(span, params, axis)
    total, done = len(job.calibration), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress("statistics", done, total)

    sinks = {label: watcher.update for label, watcher in watchers.items()}
    collect(decided, job.calibration.feeds(), sinks, advance)
    return {label: watcher.result() for label, watcher in watchers.items()}


def _channels(node: ir.Node, label: str) -> int | None:
    """The axis of the value `label` that `node` takes for channels; None where it cannot tell."""
    first = input_at(node, 0)
    if first is None or first.name != label:
        return None  # a carrier between the two may have moved the axes
    if node.op_type in {"Conv", "ConvTranspose"}:
        return 1
    return -1 if node.op_type in {"Gemm", "MatMul"} and weight_index(node) == 1 else None


def _span(plan: Placement, label: str) -> Range:
    span = range_of(plan.points[label])
    assert span is not None  # the plan leaves out what was not decided
    return span


def _activation(
    operands: Sequence[str], plan: Placement, seen: Mapping[str, ActivationStatistics]
) -> dict[str, Any] | None:
    """The operand that its grid serves worst."""
    if not operands:
        return None
    label = min(operands, key=lambda operand: seen[operand].db)
    span, found = _span(plan, label), seen[label]
    peaks = found.peaks
    return {
        "value": label,
        "low": span.low,
        "high": span.high,
        "seen_low": found.seen.low,
        "seen_high": found.seen.high,
        "common_low": found.common.low,
        "common_high": found.common.high,
        "clipped": found.clipped,
        "db": _finite(found.db),
        "channels": None if peaks is None else len(peaks),
        "spread": None if peaks is None else _finite(spread(peaks)),
        "median_peak": None if peaks is None else float(np.median(peaks)),
        "histogram": _histogram(found.histogram),
    }


def _weight(node: ir.Node, dialect: Dialect) -> dict[str, Any] | None:
    if weight_index(node) != 1:
        return None
    array, decided = const(node.inputs[1]), quant_of(node.inputs[1])
    if array is None or decided is None or not array.size:
        return None
    params = with_bits(decided, min(decided.bits, dialect.grid.weight_bits))
    found: WeightStatistics = weight_statistics(array, params)
    return {
        "low": found.low,
        "high": found.high,
        "channels": found.channels,
        "spread": _finite(found.spread),
        "db": _finite(found.db),
        "histogram": _histogram(found.histogram),
    }


def _histogram(counts: Counts) -> dict[str, Any]:
    return {"low": counts.low, "high": counts.high, "counts": list(counts.counts)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
