"""INT8 on the model-zoo graphs that come inside the onnx wheel, with seeded He-normal weights.

The wheel's "light" graphs have every weight constant, so they are replaced: weights He-normal
(He et al. 2015, arXiv:1502.01852), BatchNorm mean 0, variance 1, scale 1, other vectors 0.
Prints the SQNR of the class scores against float on both runtimes, and of the probabilities
behind the softmax. With such weights scores reach thousands and the softmax is a hard choice of
one class: a score that moves by 1 % can move a probability by 1. So the scores are what counts.

    python benchmarks/zoo.py [--only squeezenet] [--samples 4]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgebm.backends.dialects import cpu_dialects
from edgebm.backends.qdq import lower
from edgebm.data.agreement import sqnr_db
from edgebm.importers import import_model
from edgebm.ir.edit import const
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.recipe import load_recipe
from edgebm.search.build import BUILD
from edgebm.search.candidates import Artifact, Candidate, Face
from edgebm.search.job import Options
from edgebm.search.prepare import prepare
from edgebm.search.runner import Runner
from edgebm.search.target import Search
from edgebm.spec import EngineConfig
from edgebm.target import host_target

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def graphs(only: str = "") -> Iterator[Path]:
    """The light graphs, smallest name first."""
    return (path for path in sorted(LIGHT.glob("*.onnx")) if only in path.name)


def he_normal(model: Model, seed: int = 0) -> Model:
    """A copy of `model` with its constant weights drawn anew."""
    out, rng = model.clone(), np.random.default_rng(seed)
    for node in out.nodes():
        for index, value in enumerate(node.inputs):
            old = const(value)
            if value is None or old is None or old.dtype != np.float32:
                continue
            value.const_value = ir.tensor(_fresh(node, index, old, rng), name=value.name)
    return out


def _fresh(node: ir.Node, index: int, old: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if node.op_type == "BatchNormalization":
        return np.full(old.shape, 1.0 if index in (1, 4) else 0.0, np.float32)
    if node.op_type in {"Conv", "Gemm", "MatMul"} and index == 1:
        trans = node.attributes.get_int("transB", 0) if node.op_type == "Gemm" else 0
        fan_in = old[0].size if node.op_type == "Conv" or trans else old.shape[0]
        return (rng.normal(size=old.shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    if node.op_type in {"Conv", "Gemm"} and index == 2:
        return np.zeros(old.shape, np.float32)
    return old


def with_scores(model: Model) -> Model:
    """A copy whose first output is the input of the softmax at its end, if it has one."""
    out = model.clone()
    graph = out.graph.graph
    last = graph.outputs[0].producer()
    if last is not None and last.op_type == "Softmax" and last.inputs[0] is not None:
        graph.outputs.insert(0, last.inputs[0])
    return out


def sqnr_by_runtime(path: Path, samples: int, seed: int = 0) -> dict[str, list[float]]:
    """SQNR in dB of each output of the INT8 artifact on each CPU runtime, scores first."""
    model = with_scores(he_normal(import_model(path), seed))
    specs = Face(*(tuple(side) for side in face(model)))
    rng = np.random.default_rng(seed)
    data = [
        {s.name: rng.normal(size=[1 if isinstance(d, str) else d for d in s.shape]).astype(s.dtype)
         for s in specs.inputs}
        for _ in range(samples)
    ]  # fmt: skip
    job = prepare(model, load_recipe("int8"), Options(), data=data)
    search = Search(job, host_target(), lambda step, done, total: None)
    decided = search.decisions.passes()
    grid = search.decisions.grids(decided)[0]
    found = {}
    for runtime in search.target.runtimes:
        lowered, _ = lower(decided, cpu_dialects(runtime, grid)[0], job.is_ignored)
        pair = [
            Candidate(
                Artifact(runtime, kind, BUILD[runtime](graph), graph), EngineConfig(threads=2)
            )
            for kind, graph in (("float", model), ("int8", lowered))
        ]
        answers = []
        for candidate in pair:
            with Runner(candidate, specs) as runner:
                answers.append([runner.run(feeds) for feeds in data])
        found[runtime] = [
            sqnr_db(*(np.stack([a[s.name] for a in side]) for side in answers))
            for s in specs.outputs
        ]
    return found


def main() -> int:
    """Print the table; exit 1 when the scores of a graph are below 20 dB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a file name")
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    print("| graph | OpenVINO int8: scores (softmax) | ONNX Runtime int8 | seconds |")
    print("|---|---|---|---|", flush=True)
    worst = np.inf
    for path in graphs(arguments.only):
        start = time.perf_counter()
        found = sqnr_by_runtime(path, arguments.samples)
        worst = min(worst, *(values[0] for values in found.values()))
        cells = " | ".join(
            f"{values[0]:.1f} dB ({values[-1]:.1f})"
            for values in (found["openvino"], found["onnxruntime"])
        )
        print(f"| {path.stem} | {cells} | {time.perf_counter() - start:.0f} |", flush=True)
    return int(worst < 20.0)


if __name__ == "__main__":
    sys.exit(main())
