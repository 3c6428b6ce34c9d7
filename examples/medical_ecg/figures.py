"""Accuracy, sensitivity and specificity before and after compression, with 95 % intervals.

    python examples/medical_ecg/figures.py MODEL BUNDLE.edgebm TEST.npz [--kinds kinds.npz]

Before is an ONNX file in f32 on ONNX Runtime, or a bundle of the float model; after is the bundle
as a device runs it. TEST.npz holds an array for each input, and labels. It prints a table for the
README. For models of two scores, of which the second is what is looked for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import edgebm
from edgebm.data.significance import mcnemar, wilson
from edgebm.report.read import read_report


def answers(model: Path, samples: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The class of each sample, from an ONNX file or a bundle."""
    count = len(next(iter(samples.values())))
    rows = ({name: each[k : k + 1] for name, each in samples.items()} for k in range(count))
    if model.suffix == ".edgebm":
        with edgebm.load(model) as session:
            name = session.outputs[0].name
            scores = [session.run(row)[name] for row in rows]
    else:
        held = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        scores = [held.run(None, row)[0] for row in rows]
    found: NDArray[np.int64] = np.concatenate(scores).argmax(axis=1)
    return found


def share(right: NDArray[np.bool_]) -> str:
    """`97.59 % (91.6 to 99.3, 81 of 83)`."""
    hits, count = int(right.sum()), len(right)
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.2f} % ({100 * low:.1f} to {100 * high:.1f}, {hits} of {count})"


def table(before: NDArray[Any], after: NDArray[Any], groups: dict[str, Any], truth: Any) -> str:
    lines = ["| | before | after |", "|---|---|---|"]
    for name, chosen in groups.items():
        cells = (share((guess == truth)[chosen]) for guess in (before, after))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    luck = mcnemar(before == truth, after == truth)
    told = f"{luck.lost} lost, {luck.won} won, McNemar p = {luck.p_value:.2g}"
    return "\n".join([*lines, f"| samples | | {told} |"])


def cost(bundle: Path) -> str:
    """Latency and size as `edgebm compress` measured them, in turns with the float model."""
    report = read_report(bundle)
    sides = report["before"], report["after"]
    runs = (f"{side['runtime']} {side['precision']}, {side['threads']} thread" for side in sides)
    times = (f"{side['p50_ms']:.3f} ms" for side in sides)
    sizes = (f"{side['size_bytes'] / 1000:.0f} kB" for side in sides)
    rows = {"runs on": runs, "latency of one sample, p50": times, "size": sizes}
    return "\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help=".onnx, or a bundle that is float")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("test", type=Path, help=".npz with the samples and labels")
    parser.add_argument("--kinds", type=Path, help=".npz with the kind of each test beat")
    parser.add_argument("--json", type=Path, help="write the percentages to this file, too")
    arguments = parser.parse_args()
    with np.load(arguments.test) as file:
        samples = {name: file[name] for name in file}
    labels = samples.pop("labels")
    before, after = (answers(each, samples) for each in (arguments.model, arguments.bundle))
    groups: dict[str, Any] = {
        "accuracy": np.full(len(labels), fill_value=True),
        "sensitivity": labels == 1,
        "specificity": labels == 0,
    }
    if arguments.kinds is not None:
        with np.load(arguments.kinds) as file:
            kinds, names = file["kinds"], file["names"]
        groups |= {f"kind: {name}": kinds == k for k, name in enumerate(names)}
    print(table(before, after, groups, labels))
    print(cost(arguments.bundle))
    if arguments.json:
        found = {
            name: [100 * float((guess == labels)[chosen].mean()) for guess in (before, after)]
            for name, chosen in groups.items()
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
