"""Small torch models of the shapes that people have: each with its inputs and its free axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Made = tuple[nn.Module, tuple[Any, ...], Any]
Dim = torch.export.Dim


def conv_bn(
    i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> Any:
    pad = k // 2
    layers = [nn.Conv2d(i, o, k, stride, pad, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


def lively(module: nn.Module) -> nn.Module:
    """Norms with numbers of their own, so that a wrong cut shows."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.eval()


def image(size: int = 16) -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)),)


class Basic(nn.Module):
    def __init__(self, i: int, o: int, stride: int, *, padded: bool = False) -> None:
        super().__init__()
        self.a, self.b = conv_bn(i, o, 3, stride), conv_bn(o, o, act=None)
        self.padded = padded and i != o
        self.short = None if i == o or padded else conv_bn(i, o, 1, stride, act=None)

    def forward(self, x: Any) -> Any:
        y = self.b(self.a(x))
        if self.padded:
            more = (y.shape[1] - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        elif self.short is not None:
            x = self.short(x)
        return functional.relu(x + y)


def resnet(*, padded: bool = False) -> Made:
    """Two stages of two blocks; `padded`: the short cuts of He et al. 2016, option A."""
    blocks = [
        Basic(16, 16, 1),
        Basic(16, 16, 1),
        Basic(16, 32, 2, padded=padded),
        Basic(32, 32, 1),
    ]
    net = nn.Sequential(
        conv_bn(3, 16), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    return lively(net), image(), ({0: Dim("batch")},)


class Dense(nn.Module):
    def __init__(self, i: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(i + n * growth), nn.ReLU(),
                nn.Conv2d(i + n * growth, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth), nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for n in range(layers)
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> Made:
    net = nn.Sequential(
        conv_bn(3, 16), Dense(16, 8, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 20, 1),
        nn.AvgPool2d(2), Dense(20, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(36, 10),
    )  # fmt: skip
    return lively(net), image(), None


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Any) -> Any:
        return x * functional.hardsigmoid(
            self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1))))
        )


class Inverted(nn.Module):
    def __init__(self, i: int, wide: int, o: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn(i, wide, 1, act=nn.Hardswish),
            conv_bn(wide, wide, 5, stride, wide, nn.Hardswish),
            SqueezeExcite(wide, 8), conv_bn(wide, o, 1, act=None),
        )  # fmt: skip
        self.skips = stride == 1 and i == o

    def forward(self, x: Any) -> Any:
        y = self.layers(x)
        return x + y if self.skips else y


def mobilenet() -> Made:
    net = nn.Sequential(
        conv_bn(3, 16, 3, 2, act=nn.Hardswish), Inverted(16, 32, 16, 1), Inverted(16, 48, 24, 2),
        Inverted(24, 48, 24, 1), conv_bn(24, 64, 1, act=nn.Hardswish),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 40), nn.Hardswish(),
        nn.Linear(40, 10),
    )  # fmt: skip
    return lively(net), image(), ({0: Dim("batch")},)


def shuffled(x: Any, groups: int) -> Any:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleTwo(nn.Module):
    """Ma et al. 2018: one half passes, the other is computed, then they are mixed."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        half = o // 2
        own = i if stride == 2 else half
        self.right = nn.Sequential(
            conv_bn(own, half, 1),
            conv_bn(half, half, 3, stride, half, None),
            conv_bn(half, half, 1),
        )
        self.left = None
        if stride == 2:
            self.left = nn.Sequential(conv_bn(i, i, 3, 2, i, None), conv_bn(i, half, 1))

    def forward(self, x: Any) -> Any:
        if self.left is not None:
            return shuffled(torch.cat([self.left(x), self.right(x)], 1), 2)
        a, b = x.chunk(2, 1)
        return shuffled(torch.cat([a, self.right(b)], 1), 2)


def shufflenet() -> Made:
    net = nn.Sequential(
        conv_bn(3, 16), ShuffleTwo(16, 32, 2), ShuffleTwo(32, 32, 1), ShuffleTwo(32, 32, 1),
        conv_bn(32, 48, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    return lively(net), image(), ({0: Dim("batch")},)


class ShuffleOne(nn.Module):
    """Zhang et al. 2018: grouped 1x1 convolutions with a shuffle between them."""

    def __init__(self, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.a = conv_bn(width, inner, 1, groups=groups)
        self.b = conv_bn(inner, inner, 3, groups=inner, act=None)
        self.c = conv_bn(inner, width, 1, groups=groups, act=None)

    def forward(self, x: Any) -> Any:
        return functional.relu(x + self.c(self.b(shuffled(self.a(x), self.groups))))


def shufflenet_grouped() -> Made:
    net = nn.Sequential(
        conv_bn(3, 36), ShuffleOne(36, 18, 3), ShuffleOne(36, 30, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(36, 10),
    )  # fmt: skip
    return lively(net), image(), None


class Up(nn.Module):
    def __init__(self, i: int, skip: int, o: int, *, group_norm: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(i, o, 2, 2)
        self.conv = double(o + skip, o, group_norm=group_norm)

    def forward(self, x: Any, skip: Any) -> Any:
        return self.conv(torch.cat([skip, self.up(x)], 1))


def double(i: int, o: int, *, group_norm: bool) -> nn.Module:
    def one(a: int) -> list[nn.Module]:
        norm = nn.GroupNorm(4, o) if group_norm else nn.BatchNorm2d(o)
        return [nn.Conv2d(a, o, 3, padding=1), norm, nn.SiLU() if group_norm else nn.ReLU()]

    return nn.Sequential(*one(i), *one(o))


class UNet(nn.Module):
    def __init__(self, *, group_norm: bool) -> None:
        super().__init__()
        self.a = double(3, 16, group_norm=group_norm)
        self.b = double(16, 32, group_norm=group_norm)
        self.c = double(32, 64, group_norm=group_norm)
        self.up_b = Up(64, 32, 32, group_norm=group_norm)
        self.up_a = Up(32, 16, 16, group_norm=group_norm)
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Any) -> Any:
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        c = self.c(functional.max_pool2d(b, 2))
        return self.last(self.up_a(self.up_b(c, b), a))


def unet() -> Made:
    return lively(UNet(group_norm=False)), image(), ({0: Dim("batch")},)


def unet_group_norm() -> Made:
    return lively(UNet(group_norm=True)), image(), ({0: Dim("batch")},)


class Attention(nn.Module):
    """Q, K and V of one matrix (`fused`) or of three."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        count = 1 if fused else 3
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width // count) for _ in range(count))
        self.out = nn.Linear(width, width)

    def forward(self, x: Any, mask: Any = None) -> Any:
        n, t, c = x.shape
        if self.fused:
            qkv = self.qkv[0](x).reshape(n, t, 3, self.heads, c // self.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (
                f(x).view(n, t, self.heads, c // self.heads).transpose(1, 2) for f in self.qkv
            )
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, *, fused: bool, first: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, fused=fused)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm1, self.norm2, self.first = nn.LayerNorm(width), nn.LayerNorm(width), first

    def forward(self, x: Any, mask: Any = None) -> Any:
        if self.first:
            x = x + self.attention(self.norm1(x), mask)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.mlp(x))


