"""Recurrent networks that answer whole clips: speed, size, answers and what each layer ran in."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accuracy import TOOLS, Settings, add_latencies, artifact_of, digest, enter_all, read_outputs
from contenders import Contender, call_of, first
from peer_accuracy import REFERENCE
from peer_tools import Feeds
from rnn_own import Own
from spoken import Spoken, cells_of, counted, other_tools
from tasks import hits
from timing import race

from edgebm.data.agreement import sqnr_db


@dataclass(frozen=True)
class Entrant:
    """Who takes part. ``kind`` is edgebm's artifact, such as "openvino/int8", else empty."""

    contender: Contender
    bundles: Own
    kind: str = ""

    @property
    def name(self) -> str:
        return self.contender.name

    def takes_part(self, threads: int) -> bool:
        return not self.kind or self.bundles.bundle(self.kind, threads).exists()

    def cells(self, file: Path) -> dict[str, str]:
        """What each recurrent layer runs in."""
        if self.kind:
            cells: dict[str, str] = self.bundles.facts[self.kind]["cells"]
            return cells
        return cells_of(file, self.contender.precision)

    def call(self, task: Spoken, file: Path, threads: int, feeds: Feeds) -> Callable[[], object]:
        """A call on tensors bound once."""
        path = self.bundles.bundle(self.kind, threads) if self.kind else file
        return call_of(task, path, threads, feeds, self.contender.precision)


def entrants(task: Spoken, bundles: Own) -> list[Entrant]:
    """The other tools, floats first, then edgebm's artifacts."""
    others = [Entrant(each, bundles) for each in other_tools(task)]
    return others + [
        Entrant(_own_contender(bundles, kind), bundles, kind) for kind in bundles.facts
    ]


def _own_contender(bundles: Own, kind: str) -> Contender:
    bundle = bundles.any_bundle(kind)

    def make(folder: Path) -> dict[str, Any]:
        shutil.copy(bundle, folder / "model.edgebm")
        size = bundles.facts[kind]["size_bytes"]
        return {"seconds": bundles.seconds, "size_bytes": size, "file": "model.edgebm"}

    return Contender(f"edgebm {kind}", digest(bundle), make)


def compare_sequences(
    task: Spoken, bundles: Own, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Everybody on one network, for each number of threads; who fails is named with the reason."""
    who = entrants(task, bundles)
    rows, failed = _answered(task, who, options)
    for threads in options.threads:
        there = [each for each in who if each.name in rows and each.takes_part(threads)]
        chosen = bundles.chosen[str(threads)]
        timed = [{**rows[each.name], "chosen": each.kind == chosen} for each in there]
        add_times(task, timed, there, threads, options)
        yield {
            "task": task.name,
            "threads": threads,
            "clips": task.clips(),
            "copies": len(task.read("test")[1]) - task.clips(),
            "rows": timed,
            "failed": {**failed, **{f"edgebm {k}": why for k, why in bundles.failed.items()}},
            "notes": [*bundles.notes, f"All of edgebm's took {bundles.seconds:.0f} s to make."],
        }


def _answered(
    task: Spoken, who: Sequence[Entrant], options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """A row for everybody who answered the test set, by name; of the rest the reason."""
    files = [task.model, *map(task.samples, ("calibration_300", "test", "shifted"))]
    common = f"{digest(*files)} {(task.limit, *map(version, TOOLS))}"
    settings = Settings((), (), 1, options.fresh, race=False)
    entries, failed = enter_all(task, [each.contender for each in who], common, settings)
    rows = {
        each.name: {**entry, "cells": counted(each.cells(artifact_of(task, entry)))}
        for each in who
        if (entry := entries.get(each.name)) is not None
    }
    _add_figures(task, rows)
    return rows, failed


def _add_figures(task: Spoken, rows: dict[str, dict[str, Any]]) -> None:
    """What each answered, against the float model and the labels."""
    labels, clips = task.read("test")[1], task.clips()
    outputs = {name: read_outputs(artifact_of(task, row)) for name, row in rows.items()}
    right = {name: int(hits(each, labels)[:clips].sum()) for name, each in outputs.items()}
    want = outputs[REFERENCE]["logits"]
    for name, row in rows.items():
        got = outputs[name]["logits"]
        same = 100 * (got.argmax(1) == want.argmax(1))
        row["right"], row["lost"] = right[name], right[REFERENCE] - right[name]
        row["agrees"] = float(same[:clips].mean())
        row["agrees_copies"] = float(same[clips:].mean())
        row["agrees_all"] = float(same.mean())
        row["sqnr_db"] = sqnr_db(want[:clips], got[:clips])


def add_times(
    task: Spoken,
    rows: list[dict[str, Any]],
    there: Sequence[Entrant],
    threads: int,
    options: argparse.Namespace,
) -> None:
    """Latency in turns, and over the faster float runtime and over what `compress` takes."""
    feeds = first(task.read("test")[0])
    calls = {
        each.name: each.call(task, artifact_of(task, row), threads, feeds)
        for each, row in zip(there, rows, strict=True)
    }
    turns = race(calls, options.turns, options.turn_s)
    for row in rows:
        row["turns_ms"] = turns[row["name"]]
    own = next(row["name"] for row in rows if row["chosen"])
    add_latencies(rows, turns, own.removeprefix("edgebm "))
