"""Trains the three models of `edgebm demo` on scikit-learn's handwritten digits.

    pip install "edgebm[train]" scikit-learn
    python examples/digits/train.py --out edgebm/demo

It writes `digits_cnn.onnx`, `digits_transformer.onnx`, `digits_lstm.onnx`, `calibration.npz`
(training images without labels) and `test.npz` (test images with labels, never trained on). All
models take `image`, float32 [N, 1, 8, 8] with values 0 to 16 as the data set has them, and give
`scores`, float32 [N, 10].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SEED = 7
TRAIN, CALIBRATION = 1200, 200


class Residual(nn.Module):
    """A depthwise and a pointwise convolution around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.depthwise(x)))
        return torch.relu(x + self.norm2(self.pointwise(y)))


class DigitsCnn(nn.Module):
    """A learned upsampling to 16x16, three 3x3 convolutions and two depthwise residual blocks."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(1, 16, 2, stride=2)
        self.stem = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.widen = nn.Conv2d(16, width, 3, padding=1, bias=False)
        self.widen_norm = nn.BatchNorm2d(width)
        self.block1 = Residual(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.mix_norm = nn.BatchNorm2d(width)
        self.block2 = Residual(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.upsample(image / 16.0)
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = self.block1(torch.relu(self.widen_norm(self.widen(x))))
        x = self.block2(torch.relu(self.mix_norm(self.mix(x))))
        return self.head(x.mean(dim=(2, 3)))


class Encoder(nn.Module):
    """One pre-norm Transformer layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        size = width // self.heads
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, size)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) * size**-0.5, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.project(mixed)
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class DigitsTransformer(nn.Module):
    """2x2 pixels are a token: 16 tokens, two layers, mean over the tokens."""

    def __init__(self, width: int = 40, heads: int = 4, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.position = nn.Parameter(torch.randn(16, width) * 0.02)
        self.layers = nn.Sequential(*(Encoder(width, heads, hidden) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = (image / 16.0).reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        x = self.layers(self.embed(patches) + self.position)
        return self.head(self.norm(x).mean(dim=1))


class DigitsLstm(nn.Module):
    """Two layers read the eight rows, then the eight columns: 16 steps of 8 pixels."""

    def __init__(self, width: int = 112) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = (image / 16.0).squeeze(1)
        states, _ = self.lstm(torch.cat([rows, rows.transpose(1, 2)], dim=1))
        return self.head(states[:, -1])


MODELS: dict[str, tuple[type[nn.Module], int]] = {
    "digits_cnn": (DigitsCnn, 12),
    "digits_transformer": (DigitsTransformer, 60),
    "digits_lstm": (DigitsLstm, 60),
}


def shifted(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Each image moved by -1, 0 or 1 pixels along both axes."""
    padded = functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (2, len(images), 1, 1), generator=random)
    rows = moves[0] + torch.arange(8)[:, None]
    columns = moves[1] + torch.arange(8)
    return padded[torch.arange(len(images))[:, None, None], 0, rows, columns][:, None]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    random = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * batches)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=random).split(64):
            scores = model(shifted(images[index], random))
            loss = functional.cross_entropy(scores, labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean()) * 100


def export(model: nn.Module, path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        optimize=False,
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes={"image": {0: batch}},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    program.model.graph.metadata_props.clear()
    for node in program.model.graph:
        # Stack traces and module paths of this machine: half of the file, of use to nobody.
        node.metadata_props.clear()
        node.doc_string = None
    for value in program.model.graph.initializers.values():
        value.metadata_props.clear()
    program.save(str(path), external_data=False)


def write_samples(folder: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    pixels = images.numpy().astype(np.float32)
    np.savez_compressed(folder / "calibration.npz", image=pixels[:CALIBRATION])
    np.savez_compressed(
        folder / "test.npz", image=pixels[TRAIN:], labels=labels.numpy()[TRAIN:].astype(np.int64)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    images = torch.tensor(digits.images[order], dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[order])
    write_samples(arguments.out, images, labels)
    for name, (kind, epochs) in MODELS.items():
        torch.manual_seed(SEED)
        model = kind()
        train(model, images[:TRAIN], labels[:TRAIN], epochs)
        percent = accuracy(model, images[TRAIN:], labels[TRAIN:])
        path = arguments.out / f"{name}.onnx"
        export(model, path)
        print(
            f"{name}: {percent:.2f} % of the test images, {path.stat().st_size / 1000:.1f} kB",
            flush=True,
        )


if __name__ == "__main__":
    main()
