"""GRUs in the form with an INT8 kernel: timed before they are trained, and trained if that pays.

How fast the turned model runs does not depend on its weights. So it is timed with those that it
has, and the minute of training is spent only where the result would be the fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgebm.ir.annotate import cell_params_of, set_cell_params
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of, why_no_integers
from edgebm.ir.traits import RECURRENT
from edgebm.passes.gru_reset_before import GruResetBefore, turnable
from edgebm.quant.recurrent import cell_params
from edgebm.search.build import TURNED
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.job import Job
from edgebm.search.race import Race

_LEFT = "the GRUs were not turned into the form with an int8 kernel"


def untrained(job: Job, decided: Model) -> Model | None:
    """A copy of `decided` whose GRUs have the other form, with the weights of the first.

    None where the recipe does not turn any. What it answers is worth nothing.
    """
    if not any(isinstance(step, GruResetBefore) for step in job.steps):
        return None
    out = decided.clone()
    found = [
        n for n in out.nodes("GRU") if turnable(n) and not job.is_ignored(n.name or "", "GRU")
    ]
    for node in found:
        node.attributes["linear_before_reset"] = ir.AttrInt64("linear_before_reset", 0)
    lay_out_cells(out, job.is_ignored)
    return out if found else None


def lay_out_cells(model: Model, is_ignored: Callable[[str, str], bool]) -> None:
    """Leave any integers on recurrent layers that would get some and have none yet."""
    for node in model.nodes(*RECURRENT):
        cell = cell_of(node)
        if cell is None or why_no_integers(cell) or cell_params_of(node) is not None:
            continue
        if not is_ignored(node.name or "", node.op_type):
            ends = np.ones(cell.inputs, np.float32)
            params = cell_params(cell.op, cell.w[0], cell.r[0], -ends, ends, 1.0)
            set_cell_params(node, params)


def waiting(race: Race) -> list[Candidate]:
    """The candidates that wait to be trained."""
    kinds = (c for c in race.candidates if c.artifact.promise)
    return [c for c in kinds if c.artifact.kind.endswith(TURNED)]


def why_not_train(race: Race) -> str:
    """Why training would not pay, in a sentence with its figures; empty where it would."""
    turned = {c.id for c in waiting(race)}
    times = {key: found.p50_ms for key, found in race.results.items() if not found.failed}
    mine = [ms for key, ms in times.items() if key in turned and ms is not None]
    others = [(ms, key) for key, ms in times.items() if key not in turned and ms is not None]
    if not mine:
        return f"{_LEFT}: it does not run here"
    if not others or min(mine) < min(others)[0]:
        return ""
    best, name = min(others)
    return f"{_LEFT}: it takes {min(mine):.3g} ms, {name} {best:.3g} ms"


def settle(race: Race, trained: Sequence[Artifact]) -> list[Candidate]:
    """Put trained artifacts in the place of those that waited, with their times; drop the rest.

    Returns:
        The candidates that are new in `race`.
    """
    by_kind = {(artifact.runtime, artifact.kind): artifact for artifact in trained}
    left, fresh = [], []
    waited = {candidate.id for candidate in waiting(race)}
    for candidate in race.candidates:
        if candidate.id not in waited:
            left.append(candidate)
            continue
        artifact = by_kind.get((candidate.artifact.runtime, candidate.artifact.kind))
        if artifact is None:
            race.results.pop(candidate.id)
        else:
            fresh.append(Candidate(artifact, candidate.config))
            left.append(fresh[-1])
    race.candidates = left
    return fresh
