"""Shift values far from zero without changing what a network computes.

``python benchmarks/offset.py`` reads gtsrb.onnx in ``benchmarks/out`` and writes offset.onnx, and
gtsrb's samples under the name offset. Where a convolution without activation is read by one 1x1
convolution only, a constant is added to all of its output channels and taken out again in the bias
behind. An integer grid covers zero, so nearly all of its levels lie where no value is; factors
per channel do not help, and the layer that reads such a value has to stay in float.
"""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import onnx
from datasets import WORK
from hard import SAMPLES, TOLERANCE, difference
from onnx import numpy_helper

OFFSET = 1500.0


def shift(model: onnx.ModelProto, offset: float) -> int:
    """Shift the values between every such pair in place; the number of pairs."""
    graph, pairs = model.graph, 0
    slots = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for first in (node for node in graph.node if node.op_type == "Conv"):
        behind = readers.get(first.output[0], [])
        if len(behind) != 1 or behind[0].op_type != "Conv" or len(first.input) < 3:
            continue
        second = behind[0]
        weight = numpy_helper.to_array(slots[second.input[1]]).astype(np.float64)
        if weight.shape[2:] != (1, 1) or len(second.input) < 3:
            continue
        changes = {first.input[2]: offset, second.input[2]: -offset * weight.sum(axis=(1, 2, 3))}
        for name, change in changes.items():
            moved = numpy_helper.to_array(slots[name]) + change
            slots[name].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), name))
        pairs += 1
    return pairs


def main() -> None:
    """Write the model, its samples, and prove that the function is the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offset", type=float, default=OFFSET)
    options = parser.parse_args()
    model = onnx.load(WORK / "gtsrb.onnx")
    pairs = shift(model, options.offset)
    onnx.save(model, WORK / "offset.onnx")
    for name in SAMPLES:
        shutil.copyfile(WORK / f"gtsrb_{name}.npz", WORK / f"offset_{name}.npz")
    with np.load(WORK / "offset_calibration_300.npz") as samples:
        changed = difference(samples["image"], "gtsrb", "offset")
    if not pairs or changed > TOLERANCE:
        raise SystemExit(f"{pairs} pairs, and the logits changed by {changed:.1e}")
    print(f"offset: {pairs} pairs shifted, logits changed by {changed:.1e} of the largest")


if __name__ == "__main__":
    main()
