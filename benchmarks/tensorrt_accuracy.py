"""What the files for TensorRT cost in accuracy, computed on a CPU, beside other runtimes.

``python benchmarks/tensorrt_accuracy.py [TASK ...]`` compresses each model once, with 300 samples
without labels, for a Jetson and for a CPU with VNNI, every candidate in one bundle. The files of
TensorRT are then computed in FP32 with every FP16 value rounded to FP16 explicitly and integers by
their Q and DQ nodes; what a GPU adds to that is the order of its sums. No GPU is used, and nothing
is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import WORK
from numpy.typing import NDArray
from tasks import TASKS, Task, answers

import edgebm
from edgebm.backends.half_simulation import in_f32, read_model
from edgebm.backends.tensorrt.lint import lint
from edgebm.backends.tensorrt.versions import KNOWN
from edgebm.runtime.built import Built, bound, built_of, fill
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.spec import EngineConfig, Variant

TARGETS = ("jetson-orin-nano", "cpu-x86-vnni")
Outputs = Mapping[str, NDArray[Any]]


def compressed(task: Task, recipe: str) -> Bundle:
    """The bundle with every candidate, made if it is not there."""
    path = WORK / "tensorrt" / f"{task.name}-{recipe}.edgebm"
    path.parent.mkdir(parents=True, exist_ok=True)
    edgebm.compress(
        str(task.model),
        target=TARGETS,
        recipe=recipe,
        data=str(task.samples("calibration_300")),
        out=path,
        threads=1,
        measure_s=1.0,
        all_candidates=True,
        force=True,
    )
    return read_bundle(path)


def built(bundle: Bundle, variant: Variant) -> Built:
    """What answers here: the file itself, or for TensorRT its simulation."""
    given = built_of(bundle, variant)
    if variant.runtime != "tensorrt":
        return given
    content = in_f32(read_model(given.files["model.onnx"])).to_bytes()
    config = EngineConfig(settings={"emulate": "1"})
    return Built("onnxruntime", {"model.onnx": content}, config, given.inputs, given.outputs)


def asked(made: Built, inputs: Outputs) -> Outputs:
    """The answers to all samples [n, ...], one at a time."""
    engine = made.open()
    requests: dict[tuple[Any, ...], Any] = {}

    def run(feeds: Outputs) -> Outputs:
        key = tuple(array.shape for array in feeds.values())
        if key not in requests:
            requests[key] = bound(engine, made.inputs, feeds)
        fill(requests[key], made.inputs, feeds)
        requests[key].infer()
        pairs = zip(made.outputs, requests[key].outputs, strict=True)
        return {spec.name: np.array(array) for spec, array in pairs}

    found = answers(run, inputs)
    engine.close()
    return found


def sqnr_db(want: Outputs, got: Outputs) -> float:
    """Of the worst output, in dB."""
    worst = np.inf
    for name, one in want.items():
        noise = float(((one.astype(np.float64) - got[name]) ** 2).sum())
        signal = float((one.astype(np.float64) ** 2).sum())
        worst = min(worst, 10 * np.log10(signal / noise) if noise else np.inf)
    return float(worst)


def agreement(task: Task, one: Outputs, other: Outputs) -> str:
    """Share of the same classes, or the SQNR of one as the other's noise."""
    if not task.is_top1:
        return f"{sqnr_db(one, other):.1f} dB"
    (a,), (b,) = one.values(), other.values()
    same = (a.reshape(len(a), -1).argmax(-1) == b.reshape(len(b), -1).argmax(-1)).mean()
    return f"{100 * same:.2f} %"


def wanted(bundle: Bundle) -> list[Variant]:
    """TensorRT's candidates, and the first INT8 one of each CPU runtime."""
    found, seen = [], set()
    for variant in bundle.manifest.candidates:
        cpu = variant.runtime != "tensorrt"
        if cpu and (variant.runtime in seen or not variant.precision.startswith("int8")):
            continue
        seen.add(variant.runtime)
        found.append(variant)
    return sorted(found, key=lambda v: (v.runtime != "tensorrt", v.precision != "f32"))


def show(task: Task, recipe: str) -> None:
    """One task's table."""
    bundle = compressed(task, recipe)
    inputs, labels = task.read("test")
    outputs, rows = {}, []
    for variant in wanted(bundle):
        outputs[variant.id] = asked(built(bundle, variant), inputs)
    floats = next(v for v in outputs if "/tensorrt/f32/" in v)
    before = task.value(outputs[floats], labels)
    integer = next((v for v in outputs if "/tensorrt/int8" in v), floats)
    for variant in wanted(bundle):
        value = task.value(outputs[variant.id], labels)
        size = sum(len(content) for content in bundle.files(variant).values())
        parity = agreement(task, outputs[integer], outputs[variant.id])
        rows.append(
            f"| {variant.runtime} {variant.precision} | {value:.2f} | {value - before:+.2f} | "
            f"{sqnr_db(outputs[floats], outputs[variant.id]):.1f} | {parity} | "
            f"{size / 1e6:.2f} | {notes(bundle, variant)} |"
        )
    print(f"\n{task.name} ({task.metric}, {len(labels)} labels, recipe {recipe})\n")
    print("| candidate | metric | against f32 | SQNR dB | same as TensorRT int8 | MB | linter |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows), flush=True)


def notes(bundle: Bundle, variant: Variant) -> str:
    """How many findings the linter has, of all versions, and how many nodes are FP32."""
    if variant.runtime != "tensorrt":
        return "-"
    model = read_model(bundle.files(variant)["model.onnx"])
    return f"{len({f for version in KNOWN for f in lint(model, version)})} findings"


def main() -> None:
    """The table of every task that is named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], default=[])
    parser.add_argument("--recipe", default="int8")
    given = parser.parse_args()
    for name in given.tasks or TASKS:
        show(TASKS[name], given.recipe)


if __name__ == "__main__":
    main()
