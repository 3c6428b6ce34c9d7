"""What rounding costs, and what learning and training win back of it.

``python benchmarks/rounding.py`` decides 8-bit and 4-bit weights beside 8-bit values for the
network of ``--model``, and lowers them five times: rounded to the nearest, with biases corrected,
and from there with learned rounding, trained with all rounding in place, and both in turn.
Nothing is shown but unlabelled samples; the test set scores the lowered graphs, simulated in
float. Threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import WORK
from numpy.typing import NDArray

from edgebm.backends.dialects import OPENVINO_CPU
from edgebm.backends.placement import place
from edgebm.backends.qdq import lower
from edgebm.exec.collect import FloatRunner
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.passes.base import Context, Pass
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.distill import Losses
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.passes.qat import Qat
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights

Array = NDArray[Any]
CALIBRATION = 300  # samples that choose ranges; all of them are learned from


class Rows:
    """Samples of one input, one at a time."""

    def __init__(self, name: str, array: Array) -> None:
        self._name, self._array = name, array

    def __len__(self) -> int:
        return len(self._array)

    def feeds(self, start: int = 0, stop: int | None = None) -> Iterable[Mapping[str, Array]]:
        """Each sample [1, ...] by the name of the input."""
        for row in self._array[start:stop]:
            yield {self._name: row[None]}


@dataclass(frozen=True)
class Test:
    """Inputs, classes, and what the float model makes of them."""

    rows: Rows
    labels: Array
    logits: Array

    def figures(self, model: Model) -> str:
        """Accuracy, agreement, KL and SQNR of a lowered graph, as columns of a table."""
        got = answers(model, self.rows, plain=True)
        signal = float((self.logits.astype(np.float64) ** 2).sum())
        noise = float(((self.logits.astype(np.float64) - got) ** 2).sum())
        kl = float((np.exp(logs(self.logits)) * (logs(self.logits) - logs(got))).sum(1).mean())
        agreement = 100 * float((got.argmax(1) == self.logits.argmax(1)).mean())
        return (
            f"{accuracy(got, self.labels):.2f} | {agreement:.2f} | {kl:.5f} | "
            f"{10 * np.log10(signal / noise):.1f}"
        )


def answers(model: Model, rows: Rows, *, plain: bool) -> Array:
    """The first output for every sample, [n, classes]."""
    label = model.graph.graph.outputs[0].name or ""
    runner = FloatRunner(model, [label], plain=plain)
    return np.concatenate([runner.run(feeds)[label] for feeds in rows.feeds()])


def logs(logits: Array) -> Array:
    """Logarithms of probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def accuracy(logits: Array, labels: Array) -> float:
    """Top-1 in percent."""
    return 100 * float((logits.argmax(1) == labels).mean())


def context(model: Model, samples: Rows, training: Rows, seed: int) -> Context:
    """What the steps may use, for the placement of OpenVINO on a CPU."""

    def none(name: str, op_type: str) -> bool:
        return False

    def observe(each: Model) -> frozenset[str]:
        points = place(each, OPENVINO_CPU, none, decided=False).points.values()
        return frozenset(value.name for value in points if value.name)

    def lowered(each: Model) -> Model:
        return lower(each, OPENVINO_CPU, none)[0]

    return Context(
        samples=samples,
        training=training,
        teacher=model,
        observe=observe,
        lower=lowered,
        seed=seed,
    )


def compare(model: Model, bits: int, ctx: Context, test: Test, options: Any) -> None:
    """One block of rows: weights of `bits` and values of 8."""
    decide: list[Pass] = [
        FoldBatchNorm(), QuantizeWeights(bits=bits), QuantizeActivations(observer="mse")
    ]  # fmt: skip
    nearest, seconds = run_passes(model, decide, ctx)
    row(f"w{bits}a8, to the nearest", test.figures(ctx.lower(nearest)), sum(seconds))
    nearest, seconds = run_passes(nearest, [CorrectBias()], ctx)
    row(f"w{bits}a8, biases corrected", test.figures(ctx.lower(nearest)), sum(seconds))
    learn = LearnRounding(seconds=options.seconds)
    train = Qat(
        minutes=options.minutes, steps=options.steps, losses=Losses(features=options.features)
    )
    for name, steps in (
        ("learned rounding", [learn]),
        ("qat", [train]),
        ("learned rounding, then qat", [learn, train]),
    ):
        start = time.perf_counter()
        after, _ = run_passes(nearest, steps, ctx)
        taken = time.perf_counter() - start
        row(f"w{bits}a8, {name}", test.figures(ctx.lower(after)), taken)


def row(name: str, figures: str, seconds: float) -> None:
    """One line of the table."""
    print(f"| {name} | {figures} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=WORK / "cifar10.onnx")
    parser.add_argument("--data", type=Path, default=WORK / "cifar10_calibration_3000.npz")
    parser.add_argument("--eval", type=Path, default=WORK / "cifar10_test.npz")
    parser.add_argument("--images", type=int, default=2000, help="of the test set, at even steps")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4], help="of weights")
    parser.add_argument("--seconds", type=float, default=120.0, help="that rounding is learned")
    parser.add_argument("--minutes", type=float, help="of training; default: 5 without --steps")
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument("--features", type=float, default=1.0, help="weight of values inside")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = import_model(options.model)
    name = model.graph.graph.inputs[0].name or ""
    with np.load(options.data) as data, np.load(options.eval) as held:
        x, stride = data[name], max(1, len(held["labels"]) // options.images)
        tested, labels = Rows(name, held[name][::stride]), held["labels"][::stride]
    logits = answers(model, tested, plain=False)
    test = Test(tested, labels, logits)
    ctx = context(model, Rows(name, x[:CALIBRATION]), Rows(name, x), options.seed)
    print(f"float: {accuracy(logits, labels):.2f} % of {len(labels)} images")
    print("| weights, values | top-1 % | as float % | KL | SQNR dB | seconds |")
    print("|---|---|---|---|---|---|")
    for bits in options.bits:
        compare(model, bits, ctx, test, options)
    for note in ctx.notes:
        print(f"- {note}")


if __name__ == "__main__":
    main()
