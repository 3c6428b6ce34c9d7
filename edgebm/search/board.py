"""Figures that a board took of the candidates (`edgebm bench --candidates`), in place of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgebm.errors import UsageError
from edgebm.runtime.candidate_file import MADE_FROM, board_key, times_key, times_of
from edgebm.runtime.journal import Journal
from edgebm.runtime.turns import Measurement
from edgebm.search.candidates import Candidate
from edgebm.search.found import Found
from edgebm.search.job import Job
from edgebm.search.race import Race
from edgebm.search.stateful import carried_parts
from edgebm.search.structure import structure_sha256
from edgebm.target import Target

_UNTIMED = "it was not measured on the board"
_SHOWN = 60  # characters of a value that differs


@dataclass(frozen=True, slots=True)
class Board:
    """The board that is `target`, and what `journal` has of it.

    Of what was asked for, `peaks_mib` is the peak memory there, by `Candidate.answers_id`, and
    `untimed` are the ids of the candidates that were not measured there.
    """

    target: str
    facts: Mapping[str, Any]
    journal: Journal
    peaks_mib: dict[str, float | None] = field(default_factory=dict)
    untimed: set[str] = field(default_factory=set)

    @property
    def machine(self) -> Mapping[str, Any]:
        """Processor, features, threads, governor and versions of the board."""
        found: Mapping[str, Any] = self.facts["machine"]
        return found

    def fill(self, race: Race) -> None:
        """Give each candidate the times that it had on the board; those without are told so.

        Raises:
            UsageError: the float model has none, so that nothing can be compared.
        """
        for candidate in race.candidates:
            measured, peak_mib = self._times(candidate, race)
            if peak_mib is not None:
                self.peaks_mib.setdefault(candidate.answers_id, peak_mib)
            if measured.failed:
                measured.failed = f"on the board: {measured.failed}"
            if here := race.results[candidate.id].failed:
                measured = Measurement(failed=here)
            race.results[candidate.id] = measured
            if measured.untimed and not candidate.artifact.promise:
                self.untimed.add(candidate.id)
        floats = [c for c in race.candidates if c.is_float_baseline]
        if floats and all(race.results[c.id].untimed for c in floats):
            raise UsageError(
                f"{self.journal.path} has no figures for {floats[0].id} as it is built now",
                hint=f"the candidates were made with {_versions(self.facts['made_with'])}: use "
                "those and the same options, or make the bundle and measure it again",
            )

    def warnings(self) -> list[str]:
        """What makes the figures doubtful, and which candidates have none."""
        found = [f"{self.target}, while it was measured: {each}" for each in self.facts["slowed"]]
        if not self.untimed:
            return found
        return [
            *found,
            f"{self.target}: without figures of the board, and so not to be chosen: "
            f"{', '.join(sorted(self.untimed))}. To have them measured, write all candidates "
            "again and measure that bundle",
        ]

    def _times(self, candidate: Candidate, race: Race) -> tuple[Measurement, float | None]:
        structure = structure_sha256(candidate.artifact)
        key = times_key(self.target, structure, candidate.config, race.records.feeds)
        found = self.journal.find(*key)
        if found is None:
            return Measurement(untimed=_UNTIMED), None
        return times_of(found)


def board_of(journal: Journal, job: Job, target: Target) -> Board | None:
    """The board that `journal` has figures of for `target`, or None.

    Raises:
        UsageError: they are of another model, other samples, another recipe ...: says which.
    """
    facts = journal.find(*board_key(target.name))
    if facts is None:
        return None
    there, here = facts[MADE_FROM], made_from(job, target)
    other = [
        f"{name} ({difference(there.get(name), here[name])})"
        for name in here
        if there.get(name) != here[name]
    ]
    if other:
        raise UsageError(
            f"{journal.path} was measured with other candidates; what differs: {'; '.join(other)}",
            hint="give the arguments that made the bundle, or make it and measure it again",
        )
    return Board(target.name, facts, journal)


def check_boards(journal: Journal, job: Job, targets: Sequence[Target]) -> list[str]:
    """Whether the figures that the user named fit, before the work begins.

    Returns:
        A sentence for each target that could have been measured on a board and was not.

    Raises:
        UsageError: they do not fit, or the file is damaged and no other figures can be had.
    """
    away = [target for target in targets if not target.is_host]
    if away and journal.is_set_aside:
        raise UsageError(
            journal.notes[0].partition(";")[0],
            hint=f"{away[0].name} cannot be measured here: copy the file from the board again",
        )
    boards = [board_of(journal, job, target) for target in targets]
    return [
        f"{journal.path} has no figures of a board for {target.name}: it is not timed"
        for target, board in zip(targets, boards, strict=True)
        if journal.count and board is None and not target.is_host
    ]


def made_from(job: Job, target: Target) -> dict[str, Any]:
    """What decides which candidates there are, but for versions; JSON types."""
    parts = {
        "model": hashlib.sha256(job.original.to_bytes()).hexdigest(),
        "calibration samples": job.calibration.digest(),
        "evaluation samples": job.evaluation.digest(),
        "recipe": job.recipe.to_dict(),
        "states": carried_parts(job.states),
        "ignored": list(job.options.ignored),
        "shapes": job.options.shapes,
        "seed": job.options.seed,
        "target": asdict(target),
    }
    plain: dict[str, Any] = json.loads(json.dumps(parts))
    return plain


def untimed_note(found: Found, candidates: int) -> str:
    """What to do about a target that was not timed; empty where it was."""
    if found.choice.chosen.measured.turns_ms:
        return ""
    return (
        f"{found.target.name}: nothing was timed, so the chosen one is the first in an order that "
        f"is an estimate. 'edgebm bench BUNDLE --candidates -o m.json' on the board measures all "
        f"{candidates} candidates, and the same command with --measurements m.json chooses by that"
    )


def difference(there: Any, here: Any) -> str:
    """Two values that differ, in a few words; of dicts only the keys that differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
        return ", ".join(f"{key}: {difference(there.get(key), here.get(key))}" for key in keys)
    return f"{_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 3]}..."


def _versions(made_with: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(made_with.items()))
