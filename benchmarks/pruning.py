"""Prune, distil and quantize in one run, without labels: accuracy, speed, size and time.

``python benchmarks/pruning.py resnet56 lstm512 gru512 minilm`` runs ``edgebm.compress`` with the
recipe prune-int8, told how much to cut and how long to teach, on unlabelled samples
(``unlabelled.py``, ``speech.py``), and compares with NNCF's INT8 alone and with edgebm's; for the
ResNet also with Torch-Pruning, which gets the same teaching for as long. What was made stays in
``benchmarks/out/pruning``; ``--fresh`` makes all anew. Times are taken anew in every run. What has
to be reached stands beside the figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from contenders import answer, call_of, first, source_of
from datasets import WORK
from minilm import spearman_of
from numpy.typing import NDArray
from peer_table import environment
from peer_tools import OnnxRuntime, OpenVino, build_nncf, build_openvino, fixed_onnx, size_of
from spoken import Spoken, spoken
from tasks import IMAGE, TASKS, Task, answers, hits, top1
from timing import median_ms, race
from torch_pruning_peer import prune as torch_prune

import edgebm
from edgebm.importers import import_model
from edgebm.pruning.macs import macs
from edgebm.recipe import Recipe, load_recipe

FOLDER = WORK / "pruning"
FLOAT = {"OpenVINO float": OpenVino, "ONNX Runtime float": OnnxRuntime}


class Cifar(Task):
    """A network for CIFAR-10 by another name than the data."""

    def samples(self, part: str) -> Path:
        return WORK / f"cifar10_{part}.npz"


@dataclass(frozen=True)
class Plan:
    """One network: what is cut, how long it is taught and what has to be reached.

    ``sparsity`` by kind of step; ``judged`` says how `compress` judges candidates. ``fields`` are
    those of other steps, by kind.
    """

    task: Task
    unlabelled: Path
    minutes: float
    goal: str
    sparsity: dict[str, float]
    judged: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)

    def recipe(self) -> Recipe:
        """prune-int8 with these amounts, tried once."""
        plain, steps = load_recipe("prune-int8"), []
        for step in plain.steps:
            if getattr(step, "sparsity", None) is not None and step.kind not in self.sparsity:
                continue
            changes = dict(self.fields.get(step.kind, {}))
            if step.kind in self.sparsity:
                changes["sparsity"] = self.sparsity[step.kind]
            if step.kind == "distill":
                changes["minutes"] = self.minutes
            steps.append(replace(step, **changes) if changes else step)
        return replace(plain, steps=tuple(steps), sparsity_search=None)


def sts_b(run: Callable[[Any], Any]) -> float:
    """Spearman x100 on the development set of STS-B, which nothing is trained or scored on."""
    with np.load(WORK / "minilm_dev.npz") as stored:
        inputs = {name: stored[name] for name in ("input_ids", "attention_mask")}
        scores = stored["scores"]
    return spearman_of(answers(run, inputs)["sentence_embedding"], scores)


sts_b.unit = "points"

PLANS = {
    "resnet56": Plan(
        Cifar("resnet56", "top-1 %", top1, IMAGE, 1.0),
        WORK / "cifar10_unlabelled.npz",
        17,
        "half the MACs and INT8: at most 1.0 points lost, at least 3 times faster than float",
        {"drop_blocks": 0.5},
        {"eval": WORK / "cifar10_validation.npz", "metric": "top1", "max_drop": 1.0},
        {"distill": {"augment": ("flip", "shift")}},
    ),
    "lstm512": Plan(
        spoken("lstm512"),
        WORK / "speech_calibration_all.npz",
        6,
        "half the hidden units and INT8: at most one clip of 300 lost, at least 4 times faster, "
        "at most 1/10 of the size",
        {"prune": 0.5},
        fields={"prune": {"of": "units"}},
    ),
    "gru512": Plan(
        spoken("gru512"),
        WORK / "speech_calibration_all.npz",
        6,
        "half the hidden units and INT8: at most one clip of 300 lost, at least 3 times faster, "
        "at most 1/10 of the size",
        {"prune": 0.5},
        fields={"prune": {"of": "units"}},
    ),
    "minilm": Plan(
        TASKS["minilm"],
        WORK / "minilm_unlabelled.npz",
        35,
        "two thirds of the MACs of projections and MLPs and INT8: Spearman at least 81.8, at "
        "least 6 times faster than float",
        {"prune": 0.667},
        {"eval": sts_b, "max_drop": 0.5},
    ),
}


def made(plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """The bundle of one network and what `compress` says about it; kept."""
    folder = FOLDER / plan.task.name
    store = folder / "made.json"
    if store.exists() and not options.fresh:
        return json.loads(store.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    result = edgebm.compress(
        plan.task.model,
        recipe=plan.recipe(),
        data=plan.unlabelled,
        shapes={name: [shape] for name, shape in plan.task.shapes.items()},
        threads=options.threads,
        out=folder / "model.edgebm",
        keep=folder,
        force=True,
        progress=_Progress(),
        **plan.judged,
    )
    report = result.report
    facts = {
        "seconds": time.perf_counter() - begin,
        "verdict": report["verdict"],
        "candidate": report["after"]["candidate"],
        "size_bytes": report["after"]["size_bytes"],
        "notes": report["notes"],
        "pruning": report["pruning"],
        "steps": {step["name"]: step["seconds"] for step in report["steps"]},
    }
    store.write_text(json.dumps(facts, indent=1, default=str))
    return facts


class _Progress:
    """A line for each tenth of a step."""

    def __init__(self) -> None:
        self._said: tuple[str, int] = ("", -1)
        self._begin = time.perf_counter()

    def __call__(self, step: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        if (step, tenth) != self._said:
            self._said = (step, tenth)
            print(
                f"    {time.perf_counter() - self._begin:6.0f} s {step} {done}/{total}", flush=True
            )


def torch_pruning(plan: Plan, options: argparse.Namespace) -> Path:
    """Torch-Pruning's half of the MACs, taught by the original as our own; kept."""
    folder = FOLDER / plan.task.name
    cut, taught = folder / "torch_pruning_cut.onnx", folder / "torch_pruning.onnx"
    if options.fresh or not taught.exists():
        torch_prune(plan.task.model, cut, plan.sparsity.get("drop_blocks", 0.5))
        student = edgebm.distill(
            plan.task.model, cut, plan.unlabelled, minutes=plan.minutes,
            augment=("flip", "shift"), progress=_Progress(),
        )  # fmt: skip
        taught.write_bytes(student.model.to_bytes())
    return taught


