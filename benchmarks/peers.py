"""edgebm against NNCF + OpenVINO and ONNX Runtime's own quantization, on the same machine.

Same model, same 300 calibration samples, same threads, same fixed shape (one sample), every
contender timed in turns on pre-bound tensors, accuracy of the built artifact on the whole test
set. ``python benchmarks/train.py`` and ``minilm.py`` make the models first. Peers' artifacts and
scores are kept in ``benchmarks/out/peers`` and made anew with ``--fresh``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minilm
import numpy as np
from datasets import WORK
from peer_table import environment, table, verdict
from peer_tools import Built, Engine, Feeds, Peer, Source, peers_for
from timing import median_ms, race

import edgebm
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.engines import open_engine

FOLDER = WORK / "peers"


@dataclass(frozen=True)
class Task:
    """A model of the benchmarks, how it is scored and how much it may lose."""

    name: str
    metric: str
    score: Callable[[Callable[[Feeds], Feeds]], float]
    shapes: Mapping[str, tuple[int, ...]]
    max_drop: float

    def source(self) -> Source:
        folder = FOLDER / self.name
        folder.mkdir(parents=True, exist_ok=True)
        calibration = WORK / f"{self.name}_calibration_300.npz"
        model = WORK / f"{self.name}.onnx"
        return Source(model, self.shapes, calibration, folder, self.name == "minilm")


def top1(name: str) -> Callable[[Callable[[Feeds], Feeds]], float]:
    """A scorer: top-1 accuracy in percent on the whole test set of ``name``."""

    def score(run: Callable[[Feeds], Feeds]) -> float:
        with np.load(WORK / f"{name}_test.npz") as test:
            images, labels = test["image"], test["labels"]
        answers = [
            int(next(iter(run({"image": images[i : i + 1]}).values())).argmax())
            for i in range(len(images))
        ]
        return float(100 * (np.array(answers) == labels).mean())

    return score


IMAGE = {"image": (1, 3, 32, 32)}
TOKENS = dict.fromkeys(("input_ids", "attention_mask"), (1, minilm.TOKENS))
TASKS = {
    "minilm": Task("minilm", "Spearman x100", minilm.spearman, TOKENS, 0.23),
    "cifar10": Task("cifar10", "top-1 %", top1("cifar10"), IMAGE, 0.3),
    "gtsrb": Task("gtsrb", "top-1 %", top1("gtsrb"), IMAGE, 0.3),
}


@dataclass(frozen=True)
class Entry:
    """One contender: accuracy of its artifact, seconds of its quantize step, file size."""

    name: str
    path: str
    score: float
    seconds: float
    size_bytes: int
    detail: str = ""


def size_of(path: Path) -> int:
    """Bytes of an artifact; an IR is two files."""
    weights = path.with_suffix(".bin")
    extra = weights.stat().st_size if path.suffix == ".xml" else 0
    return path.stat().st_size + extra


def cached(path: Path, make: Callable[[], Entry], *, fresh: bool) -> Entry:
    """The entry stored at ``path``, made first where it is missing."""
    if fresh or not path.exists():
        path.write_text(json.dumps(vars(make()), indent=1))
    return Entry(**json.loads(path.read_text()))


def peer_entry(task: Task, source: Source, peer: Peer, *, fresh: bool) -> Entry:
    """Build and score a peer; what differs only in threads has the same answers."""

    def make() -> Entry:
        print(f"  {task.name}: building and scoring {peer.name}", flush=True)
        built: Built = peer.build(source)
        engine = peer.engine(built.path, source, 2, peer.precision)
        engine.bind(first_sample(source))
        score = task.score(engine.run)
        return Entry(peer.name, str(built.path), score, built.seconds, size_of(built.path))

    slug = "".join(c if c.isalnum() else "_" for c in peer.name)
    return cached(source.folder / f"{slug}.json", make, fresh=fresh)


def first_sample(source: Source) -> dict[str, Any]:
    """One calibration sample at the timed shape."""
    with np.load(source.calibration) as stored:
        return {name: stored[name][:1] for name in source.shapes}


def edgebm_entry(task: Task, source: Source, threads: int, *, fresh: bool) -> Entry:
    """Compress with the recipe int8 for this machine; only then see the test set."""
    out = source.folder / f"edgebm_{threads}.edgebm"

    def make() -> Entry:
        print(f"  {task.name}: edgebm compress, {threads} threads", flush=True)
        begin = time.perf_counter()
        result = edgebm.compress(
            source.model,
            target="host",
            recipe="int8",
            data=source.calibration,  # unlabelled: all that the peers get
            shapes={name: [shape] for name, shape in task.shapes.items()},
            threads=threads,
            out=out,
            force=True,
        )
        whole = time.perf_counter() - begin
        steps = {step["name"]: round(step["seconds"], 1) for step in result.report["steps"]}
        with edgebm.load(out) as session:
            score = task.score(session.run)
        chosen = result.report["after"]["candidate"]
        detail = f"{chosen}; whole command {whole:.0f} s; steps {steps}"
        return Entry("edgebm", str(out), score, sum_quantize(steps), out.stat().st_size, detail)

    return cached(source.folder / f"edgebm_{threads}.json", make, fresh=fresh)


def sum_quantize(steps: Mapping[str, float]) -> float:
    """Seconds of the steps that ``nncf.quantize`` does too: passes and calibration."""
    others = ("import", "baseline", "build", "measure", "evaluate", "write")
    return sum(s for name, s in steps.items() if not name.startswith(others))


def measure(
    task: Task,
    source: Source,
    entries: Mapping[str, Entry],
    engines: Mapping[str, Peer],
    threads: int,
) -> dict[str, list[float]]:
    """Latency of every entry at ``threads``, in turns."""
    feeds = first_sample(source)
    calls: dict[str, Callable[[], object]] = {}
    for name, entry in entries.items():
        if name == "edgebm":
            calls[name] = bound_call(entry.path, feeds)
        else:
            engine_type: Engine = engines[name].engine
            engine = engine_type(Path(entry.path), source, threads, engines[name].precision)
            engine.bind(feeds)
            calls[name] = engine.call
    return race(calls)


def bound_call(path: str, feeds: Feeds) -> Callable[[], object]:
    """The bundle's artifact on tensors bound once, as the peers are called.

    What `session.run` adds to that is in ``session_overhead.py``.
    """
    bundle = read_bundle(path)
    manifest, variant = bundle.manifest, bundle.manifest.variants[0]
    engine = open_engine(
        variant.runtime, bundle.files(variant), variant.config, manifest.inputs, manifest.outputs
    )
    request = engine.request({name: value.shape for name, value in feeds.items()})
    for buffer, spec in zip(request.inputs, manifest.inputs, strict=True):
        np.copyto(buffer, feeds[spec.name])
    return request.infer


def compare(task: Task, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one task at one thread count."""
    source = task.source()
    peers = {peer.name: peer for peer in peers_for(source)}
    entries = {n: peer_entry(task, source, p, fresh=options.fresh) for n, p in peers.items()}
    if not options.peers_only:
        fresh = options.fresh or options.fresh_edgebm
        entries["edgebm"] = edgebm_entry(task, source, threads, fresh=fresh)
    turns = measure(task, source, entries, peers, threads)
    return {
        "task": task.name,
        "metric": task.metric,
        "threads": threads,
        "rows": [
            {
                **vars(e),
                "path": Path(e.path).name,
                "p50_ms": median_ms(turns[n]),
                "turns_ms": turns[n],
            }
            for n, e in entries.items()
        ],
    }


def main() -> None:
    """Run the comparisons that were named and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], help="default: all")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="build and score all anew")
    parser.add_argument("--fresh-edgebm", action="store_true", help="only edgebm anew")
    options = parser.parse_args()
    print(environment(), flush=True)
    for name in options.tasks or TASKS:
        for threads in options.threads:
            result = compare(TASKS[name], threads, options)
            store = FOLDER / f"{name}_{threads}.result.json"
            store.write_text(json.dumps({"environment": environment(), **result}, indent=1))
            print("", table(result), "", verdict(result, TASKS[name].max_drop), sep="\n")


if __name__ == "__main__":
    main()
