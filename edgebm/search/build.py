"""From an annotated graph to every artifact worth measuring on a CPU target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends import openvino as openvino_backend
from edgebm.backends.dialects import Dialect, Grid, cpu_dialects
from edgebm.backends.placement import Ignored, Placement, place
from edgebm.backends.qdq import lower
from edgebm.errors import BackendFailed
from edgebm.ir.annotate import annotated
from edgebm.ir.model import Model
from edgebm.search.candidates import DYNAMIC, Artifact

# How each runtime's files are made from a graph, float or with Q/DQ.
BUILD: dict[str, Callable[[Model], dict[str, bytes]]] = {
    "onnxruntime": onnxruntime_backend.build,
    "openvino": openvino_backend.build,
}


def values_to_observe(model: Model, runtimes: Sequence[str], ignored: Ignored) -> frozenset[str]:
    """Names of the values that some placement on some of `runtimes` quantizes."""
    plans = (
        place(model, dialect, ignored, decided=False)
        for runtime in runtimes
        for dialect in cpu_dialects(runtime)
    )
    # A point takes its range from where its integers first exist.
    return frozenset(v.name for plan in plans for v in plan.points.values() if v.name)


def build_float(model: Model, runtime: str) -> Artifact:
    """The uncompressed model for `runtime`.

    Raises:
        BackendFailed: the runtime refuses the model.
    """
    return Artifact(runtime, "float", BUILD[runtime](model), lowered=model)


def build_integer(
    model: Model, runtime: str, grids: Sequence[Grid], ignored: Ignored
) -> list[Artifact | BackendFailed]:
    """One artifact per distinct placement of the decisions on `model`; none without any.

    Args:
        model: annotated.
        runtime: "onnxruntime" or "openvino".
        grids: the chosen grid first; the others are those that do not overflow either.
        ignored: nodes the user wants in float.

    Returns:
        Artifacts. A placement that the runtime refuses is returned as the error, so that the
        report can say why it is missing.
    """
    if not annotated(model):
        return []
    built: list[Artifact | BackendFailed] = []
    seen: set[frozenset[str]] = set()
    for dialect in cpu_dialects(runtime, grids[0]):
        lowered, plan = lower(model, dialect, ignored)
        key = frozenset(plan.points) | {node.name or "" for node in plan.nodes}
        if key not in seen and plan.nodes:
            seen.add(key)
            kind = "int8" + dialect.name.partition("-cpu")[2]
            built.append(_artifact(kind, lowered, plan, dialect))
    if runtime == "onnxruntime":
        built += _dynamic(model, grids, ignored)
    return built


def _artifact(
    kind: str, lowered: Model, plan: Placement, dialect: Dialect
) -> Artifact | BackendFailed:
    try:
        files = BUILD[dialect.runtime](lowered)
    except BackendFailed as error:
        return error
    nodes = tuple(node.name or "?" for node in plan.nodes)
    return Artifact(dialect.runtime, kind, files, lowered, nodes, plan.reasons)


def _dynamic(model: Model, grids: Sequence[Grid], ignored: Ignored) -> list[Artifact]:
    """Products that take their range at run time. They use all 8 bits of an activation."""
    grid = next((g for g in grids if g.activation_bits == 8), None)
    if grid is None:
        return []
    dialect = cpu_dialects("onnxruntime", grid)[0]
    lowered, plan = lower(model, dialect, ignored)
    files, count = onnxruntime_backend.build_dynamic(lowered)
    # The head of a CNN alone is not worth a candidate of its own.
    if 2 * count < len(plan.nodes) or not count:
        return []
    nodes = tuple(node.name or "?" for node in plan.nodes)
    return [Artifact("onnxruntime", DYNAMIC, files, lowered, nodes, plan.reasons)]
