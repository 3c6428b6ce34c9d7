"""Trains a small residual CNN that finds pneumonia in chest X-rays of 28x28 pixels.

    python examples/medical_xray/train.py --data DATA --out xray

DATA (or the environment variable EDGEBM_DATA) is the folder that holds
`pneumonia_xray/pneumoniamnist.npz`. It writes `xray.onnx` and the samples to compress with:
`calibration.npz` (training images) and `test.npz` (images that training has not seen, labelled).

The model takes `image`, float32 [N, 1, 28, 28] with gray values 0 to 255 as the files have them,
and gives `scores`, float32 [N, 2]: normal, pneumonia.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SEED = 0
EPOCHS, BATCH, RATE, WIDTH = 8, 64, 4e-3, 32
CALIBRATION = 300


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Stage(nn.Module):
    """A convolution that changes the width and may halve the picture, then a residual block."""

    def __init__(self, given: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.block = Residual(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(torch.relu(self.norm(self.conv(x))))


class XrayCnn(nn.Module):
    """Three stages at 28, 14 and 7 pixels, mean over the picture, one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stage1 = Stage(1, width, 1)
        self.stage2 = Stage(width, 2 * width, 2)
        self.stage3 = Stage(2 * width, 4 * width, 2)
        self.head = nn.Linear(4 * width, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image / 127.5 - 1
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(x.mean(dim=(2, 3)))


def moved(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Each image moved by up to two pixels along both axes, and a little brighter or darker."""
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    moves = torch.randint(0, 5, (2, len(images), 1, 1), generator=random)
    rows, columns = moves[0] + torch.arange(28)[:, None], moves[1] + torch.arange(28)
    chosen = padded[torch.arange(len(images))[:, None, None], 0, rows, columns][:, None]
    gain = 0.9 + 0.2 * torch.rand(len(images), 1, 1, 1, generator=random)
    return (chosen * gain).clamp(0, 255)


def train(
    model: nn.Module,
    images: dict[str, torch.Tensor],
    labels: dict[str, torch.Tensor],
    epochs: int,
) -> None:
    """Keeps the weights of the epoch with the lowest loss on the validation images."""
    random = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    batches = -(-len(images["train"]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * batches)
    best, kept = float("inf"), model.state_dict()
    for epoch in range(epochs):
        model.train()
        for index in torch.randperm(len(images["train"]), generator=random).split(BATCH):
            scores = model(moved(images["train"][index], random))
            loss = functional.cross_entropy(scores, labels["train"][index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            held_out = float(functional.cross_entropy(model(images["val"]), labels["val"]))
        if held_out < best:
            best = held_out
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        print(f"epoch {epoch + 1}: validation loss {held_out:.4f}", flush=True)
    model.load_state_dict(kept)


def export(model: nn.Module, path: Path) -> None:
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 1, 28, 28),),
        str(path),
        dynamo=True,
        optimize=False,  # names of weights stay
        external_data=False,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("EDGEBM_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of the first stage")
    parser.add_argument("--limit", type=int, help="only so many images of each part, to try it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    images, labels = {}, {}
    with np.load(arguments.data / "pneumonia_xray" / "pneumoniamnist.npz") as file:
        for part in ("train", "val", "test"):
            order = random.permutation(len(file[f"{part}_labels"]))[: arguments.limit]
            pixels = file[f"{part}_images"][order, None]
            images[part] = torch.tensor(pixels, dtype=torch.float32)
            labels[part] = torch.tensor(file[f"{part}_labels"][order, 0].astype(np.int64))
    model = XrayCnn(arguments.width)
    train(model, images, labels, arguments.epochs)
    export(model, arguments.out / "xray.onnx")
    calibration = images["train"].numpy()[:CALIBRATION]
    np.savez_compressed(arguments.out / "calibration.npz", image=calibration)
    np.savez_compressed(
        arguments.out / "test.npz", image=images["test"].numpy(), labels=labels["test"].numpy()
    )
    counts = ", ".join(f"{len(each)} {part}" for part, each in images.items())
    print(f"{arguments.out / 'xray.onnx'}: {counts} images")


if __name__ == "__main__":
    main()
