"""How long each step of a job took, in this run or in the one that it goes on from."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from edgebm.runtime.journal import SECONDS, Journal
from edgebm.search.job import Job
from edgebm.search.records import machine
from edgebm.search.stateful import Wanted, carried_parts
from edgebm.target import Target


class Seconds:
    """`spent` holds the seconds of each step by its name, in the order of their first end.

    A step that an earlier run of the same job took to its end counts with the time it took then:
    what is taken from a journal takes none.
    """

    def __init__(self, job: Job, target: Target, journal: Journal) -> None:
        self.spent: dict[str, float] = {}
        self._job, self._target, self._journal = job, target, journal
        self._noted: Counter[str] = Counter()

    def note(self, step: str, seconds: float) -> None:
        """Add what `step` took; it came to its end."""
        if self._journal.path is not None:
            parts = {**self._parts, "step": step, "time": self._noted[step]}
            self._noted[step] += 1
            known = self._journal.find(SECONDS, parts)
            if known is None:
                self._journal.keep(SECONDS, parts, seconds, f"{self._target.name}: {step}")
            else:
                seconds = known
        self.spent[step] = self.spent.get(step, 0.0) + seconds

    @cached_property
    def _parts(self) -> dict[str, Any]:
        """What decides how long the steps take: model, samples, recipe, options, target."""
        job = self._job
        return {
            **machine(),
            "model": hashlib.sha256(job.model.to_bytes()).hexdigest(),
            "recipe": job.recipe.to_dict(),
            "options": asdict(replace(job.options, wanted=Wanted(), gates=())),
            "states": carried_parts(job.states),
            "calibration": job.calibration.digest(),
            "evaluation": job.evaluation.digest(),
            "target": asdict(self._target),
        }