class ViT(nn.Module):
    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, fused=True, first=True) for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit() -> Made:
    torch.manual_seed(0)
    return lively(ViT()), image(), ({0: Dim("batch")},)


class Bert(nn.Module):
    """Token, place and segment tables, norms behind the sums, mean over the real tokens."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, width), nn.Embedding(24, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(width, heads, fused=False, first=False) for _ in range(depth)
        )
        self.pool = nn.Linear(width, 20)
        self.head = nn.Linear(20, 5)

    def forward(self, ids: Any, mask: Any) -> Any:
        places = torch.arange(ids.shape[1])[None]
        x = self.words(ids) + self.places(places) + self.segments(torch.zeros_like(ids))
        x = self.norm(x)
        outside = (1.0 - mask[:, None, None].float()) * -1e4
        for block in self.blocks:
            x = block(x, outside)
        weights = mask[..., None].float()
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-6)
        return self.head(torch.tanh(self.pool(pooled)))


def bert() -> Made:
    torch.manual_seed(0)
    ids = torch.randint(0, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    free = {0: Dim("batch"), 1: Dim("time", max=24)}
    return lively(Bert()), (ids, mask), (free, free)


class Encoder(nn.Module):
    """torch's own layers; Q, K and V come from one matrix."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.first, self.head = nn.Linear(6, 32), nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.layers(self.first(x)))


def torch_encoder() -> Made:
    torch.manual_seed(0)
    free = {0: Dim("batch"), 1: Dim("time")}
    return lively(Encoder()), (torch.randn(3, 7, 6),), (free,)


class Recurrent(nn.Module):
    """A recurrent network over a sequence, and a layer for its last step or for every one."""

    def __init__(self, kind: str, *, layers: int, both: bool, every: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = getattr(nn, kind)(
            6, 16, num_layers=layers, bidirectional=both, batch_first=True
        )
        self.head, self.every = nn.Linear(32 if both else 16, 5), every

    def forward(self, x: Any) -> Any:
        y, _ = self.rnn(x)
        return self.head(y if self.every else y[:, -1])


def recurrent(kind: str, *, layers: int, both: bool = False, every: bool = False) -> Made:
    free = ({0: Dim("batch"), 1: Dim("time")},)
    made = Recurrent(kind, layers=layers, both=both, every=every)
    return made.eval(), (torch.randn(3, 7, 6),), free


FAMILIES: dict[str, Callable[[], Made]] = {
    "resnet": resnet,
    "resnet_padded": lambda: resnet(padded=True),
    "densenet": densenet,
    "mobilenet": mobilenet,
    "shufflenet": shufflenet,
    "shufflenet_grouped": shufflenet_grouped,
    "unet": unet,
    "unet_group_norm": unet_group_norm,
    "vit": vit,
    "bert": bert,
    "torch_encoder": torch_encoder,
    "lstm": lambda: recurrent("LSTM", layers=1),
    "lstm_2": lambda: recurrent("LSTM", layers=2, every=True),
    "lstm_2_both": lambda: recurrent("LSTM", layers=2, both=True),
    "gru": lambda: recurrent("GRU", layers=1, every=True),
    "gru_2_both": lambda: recurrent("GRU", layers=2, both=True, every=True),
    "rnn": lambda: recurrent("RNN", layers=2),
}
