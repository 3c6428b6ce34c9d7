"""What the search of one target ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends.runtimes import is_gpu
from edgebm.ir.traits import MATMULS, RECURRENT
from edgebm.passes.base import Skip
from edgebm.runtime.journal import Journal
from edgebm.search.candidates import Artifact, Candidate, Face
from edgebm.search.choose import Choice, Outcome
from edgebm.search.gate import GateResult
from edgebm.search.journal import GO_ON
from edgebm.search.judge import Judge
from edgebm.search.runner import Runner
from edgebm.search.simulate import provable
from edgebm.search.students import Students
from edgebm.target import Target


@dataclass(slots=True)
class Found:
    """What the search of one target ended with. `notes` are decisions worth a sentence.

    `layers` counts executed layers by precision, and `cells` has what each recurrent layer ran in,
    for the candidates that were looked at.

    `analysis` says which layer is to blame (`search/analysis.py`), where the recipe asks for that
    or something was repaired.

    `pruning` says what came of each amount that was cut, where the recipe cuts any.

    `rivals` are the choices of other searches for the same target, of models cut otherwise.

    `measured_on` has the facts of the board whose figures decided, None where this machine's did.

    `gates` are the user's gates with the figures of the chosen candidate (`search/gate_check.py`).

    `undone` are the stages that were cut off or left out, and `interrupted` says that the user
    did that; else it was the limit on time.
    """

    target: Target
    choice: Choice
    judge: Judge
    skips: list[Skip]
    notes: list[str]
    seconds: dict[str, float]
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    cells: dict[str, dict[str, str]] = field(default_factory=dict)
    layer_sqnr: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    analysis: Mapping[str, Any] | None = None
    pruning: Mapping[str, Any] | None = None
    undone: tuple[str, ...] = ()
    interrupted: bool = False
    rivals: tuple[Choice, ...] = ()
    measured_on: Mapping[str, Any] | None = None
    gates: tuple[GateResult, ...] = ()

    @property
    def outcomes(self) -> list[Outcome]:
        """Everything that was tried, the rivals' candidates too."""
        return [o for each in (self.choice, *self.rivals) for o in each.outcomes]

    @property
    def provable(self) -> Candidate:
        """What can run here in place of the chosen one and give its answers."""
        return provable(self.choice.chosen.candidate, self.target)


def inspect(found: Found, face: Face) -> None:
    """Read back what runs, before and after: layers by precision."""
    both = {o.candidate.id: o.candidate for o in (found.choice.baseline, found.choice.chosen)}
    for key, candidate in both.items():
        found.layers[key], found.cells[key] = _executed(candidate, face)
    chosen = found.choice.chosen.candidate
    if chosen.artifact.weight_bits or found.target.missing() or is_gpu(chosen.artifact.runtime):
        return
    ran = found.cells[chosen.id]
    integer = set(chosen.artifact.integer_nodes)
    lost = sorted(name for name in integer & set(ran) if ran[name] != "int8")
    if lost:
        found.warnings.append(
            f"recurrent layers of {chosen.id} were meant to run in int8 and do not: {lost}"
        )
    meant = sum(op in MATMULS | RECURRENT for op in _ops(chosen.artifact)) - len(lost)
    runs = found.layers[chosen.id].get("int8", 0)
    if runs < meant:
        found.warnings.append(
            f"{meant} layers of {chosen.id} were meant to run in int8, {runs} do"
        )


def close_journal(
    journal: Journal, found: Sequence[Found], bundle: Path | None, *, kept: bool
) -> tuple[str, ...]:
    """End the journal of a run that wrote `bundle`; sentences for the user about both.

    That of a complete run is removed unless it is to be `kept`; that of another run stays, and
    knows its bundle.
    """
    notes = [*journal.notes]
    if journal.reused:
        notes.append(
            f"{journal.reused} measurements were taken from {journal.path}, "
            f"{journal.made} were made"
        )
    if any(each.undone or each.interrupted for each in found):
        if bundle is not None:
            journal.keep_bundle(bundle)
        if journal.path is not None:
            notes.append(f"what was measured is kept in {journal.path}: {GO_ON}")
    elif not kept:
        journal.remove()
        Students(journal).remove()
    return tuple(notes)


def _executed(candidate: Candidate, face: Face) -> tuple[dict[str, int], dict[str, str]]:
    """Layers by precision, and what each recurrent layer of the model runs in."""
    artifact = candidate.artifact
    if is_gpu(artifact.runtime):
        return {}, {}  # what runs there is known there
    if artifact.runtime == "onnxruntime":
        given = dict(artifact.files), artifact.settings
        cells = onnxruntime_backend.executed_cells(*given)
        return onnxruntime_backend.executed_layers(*given), cells
    with Runner(candidate, face) as runner:
        names = {node.name for node in artifact.lowered.nodes(*RECURRENT)}
        cells = {n: ran for n, ran in runner.engine.cells().items() if n in names}
        return runner.engine.executed(), cells


def _ops(artifact: Artifact) -> list[str]:
    """Op types of the nodes that were lowered to integers."""
    integer = set(artifact.integer_nodes)
    return [node.op_type for node in artifact.lowered.nodes() if node.name in integer]
