"""Train a network that measures blood cells in several units and write it as an ONNX file.

``python benchmarks/gauge.py --data PATH`` leaves in ``benchmarks/out``: gauge.onnx (a picture of
56x56 pixels to ``measures`` [batch, 5]), gauge_calibration_300.npz, gauge_validation.npz and
gauge_test.npz. The five stand in one tensor and differ by six decades: where the cell's centre
is, as a fraction of the picture (x and y, some hundredths), its optical density (some tenths), its
diameter (a hundred pixels of the photograph) and its area (ten thousand square pixels).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from cells import SCALE, CellSet, load_cells, normalize
from datasets import WORK, add_data_option, data_folder
from gauge_score import QUANTITIES, SIDE, explained
from nets import CellGauge
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from train import export

REACH = 0.1  # of the picture: how far from its middle a cell may be
Array = NDArray[np.float32]


def pictures(cells: CellSet, repeats: int, seed: int) -> tuple[NDArray[np.uint8], Array]:
    """Each cell whose picture fits into its photograph, ``repeats`` times, and its measures."""
    generator = np.random.default_rng(seed)
    images, measures = [], []
    for photo, boxes in zip(cells.images, cells.boxes, strict=True):
        for box in np.repeat(boxes, repeats, axis=0):
            offset = generator.uniform(-REACH, REACH, 2)
            corner = np.rint((box[:2] + box[2:]) / 2 - 2 * SIDE * (0.5 + offset)).astype(int)
            left, top = corner
            if not (
                0 <= left <= photo.shape[1] - 2 * SIDE and 0 <= top <= photo.shape[0] - 2 * SIDE
            ):
                continue
            window = photo[top : top + 2 * SIDE, left : left + 2 * SIDE]
            images.append(window.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).round())
            measures.append(measure(photo, box, corner))
    return np.stack(images).astype(np.uint8), np.array(measures, np.float32)


def measure(photo: NDArray[np.uint8], box: Array, corner: NDArray[np.int64]) -> list[float]:
    """The five quantities of the cell in ``box``; the picture begins at ``corner``."""
    middle = ((box[:2] + box[2:]) / 2 - corner) / (2 * SIDE) - 0.5
    x0, y0, x1, y1 = np.rint(box).astype(int)
    light = float(photo[y0:y1, x0:x1, 1].mean()) / 255
    width, height = (box[2:] - box[:2]) / SCALE
    area = float(np.pi / 4 * width * height)
    return [*map(float, middle), -float(np.log10(light)), float(np.sqrt(width * height)), area]


def fit(images: Tensor, measures: Tensor, epochs: int, seed: int) -> CellGauge:
    """Train on standardized measures; the answer's last layer then gives them in their units."""
    torch.manual_seed(seed)
    net = CellGauge(len(QUANTITIES))
    mean, deviation = measures.mean(0), measures.std(0)
    wanted, batch = (measures - mean) / deviation, 64
    steps = len(images) // batch
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps * epochs)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images))[: steps * batch].split(batch):
            loss = functional.smooth_l1_loss(net(images[chosen]), wanted[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(f"gauge epoch {epoch + 1}/{epochs} loss {total / steps:.4f}", flush=True)
    with torch.no_grad():
        net.answer.weight *= deviation[:, None]
        net.answer.bias.copy_(net.answer.bias * deviation + mean)
    return net.eval()


def main() -> None:
    """Train, test, and write the model and its samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=16)
    add_data_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = load_cells(data_folder(options.data))
    seen, measures = pictures(parts["train"], 6, options.seed)
    order = np.random.default_rng(options.seed).permutation(len(seen))[:300]
    np.savez(WORK / "gauge_calibration_300.npz", image=normalize(seen[order]))
    for part, name, repeats in (("val", "validation", 1), ("test", "test", 4)):
        images, labels = pictures(parts[part], repeats, options.seed + 1)
        np.savez(WORK / f"gauge_{name}.npz", image=normalize(images), labels=labels)
    net = fit(
        torch.from_numpy(normalize(seen)), torch.from_numpy(measures), options.epochs, options.seed
    )
    with torch.inference_mode():
        answers = net(torch.from_numpy(normalize(images))).numpy()
    export(net, WORK / "gauge.onnx", (3, SIDE, SIDE), ("measures",))
    each = {
        q: round(explained(answers[:, [i]], labels[:, [i]]), 1) for i, q in enumerate(QUANTITIES)
    }
    print(f"gauge: {explained(answers, labels):.2f} % of the variance of {len(labels)}: {each}")
    print("sizes", np.abs(labels).mean(0), flush=True)


if __name__ == "__main__":
    main()
