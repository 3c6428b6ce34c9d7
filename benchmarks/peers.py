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

import numpy as np
from datasets import WORK
from own_tools import bound_call
from peer_table import environment, table, verdict
from peer_tools import Built, Engine, Peer, Source, peers_for, size_of
from tasks import TASKS, Task
from timing import median_ms, race

import edgebm

FOLDER = WORK / "peers"


NAMES = ("minilm", "cifar10", "gtsrb")


def source_of(task: Task) -> Source:
    """The task as the other tools take it."""
    folder = FOLDER / task.name
    folder.mkdir(parents=True, exist_ok=True)
    calibration = task.samples("calibration_300")
    return Source(task.model, task.shapes, calibration, folder, task.is_transformer)


@dataclass(frozen=True)
class Entry:
    """One contender: accuracy of its artifact, seconds of its quantize step, file size."""

    name: str
    path: str
    score: float
    seconds: float
    size_bytes: int
    detail: str = ""


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


def compare(task: Task, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one task at one thread count."""
    source = source_of(task)
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
    parser.add_argument(
        "tasks", nargs="*", choices=[*TASKS, []], help=f"default: {' '.join(NAMES)}"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers-only", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="build and score all anew")
    parser.add_argument("--fresh-edgebm", action="store_true", help="only edgebm anew")
    options = parser.parse_args()
    print(environment(), flush=True)
    for name in options.tasks or NAMES:
        for threads in options.threads:
            result = compare(TASKS[name], threads, options)
            store = FOLDER / f"{name}_{threads}.result.json"
            store.write_text(json.dumps({"environment": environment(), **result}, indent=1))
            print("", table(result), "", verdict(result, TASKS[name].max_drop), sep="\n")


if __name__ == "__main__":
    main()
