"""Train a small single-shot detector of blood cells and write it as an ONNX file.

``python benchmarks/detector.py --data PATH`` leaves in ``benchmarks/out``: detector.onnx (a photo
of 192x144 pixels to ``scores`` [batch, cells, 3], logits of the classes, and ``boxes``
[batch, cells, 4], pixels from the cell's centre to the left, top, right and bottom),
detector_calibration_300.npz, detector_validation.npz and detector_test.npz.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from cells import CellSet, load_cells, normalize
from datasets import WORK, add_data_option, data_folder
from detection import HEIGHT, STRIDES, WIDTH, centres, mean_average_precision
from nets import CellDetector
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from train import export

LARGE = 44.0  # pixels: boxes with a longer side belong to the coarser grid
MOST_BOXES = 40
BATCH = 16


def view(
    cells: CellSet, index: int, window: tuple[float, float, float], *, flip: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """One photograph seen through a window (left, top, width), scaled to the net's input.

    Returns the pixels [3, h, w] as uint8 values in float, and its boxes [k, 5] with the class
    last; boxes that lose more than half of their area at the border are left out.
    """
    left, top, width = (round(value) for value in window)
    height = width * HEIGHT // WIDTH
    pixels = torch.from_numpy(cells.images[index][top : top + height, left : left + width])
    image = functional.interpolate(
        pixels.permute(2, 0, 1)[None].float(), (HEIGHT, WIDTH), mode="bilinear", antialias=True
    )[0]
    scale = WIDTH / width
    boxes = (torch.from_numpy(cells.boxes[index]) - torch.tensor([left, top, left, top])) * scale
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    limits = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT], dtype=torch.float32)
    boxes = boxes.clamp(min=0).minimum(limits)
    kept = (boxes[:, 2:] - boxes[:, :2]).prod(1) > 0.5 * whole
    for axis, mirrored in enumerate(flip):
        if mirrored:
            image = image.flip(2 - axis)
            low, high = boxes[:, axis].clone(), boxes[:, axis + 2].clone()
            boxes[:, axis], boxes[:, axis + 2] = limits[axis] - high, limits[axis] - low
    labels = torch.from_numpy(cells.classes[index])[:, None].float()
    return image, torch.cat([boxes, labels], 1)[kept]


def whole_views(cells: CellSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Photographs as a whole: inputs [n, 3, h, w] and truths [n, 40, 5], class -1 for none."""
    width = cells.images.shape[2]
    images, truths = [], np.full((len(cells.boxes), MOST_BOXES, 5), -1, np.float32)
    for index in range(len(cells.boxes)):
        image, boxes = view(cells, index, (0, 0, width), flip=(False, False))
        images.append(image.permute(1, 2, 0).round().to(torch.uint8).numpy())
        truths[index, : len(boxes)] = boxes.numpy()
    return normalize(np.stack(images)), truths


