"""Train the image classifiers of the benchmarks and write them as ONNX files.

``python benchmarks/train.py gtsrb cifar10 exposure --data PATH`` leaves in ``benchmarks/out``,
for each name: NAME.onnx, NAME_calibration_300.npz, NAME_calibration_3000.npz,
NAME_validation.npz (images it was not trained on) and NAME_test.npz;
``--samples-only`` writes the samples again and leaves the model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import (
    WORK,
    Dataset,
    add_data_option,
    cifar10,
    data_folder,
    exposure,
    gtsrb,
    write_samples,
    write_validation,
)
from nets import CifarResNet, ExposureNet, MobileNetV2Small
from torch import Tensor, nn
from torch.nn import functional

OPSET = 20


@dataclass(frozen=True)
class Job:
    """How one network is trained: one-cycle SGD with label smoothing.

    The first ``small_epochs`` see the images at 24x24, which halves their cost; the last
    ``full_epochs`` see 32x32. With ``bf16`` convolutions are multiplied in it.
    """

    load: Callable[[Path], Dataset]
    net: Callable[[int], nn.Module]
    small_epochs: int
    full_epochs: int
    batch: int
    peak_rate: float
    flip: bool
    bf16: bool = False


JOBS = {
    "gtsrb": Job(gtsrb, MobileNetV2Small, 8, 3, batch=128, peak_rate=0.15, flip=False),
    "exposure": Job(exposure, ExposureNet, 6, 2, batch=128, peak_rate=0.1, flip=False),
    "cifar10": Job(cifar10, partial(CifarResNet, blocks=3), 5, 1, 128, 0.25, flip=True),
    "resnet56": Job(
        cifar10, partial(CifarResNet, blocks=9), 10, 4, 128, 0.2, flip=True, bf16=True
    ),
}


def split_by_group(dataset: Dataset, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train and to validate on; images of one track stay on one side."""
    groups = dataset.train.groups
    unique = np.unique(groups)
    generator = np.random.default_rng(seed)
    if len(unique) < 1000:
        order = generator.permutation(len(groups))
        held = np.zeros(len(groups), dtype=bool)
        held[order[: int(fraction * len(groups))]] = True
    else:
        held = np.isin(groups, generator.permutation(unique)[: int(fraction * len(unique))])
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))


SMALL = 24


def augment(images: Tensor, *, flip: bool) -> Tensor:
    """Shift each image by up to 4 pixels and, if ``flip``, mirror half of them; [n, 3, h, w]."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (4, 4, 4, 4), mode="reflect")
    rows = torch.randint(0, 9, (count, 1)) + torch.arange(height)
    columns = torch.randint(0, 9, (count, 1)) + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(count)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent."""
    net.eval()
    hits = sum(
        int((net(x).argmax(1) == y).sum())
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    net.train()
    return 100 * hits / len(labels)


def fit(job: Job, dataset: Dataset, seed: int) -> nn.Module:
    """Train from scratch; prints loss and validation accuracy of each epoch."""
    torch.manual_seed(seed)
    images = torch.from_numpy(dataset.normalize(dataset.train.images))
    labels = torch.from_numpy(dataset.train.labels)
    train, held = split_by_group(dataset, 0.05, seed)
    net = job.net(dataset.classes).to(memory_format=torch.channels_last)
    steps, epochs = len(train) // job.batch, job.small_epochs + job.full_epochs
    optimizer = torch.optim.SGD(
        net.parameters(), lr=job.peak_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, job.peak_rate, total_steps=steps * epochs, pct_start=0.25
    )
    for epoch in range(epochs):
        begin = time.perf_counter()
        total = 0.0
        for chosen in train[torch.randperm(len(train))][: steps * job.batch].split(job.batch):
            x = augment(images[chosen], flip=job.flip)
            if epoch < job.small_epochs:
                x = functional.interpolate(x, (SMALL, SMALL), mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=job.bf16):
                logits = net(x)
            loss = functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"{dataset.name} epoch {epoch + 1}/{epochs} loss {total / steps:.3f} "
            f"validation {accuracy(net, images[held], labels[held]):.2f} % "
            f"in {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    return net


def export(
    net: nn.Module,
    path: Path,
    sample: tuple[int, ...] = (3, 32, 32),
    outputs: tuple[str, ...] = ("logits",),
) -> None:
    """Write ``net`` as ONNX: input ``image`` [batch, *sample], outputs named ``outputs``."""
    torch.onnx.export(
        net.eval().to(memory_format=torch.contiguous_format),
        (torch.zeros(2, *sample),),
        str(path),
        input_names=["image"],
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def run(name: str, data: Path, seed: int, *, samples_only: bool) -> None:
    """Train, test, and write the model and its samples."""
    job = JOBS[name]
    dataset = job.load(data)
    held = split_by_group(dataset, 0.05, seed)[1].numpy()
    written = [*write_samples(dataset), write_validation(dataset, held)]
    if not samples_only:
        net = fit(job, dataset, seed)
        test = torch.from_numpy(dataset.normalize(dataset.test.images))
        score = accuracy(net, test, torch.from_numpy(dataset.test.labels))
        export(net, WORK / f"{name}.onnx")
        print(f"{name}: {score:.2f} % of {len(test)} test images")
        written.append(WORK / f"{name}.onnx")
    print("wrote", *written, sep="\n  ", flush=True)


def main() -> None:
    """Parse the options and train what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples-only", action="store_true")
    add_data_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.names:
        run(name, data_folder(options.data), options.seed, samples_only=options.samples_only)


if __name__ == "__main__":
    main()
