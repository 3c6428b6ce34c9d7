"""What quantization does to a model, layer by layer, without building or timing anything."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgebm.backends.placement import Placement
from edgebm.backends.qdq import lower
from edgebm.errors import UsageError
from edgebm.ir.model import Model
from edgebm.search.analysis import Known, analysis_dict
from edgebm.search.decide import Decisions
from edgebm.search.job import Job, Progress
from edgebm.search.sensitivity import layer_errors
from edgebm.search.simulate import compare_layers
from edgebm.search.summary import data_dict, model_dict, versions
from edgebm.target import Target


def examine(job: Job, target: Target, progress: Progress) -> dict[str, Any]:
    """The steps of the recipe, and then the blame of every layer that they quantize.

    Looked at is the placement that every runtime of the target comes close to, with the bits
    that its CPU adds without overflow.

    Returns:
        `model`, `data`, `recipe`, `notes`, `skips`, `warnings` and `analysis` as in a
        `report.json`, and `layers`: what stays in float, and why.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    if any(step.kind == "quantize_weights_only" for step in job.recipe.steps):
        raise UsageError(
            f"the recipe {job.recipe.name} quantizes weights alone; analyzed is static INT8 only",
            hint=f"'edgebm compress -r {job.recipe.name}' reports the SQNR of every layer",
        )
    decisions = Decisions(job, target, progress)
    decided = decisions.passes()
    dialect = decisions.dialect(decided)
    errors = layer_errors(job, decided, dialect, progress)
    lowered, plan = lower(decided, dialect, job.is_ignored)
    nodes = [node.name or "?" for node in plan.nodes]
    known = Known(local_db=compare_layers(job, decided, lowered, nodes, progress))
    return {
        "created_with": versions(),
        "target": target.name,
        "recipe": job.recipe.to_dict(),
        "model": model_dict(job),
        "data": data_dict(job),
        "notes": decisions.notes,
        "skips": [asdict(skip) for skip in decisions.skips],
        "warnings": list(dict.fromkeys(job.warnings)),
        "layers": _left_in_float(decided, plan),
        "analysis": analysis_dict(job, decided, dialect, errors, progress, known),
    }


def _left_in_float(decided: Model, plan: Placement) -> list[dict[str, Any]]:
    """The computing nodes that get no integers, in the order of the graph."""
    return [
        {
            "name": node.name or "?",
            "op": node.op_type,
            "precision": "float",
            "sqnr_db": None,
            "why": why,
        }
        for node in decided.nodes()
        if (why := plan.reasons.get(node.name or "?"))
    ]