def rows_of(plan: Plan, options: argparse.Namespace) -> dict[str, Path]:
    """Every artifact that is compared, by name; the float models come first."""
    folder = FOLDER / plan.task.name
    source = source_of(plan.task, folder)
    plain = folder / "int8.edgebm"
    if not plain.exists() or options.fresh:
        edgebm.compress(
            plan.task.model, data=plan.task.samples("calibration_300"), out=plain, force=True,
            shapes={name: [shape] for name, shape in plan.task.shapes.items()},
            threads=options.threads,
        )  # fmt: skip
    rows = {
        "OpenVINO float": build_openvino(source).path,
        "ONNX Runtime float": fixed_onnx(source),
        "NNCF INT8": build_nncf(source, transformer=plan.task.is_transformer).path,
        "edgebm int8": plain,
        "edgebm prune-int8": folder / "model.edgebm",
    }
    student = folder / "host-student.onnx"
    if student.exists():
        rows["edgebm pruned, float"] = student
    if plan.task.name == "resnet56" and not options.no_torch_pruning:
        rows["Torch-Pruning, float"] = torch_pruning(plan, options)
        given = replace(
            source, model=rows["Torch-Pruning, float"], folder=folder / "torch_pruning"
        )
        given.folder.mkdir(exist_ok=True)
        rows["Torch-Pruning + NNCF INT8"] = build_nncf(given).path
    return rows


def compare(plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one network."""
    facts = made(plan, options)
    rows = rows_of(plan, options)
    inputs, labels = plan.task.read("test")
    feeds = first(inputs)
    turns = race({n: call_of(plan.task, p, options.threads, feeds) for n, p in rows.items()})
    floats = [median_ms(turns[name]) for name in FLOAT]
    figures = []
    for name, path in rows.items():
        print(f"  {plan.task.name}: scoring {name}", flush=True)
        outputs = answer(plan.task, path, 2)
        figures.append(
            {
                "name": name,
                "score": plan.task.value(outputs, labels),
                "right": _right(plan.task, outputs, labels),
                "p50_ms": median_ms(turns[name]),
                "speedup": min(floats) / median_ms(turns[name]),
                "size_bytes": size_of(path),
                "macs": _macs(path, feeds),
            }
        )
    return {"task": plan.task.name, "metric": plan.task.metric, "rows": figures, **facts}


def _right(task: Task, outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> str:
    """How many samples are right; of clips, how many without their shifted copies."""
    if not task.is_top1:
        return ""
    found = hits(outputs, labels)
    if isinstance(task, Spoken):
        found = found[: task.clips()]
    return f"{int(found.sum())} of {len(found)}"


def _macs(path: Path, feeds: Any) -> int | None:
    return macs(import_model(path), feeds) if path.suffix == ".onnx" else None


def table(result: dict[str, Any], goal: str) -> str:
    """One network as a markdown table."""
    lines = [
        f"### {result['task']}: {goal}",
        "",
        f"| | {result['metric']} | right | p50 ms | times float | MMACs | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        count = "" if row["macs"] is None else f"{row['macs'] / 1e6:.1f}"
        cells = (
            f"{row['score']:.2f}",
            row["right"],
            f"{row['p50_ms']:.3f}",
            f"{row['speedup']:.2f}",
            count,
        )
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['size_bytes'] / 1e6:.2f} |")
    lines += ["", f"{result['verdict']} The whole run took {result['seconds'] / 60:.1f} minutes."]
    return "\n".join(lines)


def main() -> None:
    """Run the comparisons that were named and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(PLANS), help=f"of {', '.join(PLANS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="of teaching, in place of the plan's")
    parser.add_argument("--no-torch-pruning", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="make and score all anew")
    options = parser.parse_args()
    print(environment(), flush=True)
    for name in options.names:
        plan = PLANS[name]
        if options.minutes is not None:
            plan = replace(plan, minutes=options.minutes)
        result = compare(plan, options)
        store = FOLDER / f"{name}.result.json"
        store.write_text(json.dumps({"environment": environment(), **result}, indent=1))
        print("", table(result, plan.goal), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
