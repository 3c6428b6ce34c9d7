"""Make a network hard to quantize without changing what it computes.

``python benchmarks/hard.py`` reads cifar10.onnx in ``benchmarks/out`` and writes hard.onnx, and
cifar10's samples under the name hard. Between each pair Conv, Relu, Conv every channel is
multiplied by its own factor, from 1 to 1,000 and log-uniform, and divided by it in the weights
behind: a Relu lets a positive factor through, so the function is the same. One scale per tensor
then has to serve channels a thousand times apart.
"""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import onnx
import onnxruntime as ort
from datasets import WORK
from numpy.typing import NDArray
from onnx import numpy_helper

SPREAD = 1000.0
TOLERANCE = 1e-3  # of the largest logit: rounding in float32
SAMPLES = ("calibration_300", "validation", "test")


class Weights:
    """The initializers of a graph as arrays that can be replaced."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._slots = {tensor.name: tensor for tensor in graph.initializer}

    def scale(self, name: str, factors: NDArray[np.float64], axis: int) -> None:
        """Multiply along ``axis`` [channels]; the initializer must have no other reader."""
        readers = sum(list(node.input).count(name) for node in self._graph.node)
        if readers != 1:
            raise SystemExit(f"{name} is read {readers} times; scaling it would change the net")
        array = numpy_helper.to_array(self._slots[name])
        shape = [-1 if index == axis else 1 for index in range(array.ndim)]
        scaled = (array * factors.reshape(shape)).astype(np.float32)
        self._slots[name].CopyFrom(numpy_helper.from_array(scaled, name))


def rescale(model: onnx.ModelProto, seed: int) -> int:
    """Rescale the channels of every pair in place; the number of pairs."""
    graph, pairs = model.graph, 0
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    weights = Weights(graph)
    generator = np.random.default_rng(seed)
    for relu in (node for node in graph.node if node.op_type == "Relu"):
        affine, after = makers.get(relu.input[0]), readers.get(relu.output[0], [])
        alone = len(readers[relu.input[0]]) == 1 and len(after) == 1
        if not alone or affine is None or after[0].op_type != "Conv":
            continue
        if affine.op_type not in ("Conv", "BatchNormalization"):
            continue
        second = after[0].input[1]
        count = next(t for t in graph.initializer if t.name == second).dims[1]
        factors = SPREAD ** generator.uniform(0, 1, count)
        for name in affine.input[1:3]:  # weight and bias, or gamma and beta
            weights.scale(name, factors, axis=0)
        weights.scale(second, 1 / factors, axis=1)
        pairs += 1
    return pairs


def difference(images: NDArray[np.float32], origin: str, changed: str) -> float:
    """The largest difference of the logits of two models, over the largest one of the first."""
    plain, hard = (
        ort.InferenceSession(WORK / f"{name}.onnx", providers=["CPUExecutionProvider"]).run(
            None, {"image": images}
        )[0]
        for name in (origin, changed)
    )
    return float(np.abs(plain - hard).max() / np.abs(plain).max())


def main() -> None:
    """Write the model, its samples, and prove that the function is the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--origin", default="cifar10", help="the network in benchmarks/out")
    options = parser.parse_args()
    model = onnx.load(WORK / f"{options.origin}.onnx")
    pairs = rescale(model, options.seed)
    onnx.save(model, WORK / "hard.onnx")
    for name in SAMPLES:
        shutil.copyfile(WORK / f"{options.origin}_{name}.npz", WORK / f"hard_{name}.npz")
    with np.load(WORK / "hard_calibration_300.npz") as samples:
        changed = difference(samples["image"], options.origin, "hard")
    if not pairs or changed > TOLERANCE:
        raise SystemExit(f"{pairs} pairs, and the logits changed by {changed:.1e}")
    print(f"hard: {pairs} pairs rescaled, logits changed by {changed:.1e} of the largest")


if __name__ == "__main__":
    main()
