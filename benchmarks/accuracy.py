"""What INT8 costs in accuracy: edgebm's recipes against NNCF and ONNX Runtime, on eight models.

``python benchmarks/accuracy.py`` builds every contender from the same 300 samples, lets it answer
the whole test set, and prints a table for each model. What was built and answered stays in
``benchmarks/out/accuracy`` with a key of all that it depends on, so that a second run redoes only
what has changed and goes on where the first was stopped; ``--fresh`` redoes it all. Scores are
computed from the answers each time. The results are also in NAME.result.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_table import table
from contenders import Contender, answer, call_of, contenders, first
from datasets import WORK
from fidelity import figures
from peer_accuracy import FLOATS, REFERENCE
from peer_table import environment
from tasks import TASKS, Task
from timing import median_ms, race

from edgebm.recipe import list_recipes

FOLDER = WORK / "accuracy"
TOOLS = ("nncf", "openvino", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True)
class Settings:
    """What the command line said."""

    recipes: tuple[str, ...]
    labelled: tuple[str, ...]
    threads: int
    fresh: bool
    race: bool


def digest(*paths: Path) -> str:
    """SHA-256 of the contents of files, those that do not exist left out."""
    found = hashlib.sha256()
    for path in paths:
        if path.exists():
            with path.open("rb") as stream:
                found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def folder_of(task: Task) -> Path:
    """Where a task's artifacts and answers are kept; quick looks do not replace whole ones."""
    return FOLDER / (task.name if task.limit is None else f"{task.name}-{task.limit}")


def enter(task: Task, contender: Contender, common: str, settings: Settings) -> dict[str, Any]:
    """The entry of one contender, built and asked first unless a stored one has its key."""
    folder = folder_of(task) / contender.slug
    entry_path, outputs_path = folder / "entry.json", folder / "outputs.npz"
    key = hashlib.sha256(f"{common} {contender.depends}".encode()).hexdigest()
    if not settings.fresh and entry_path.exists() and outputs_path.exists():
        stored: dict[str, Any] = json.loads(entry_path.read_text())
        if stored["key"] == key:
            return stored
    print(f"  {task.name}: {contender.name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entry = {"name": contender.name, "slug": contender.slug, "key": key, **contender.make(folder)}
    file, threads = folder / entry["file"], settings.threads
    np.savez(outputs_path, **answer(task, file, threads, contender.precision))
    entry_path.write_text(json.dumps(entry, indent=1))
    return entry


def enter_all(
    task: Task, who: Sequence[Contender], common: str, settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The entries by name; of each contender that fails the reason, and it is left out."""
    entries: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for contender in who:
        try:
            entries[contender.name] = enter(task, contender, common, settings)
        except Exception as error:  # noqa: BLE001, PERF203 - that a tool fails is a result
            traceback.print_exc()
            failed[contender.name] = f"{type(error).__name__}: {error}".split("\n")[0]
    if REFERENCE not in entries:
        raise SystemExit(f"{task.name}: {REFERENCE}, which all are compared with, failed")
    return entries, failed


def latencies(
    task: Task, entries: Mapping[str, Mapping[str, Any]], settings: Settings
) -> dict[str, list[float]]:
    """Latency of every artifact, in turns; kept until an artifact or the CPU's threads change."""
    store = folder_of(task) / f"race_{settings.threads}.json"
    keys = {name: entry["key"] for name, entry in entries.items()}
    if store.exists() and not settings.race and not settings.fresh:
        stored: dict[str, Any] = json.loads(store.read_text())
        if stored["keys"] == keys:
            turns: dict[str, list[float]] = stored["turns"]
            return turns
    print(f"  {task.name}: race", flush=True)
    feeds = first(task.read("test")[0])
    found = race(
        {
            name: call_of(task, artifact_of(task, entry), settings.threads, feeds)
            for name, entry in entries.items()
        }
    )
    store.write_text(json.dumps({"keys": keys, "turns": found}))
    return found


def compare(task: Task, settings: Settings, *, timed: bool) -> dict[str, Any]:
    """All contenders of one task; one that fails is named with its reason and left out."""
    files = [task.model, *map(task.samples, ("calibration_300", "validation", "test"))]
    fixed = (task.max_drop, task.limit, settings.threads, *map(version, TOOLS))
    common = f"{digest(*files)} {fixed}"
    who = contenders(task, settings.recipes, settings.labelled, settings.threads)
    entries, failed = enter_all(task, who, common, settings)
    outputs = {name: read_outputs(artifact_of(task, entry)) for name, entry in entries.items()}
    labels = task.read("test")[1]
    found = figures(task, labels, outputs, REFERENCE)
    rows = [{**entry, **found[name]} for name, entry in entries.items()]
    float_size = entries[REFERENCE]["size_bytes"]
    for row in rows:
        row["size_ratio"] = float_size / row["size_bytes"]
    if timed:
        add_latencies(rows, latencies(task, entries, settings), settings.recipes[0])
    return {
        "task": task.name,
        "test_labels": len(labels),
        "metric": task.metric,
        "max_drop": task.max_drop,
        "rows": rows,
        "failed": failed,
    }


def artifact_of(task: Task, entry: Mapping[str, Any]) -> Path:
    """The file that a contender is loaded by."""
    return folder_of(task) / entry["slug"] / entry["file"]


def read_outputs(artifact: Path) -> dict[str, Any]:
    """What `enter` stored beside an artifact."""
    with np.load(artifact.with_name("outputs.npz")) as stored:
        return dict(stored)


def add_latencies(rows: list[dict[str, Any]], turns: Mapping[str, list[float]], own: str) -> None:
    """Latency over that of the faster float runtime and over edgebm's with the recipe ``own``.

    Ratios are taken turn by turn, so that a slow minute does not count, then the median.
    """
    fastest = min(
        (name for name in FLOATS if name in turns), key=lambda name: median_ms(turns[name])
    )
    for key, name in (("ratio_to_float", fastest), ("ratio_to_edgebm", f"edgebm {own}")):
        for row in rows if name in turns else ():
            pairs = zip(turns[row["name"]], turns[name], strict=True)
            row[key] = statistics.median(mine / theirs for mine, theirs in pairs)
    for row in rows:
        row["p50_ms"] = median_ms(turns[row["name"]])


def main() -> None:
    """Run the comparisons that were named and print them."""
    known = list_recipes()
    usual = [name for name in ("int8", "int8-accurate") if name in known]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], help="default: all")
    parser.add_argument("--recipes", nargs="+", default=usual, choices=known)
    parser.add_argument(
        "--labelled",
        nargs="*",
        default=usual[-1:],
        choices=known,
        help="recipes that also get the labelled validation set, as NNCF's accuracy control does",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="build, ask and time all anew")
    parser.add_argument("--race", action="store_true", help="only time all anew")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--limit", type=int, help="test samples, for a quick look (default: all)")
    options = parser.parse_args()
    settings = Settings(
        tuple(options.recipes),
        tuple(options.labelled),
        options.threads,
        options.fresh,
        options.race,
    )
    print(environment(), flush=True)
    for name in options.tasks or TASKS:
        if not TASKS[name].model.exists():
            raise SystemExit(
                f"{TASKS[name].model} is missing: benchmarks/README.md says what writes it"
            )
        task = replace(TASKS[name], limit=options.limit)
        result = compare(task, settings, timed=not options.no_latency)
        store = folder_of(task).with_suffix(".result.json")
        store.write_text(json.dumps({"environment": environment(), **result}, indent=1))
        print("", table(result), sep="\n", flush=True)


if __name__ == "__main__":
    main()
