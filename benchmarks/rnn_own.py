"""What edgebm makes of a recurrent network: the bundle that it takes, and those it could take.

It does what ``edgebm.compress`` does, for each number of threads, and keeps what that throws
away: every integer artifact worth a look becomes a bundle of its own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks import Task

from edgebm.ir.model import Model
from edgebm.package import write_result
from edgebm.search.choose import Outcome
from edgebm.search.decide import Decisions
from edgebm.search.found import Found, inspect
from edgebm.search.job import Job, Options
from edgebm.search.prepared import Given, prepared
from edgebm.search.stateful import Wanted
from edgebm.search.target import Search

KINDS = frozenset({
    "openvino/int8", "openvino/int8-reset-before",
    "onnxruntime/int8-dynamic", "onnxruntime/int8-cells",
})  # fmt: skip
MODEL = "model.onnx"


@dataclass(frozen=True)
class Wish:
    """What is to be made: of which task, and how.

    ``threads`` are the numbers of threads, ``streaming`` asks for a model of single steps,
    ``measure_s`` are seconds of timing for each number of threads, and ``key`` stands for all
    else that decides the result.
    """

    task: Task
    threads: Sequence[int]
    key: str
    measure_s: float = 60.0
    streaming: bool = False

    def known(self) -> str:
        """What stored bundles are known by."""
        return f"{self.key} {tuple(self.threads)} {self.measure_s} {self.streaming}"


@dataclass
class Own:
    """The bundles of one network, in ``folder``, where ``MODEL`` is the float graph.

    ``chosen`` has by the number of threads what `compress` takes, and ``facts`` are about each
    kind of artifact, such as "openvino/int8"; ``failed`` are those that do not run, with the
    reason.
    """

    folder: Path
    chosen: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def bundle(self, kind: str, threads: int) -> Path:
        """The bundle with an artifact, for a number of threads."""
        return self.folder / f"{kind.replace('/', '_')}_t{threads}.edgebm"

    def any_bundle(self, kind: str) -> Path:
        """The same for some number of threads: the answers are those of all."""
        return next(p for n in self.chosen if (p := self.bundle(kind, int(n))).exists())

    def add(self, job: Job, found: Found, threads: int) -> None:
        """Write the bundles of one search."""
        chosen = found.choice.chosen.candidate.answers_id
        self.chosen[str(threads)] = chosen
        self.notes = list(found.notes)
        for outcome in found.choice.outcomes:
            kind = outcome.candidate.answers_id
            if kind in KINDS | {chosen} and outcome.status == "failed":
                self.failed[kind] = outcome.why
            elif kind in KINDS | {chosen}:
                self._write(job, found, outcome, self.bundle(kind, threads))

    def _write(self, job: Job, found: Found, outcome: Outcome, path: Path) -> None:
        """The bundle that would be written if ``outcome`` were the chosen one."""
        candidate = outcome.candidate
        shown = replace(found, choice=replace(found.choice, chosen=outcome), warnings=[])
        inspect(shown, job.face)
        write_result(job, [shown], path, force=True, keep=None)
        self.facts[candidate.answers_id] = {
            "size_bytes": candidate.artifact.size_bytes,
            "cells": shown.cells[candidate.id],
            "warnings": shown.warnings,
        }


class _Once(Decisions):
    """Decides once for all numbers of threads: to train a GRU into its sister takes minutes."""

    _decided: Model | None = None
    _turned: tuple[Model | None] | None = None

    def passes(self) -> Model:
        if self._decided is None:
            self._decided = super().passes()
        return self._decided

    def turned(self, decided: Model) -> Model | None:
        if self._turned is None:
            self._turned = (super().turned(decided),)
        return self._turned[0]


def own(wish: Wish, model: Path, folder: Path) -> Own:
    """The bundles for ``model``, an ONNX file; made unless the folder has them already."""
    store = folder / "own.json"
    if store.exists():
        stored = json.loads(store.read_text())
        if stored.pop("key") == wish.known():
            return Own(folder, **stored)
    print(f"  {wish.task.name}: edgebm compress{' --streaming' * wish.streaming}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = _made(wish, model, folder)
    kept = {name: value for name, value in vars(made).items() if name != "folder"}
    store.write_text(json.dumps({"key": wish.known(), **kept}, indent=1))
    return made


def _made(wish: Wish, model: Path, folder: Path) -> Own:
    made, begin = Own(folder), time.perf_counter()
    shapes = {} if wish.streaming else {k: [shape] for k, shape in wish.task.shapes.items()}
    options = Options(
        shapes=shapes, measure_s=wish.measure_s, wanted=Wanted(streaming=wish.streaming)
    )
    given = Given(data=wish.task.samples("calibration_300"))
    job, (target,) = prepared(model, "host", "int8", options, given, _quiet)
    (folder / MODEL).write_bytes(job.model.to_bytes())
    decisions: Decisions | None = None
    for count in wish.threads:
        job.options = replace(options, threads=(count,))
        search = Search(job, target, _quiet)
        if decisions is None:
            decisions = _Once(job, target, _quiet, search.stages.seconds.note)
        search.decisions = decisions
        made.add(job, search.run(), count)
    made.seconds = time.perf_counter() - begin
    return made


def _quiet(step: str, done: int, total: int) -> None:
    """Say nothing."""
