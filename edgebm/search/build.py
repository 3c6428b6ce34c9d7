"""From an annotated graph to every artifact worth measuring on a CPU target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends import openvino as openvino_backend
from edgebm.backends.dialects import Dialect, cpu_dialects
from edgebm.backends.placement import Ignored, Placement, place
from edgebm.backends.qdq import lower
from edgebm.errors import BackendFailed
from edgebm.ir.annotate import annotated
from edgebm.ir.model import Model
from edgebm.search.candidates import Artifact

_BUILD: dict[str, Callable[[Model], dict[str, bytes]]] = {
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
    return Artifact(runtime, "float", _BUILD[runtime](model), lowered=model)


def build_integer(model: Model, runtime: str, ignored: Ignored) -> list[Artifact | BackendFailed]:
    """One artifact per distinct placement of the decisions on `model`; none without any.

    A placement that the runtime refuses is returned as the error, so that the report can say
    why it is missing.
    """
    if not annotated(model):
        return []
    built: list[Artifact | BackendFailed] = []
    seen: set[frozenset[str]] = set()
    for dialect in cpu_dialects(runtime):
        lowered, plan = lower(model, dialect, ignored)
        key = frozenset(plan.points) | {node.name or "" for node in plan.nodes}
        if key in seen or (built and not plan.nodes):
            continue
        seen.add(key)
        try:
            built.append(_integer_artifact(lowered, plan, dialect))
        except BackendFailed as error:
            built.append(error)
    return built


def _integer_artifact(lowered: Model, plan: Placement, dialect: Dialect) -> Artifact:
    kind = "int8" + dialect.name.partition("-cpu")[2]
    return Artifact(
        dialect.runtime,
        kind,
        _BUILD[dialect.runtime](lowered),
        integer_nodes=tuple(node.name or "?" for node in plan.nodes),
        reasons=plan.reasons,
        lowered=lowered,
    )