def random_view(cells: CellSet, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random window of a random photograph, mirrored and with changed contrast."""
    height, full = cells.images.shape[1:3]
    width = generator.uniform(0.7, 1.0) * full
    left = generator.uniform(0, full - width)
    top = generator.uniform(0, height - width * HEIGHT / WIDTH)
    flip = (bool(generator.random() < 0.5), bool(generator.random() < 0.5))
    index = int(generator.integers(len(cells.boxes)))
    image, boxes = view(cells, index, (left, top, width), flip=flip)
    gain, offset = generator.uniform(0.8, 1.2), generator.uniform(-10, 10)
    return ((image - 180) * gain + 180 + offset).clamp(0, 255), boxes


def assign(boxes: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Class of each cell (-1: background) [cells] and the corners it should give [cells, 4].

    A cell is positive for the smallest box of its scale whose centre is within one stride.
    """
    labels = torch.full((len(cells),), -1, dtype=torch.long)
    corners = torch.zeros(len(cells), 4)
    sides = boxes[:, 2:4] - boxes[:, :2]
    for index in torch.argsort(sides.prod(1), descending=True).tolist():
        stride = STRIDES[int(sides[index].max() > LARGE)]
        middle = (boxes[index, :2] + boxes[index, 2:4]) / 2
        near = ((cells[:, :2] - middle).abs().amax(1) < stride) & (cells[:, 2] == stride)
        labels[near], corners[near] = int(boxes[index, 4]), boxes[index, :4]
    return labels, corners


def loss_of(scores: Tensor, boxes: Tensor, labels: Tensor, corners: Tensor) -> Tensor:
    """Focal loss (Lin et al., 2017, eq. 5) and generalized IoU (Rezatofighi et al., 2019)."""
    cells = torch.from_numpy(centres())
    wanted = functional.one_hot(labels.clamp(min=0), scores.shape[-1]).float()
    wanted = wanted * (labels >= 0)[..., None]
    plain = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    right = torch.where(wanted > 0, scores.sigmoid(), 1 - scores.sigmoid())
    weight = torch.where(wanted > 0, 0.4, 0.6) * (1 - right) ** 2
    positive = labels >= 0
    middle = cells[:, :2].expand(*labels.shape, 2)[positive]
    got = torch.cat([middle - boxes[positive][:, :2], middle + boxes[positive][:, 2:]], 1)
    count = positive.sum().clamp(min=1)
    return (weight * plain).sum() / count + 1.5 * (
        1 - overlap(got, corners[positive])
    ).sum() / count


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Generalized intersection over union of pairs of boxes [n, 4] as [n], from -1 to 1."""
    shared = (first[:, 2:].minimum(second[:, 2:]) - first[:, :2].maximum(second[:, :2])).clamp(
        min=0
    )
    hull = (first[:, 2:].maximum(second[:, 2:]) - first[:, :2].minimum(second[:, :2])).clamp(min=0)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (first, second)]
    union = areas[0] + areas[1] - shared.prod(1)
    outer = hull.prod(1).clamp(min=1e-6)
    return shared.prod(1) / union.clamp(min=1e-6) - (outer - union) / outer


def fit(cells: CellSet, minutes: float, seed: int) -> CellDetector:
    """Train from scratch for about ``minutes`` of this machine; prints the loss."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    net, points = CellDetector(3), torch.from_numpy(centres())
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-3)
    begin, step, total = time.perf_counter(), 0, 0.0
    while (spent := (time.perf_counter() - begin) / (60 * minutes)) < 1:
        rate = 3e-3 * min(1.0, spent / 0.05, 1.02 - spent)
        for group in optimizer.param_groups:
            group["lr"] = rate
        views = [random_view(cells, generator) for _ in range(BATCH)]
        targets = [assign(boxes, points) for _, boxes in views]
        images = (torch.stack([image for image, _ in views]) - 180) / 25
        scores, boxes = net(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(scores, boxes, *(torch.stack(part) for part in zip(*targets, strict=True)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        step, total = step + 1, total + float(loss.detach())
        if step % 50 == 0:
            print(f"detector step {step} ({spent:.0%}) loss {total / 50:.3f}", flush=True)
            total = 0.0
    return net.eval()


def main() -> None:
    """Train, test, and write the model and its samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=8.0)
    add_data_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = load_cells(data_folder(options.data))
    for part, name in (("train", "calibration_300"), ("val", "validation"), ("test", "test")):
        images, truths = whole_views(parts[part])
        labels = {} if part == "train" else {"labels": truths}
        np.savez(WORK / f"detector_{name}.npz", image=images, **labels)
    net = fit(parts["train"], options.minutes, options.seed)
    images, truths = whole_views(parts["test"])
    with torch.inference_mode():
        scores, boxes = net(torch.from_numpy(images))
    found = mean_average_precision(list(scores.numpy()), list(boxes.numpy()), truths)
    export(net, WORK / "detector.onnx", (3, HEIGHT, WIDTH), ("scores", "boxes"))
    print(f"detector: mAP@0.5 {found:.2f} on {len(images)} photographs", flush=True)


if __name__ == "__main__":
    main()
