"""Small networks of four families with the structure of the large ones, for `tensorrt_placement`.

Weights are drawn from a seed: where Q/DQ nodes go depends on the graph, and scales are only
compared with each other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nets import BasicBlock, MobileNetV2Small, conv_bn
from numpy.typing import NDArray
from torch import Tensor, nn

Samples = dict[str, NDArray[np.float32] | NDArray[np.int64]]

OPSET = 20
WIDTH, HEADS, TOKENS, WORDS = 128, 4, 128, 1000


class ImageNetResNet(nn.Module):
    """ResNet-18 cut after two of its four stages: its stem, pooling, downsampling, head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 7, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(
            BasicBlock(32, 32, 1),
            BasicBlock(32, 32, 1),
            BasicBlock(32, 64, 2),
            BasicBlock(64, 64, 1),
        )
        self.pool = nn.AvgPool2d(8)  # the adaptive one is exported as a ReduceMean
        self.classifier = nn.Linear(64, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.pool(self.blocks(self.stem(image))).flatten(1))


class WrittenOutNorm(nn.Module):
    """LayerNorm as exporters below opset 17 write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        off = x - x.mean(-1, keepdim=True)
        variance = off.pow(2.0).mean(-1, keepdim=True)
        return off / torch.sqrt(variance + 1e-5) * self.weight + self.bias


class Encoder(nn.Module):
    """A Transformer layer, norms behind (BERT) or in front (ViT) of its two parts.

    `scaled` says where the factor of the attention is: behind the product of queries and keys,
    as BERT has it, or half of it in front on either side, as PyTorch exports its own attention.
    """

    def __init__(self, norm: Callable[[int], nn.Module], *, first: bool, scaled: bool) -> None:
        super().__init__()
        self.first, self.scaled = first, scaled
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norms = nn.ModuleList(norm(WIDTH) for _ in range(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (self._heads(f(x)) for f in (self.query, self.key, self.value))
        size = math.sqrt(WIDTH / HEADS)
        if self.scaled:
            scores = query @ key.transpose(-1, -2) / size
        else:
            scores = (query * size**-0.5) @ (key.transpose(-1, -2) * size**-0.5)
        if mask is not None:
            scores = scores + mask
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def feed(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return self.outer(y * (torch.erf(y / math.sqrt(2.0)) + 1.0) * 0.5)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.first:
            x = x + self.attend(self.norms[0](x), mask)
            return x + self.feed(self.norms[1](x))
        x = self.norms[0](x + self.attend(x, mask))
        return self.norms[1](x + self.feed(x))


class Bert(nn.Module):
    """Two layers of BERT: masks, GELU by Erf, a pooler and classes.

    `old` exports write LayerNorm out and divide behind the product of queries and keys.
    """

    def __init__(self, classes: int, *, old: bool) -> None:
        super().__init__()
        norm = WrittenOutNorm if old else nn.LayerNorm
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.norm = norm(WIDTH)
        self.layers = nn.ModuleList(Encoder(norm, first=False, scaled=old) for _ in range(2))
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.norm(self.words(input_ids) + self.places.weight)
        mask = (1.0 - attention_mask.to(x.dtype))[:, None, None, :] * -10000.0
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class VisionTransformer(nn.Module):
    """ViT on square patches: class token, LayerNormalization as one op, no mask."""

    def __init__(self, classes: int, *, side: int, patch: int, depth: int) -> None:
        super().__init__()
        count = (side // patch) ** 2
        self.patches = nn.Conv2d(3, WIDTH, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, count + 1, WIDTH))
        self.layers = nn.ModuleList(
            Encoder(nn.LayerNorm, first=True, scaled=False) for _ in range(depth)
        )
        self.norm, self.classifier = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x, None)
        return self.classifier(self.norm(x)[:, 0])


def _images(count: int, side: int, rng: np.random.Generator) -> Samples:
    return {"image": rng.standard_normal((count, 3, side, side)).astype(np.float32)}


def _sentences(count: int, rng: np.random.Generator) -> Samples:
    lengths = rng.integers(TOKENS // 4, TOKENS + 1, (count, 1))
    return {
        "input_ids": rng.integers(0, WORDS, (count, TOKENS)),
        "attention_mask": (np.arange(TOKENS) < lengths).astype(np.int64),
    }


def _settled(net: nn.Module, images: Tensor) -> nn.Module:
    """The net with BatchNorms that fit its weights, as training leaves them."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
    with torch.no_grad():
        net.train()(images)
    return net.eval()


def write(name: str, folder: Path, samples: int = 64) -> tuple[Path, Path]:
    """Write the float model NAME.onnx and its calibration samples NAME.npz.

    Args:
        name: one of `FAMILIES`.
        folder: where to; it exists.
        samples: how many, along axis 0.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    side = 96 if name == "vit-577" else 64
    batch = _sentences(samples, rng) if name.startswith("bert") else _images(samples, side, rng)
    net = FAMILIES[name]()
    if "image" in batch:
        net = _settled(net, torch.from_numpy(batch["image"]))
    model, calibration = folder / f"{name}.onnx", folder / f"{name}.npz"
    np.savez(calibration, **batch)
    torch.onnx.export(
        net.eval(),
        tuple(torch.from_numpy(array[:1]) for array in batch.values()),
        str(model),
        input_names=list(batch),
        output_names=["scores"],
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return model, calibration


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ImageNetResNet(100),
    "mobilenet": lambda: MobileNetV2Small(100),
    "bert": lambda: Bert(3, old=True),
    "bert-sdpa": lambda: Bert(3, old=False),
    "vit": lambda: VisionTransformer(100, side=64, patch=8, depth=2),
    "vit-577": lambda: VisionTransformer(100, side=96, patch=4, depth=1),
}

if __name__ == "__main__":
    for family in FAMILIES:
        print(*write(family, Path(sys.argv[1])))
