"""More small torch models: decoders, windows of attention, a network that reads lines of text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch_families import Dim, Made, image, lively


def tokens() -> tuple[torch.Tensor, ...]:
    return (torch.randint(0, 50, (2, 6), generator=torch.Generator().manual_seed(1)),)


class Decoder(nn.Module):
    """One matrix for Q, K and V that is split; a causal mask; scores from the word table."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.words, self.places = nn.Embedding(50, width), nn.Embedding(16, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, ids: Any) -> Any:
        n, t = ids.shape
        x = self.words(ids) + self.places(torch.arange(t)[None])
        parts = self.qkv(self.norm1(x)).split(self.width, 2)
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.width // self.heads)
        later = ~torch.ones(t, t, dtype=torch.bool).tril()
        y = scores.masked_fill(later, -1e4).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).contiguous().view(n, t, self.width))
        x = x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x @ self.words.weight.T


class Grouped(nn.Module):
    """Two queries for each key (Ainslie et al. 2023), rotated places, RMS norms, gated MLP."""

    def __init__(self, width: int = 32, heads: int = 4, keys: int = 2) -> None:
        super().__init__()
        self.heads, self.keys, self.each = heads, keys, width // heads
        self.words = nn.Embedding(50, width)
        sizes = (width, keys * self.each, keys * self.each)
        self.qkv = nn.ModuleList(nn.Linear(width, size, bias=False) for size in sizes)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 48, bias=False) for _ in range(2))
        self.down, self.head = nn.Linear(48, width, bias=False), nn.Linear(width, 11, bias=False)
        self.gains = nn.ParameterList(nn.Parameter(torch.rand(width) + 0.5) for _ in range(3))

    def norm(self, x: Any, number: int) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gains[number]

    def rotated(self, x: Any, angles: Any) -> Any:
        a, b = x[..., : self.each // 2], x[..., self.each // 2 :]
        return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    def repeated(self, x: Any) -> Any:
        n, _, t, d = x.shape
        more = x[:, :, None].expand(n, self.keys, self.heads // self.keys, t, d)
        return more.reshape(n, self.heads, t, d)

    def forward(self, ids: Any) -> Any:
        x = self.words(ids)
        n, t, c = x.shape
        y = self.norm(x, 0)
        q, k, v = (f(y).view(n, t, -1, self.each).transpose(1, 2) for f in self.qkv)
        angles = torch.arange(t)[:, None] * (10.0 ** (-torch.arange(self.each // 2) / 4))[None]
        angles = torch.cat([angles, angles], -1)
        q, k = self.rotated(q, angles), self.rotated(k, angles)
        y = functional.scaled_dot_product_attention(
            q, self.repeated(k), self.repeated(v), is_causal=True
        )
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        y = self.norm(x, 1)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm(x, 2))


class Windows(nn.Module):
    """Attention inside shifted windows with a bias per head, then four pixels become one."""

    def __init__(self, window: int = 4, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.patches, self.norm1 = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2))
        self.norm2, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 48, bias=False)
        self.head = nn.Linear(48, 5)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        k = self.window
        y = torch.roll(self.norm1(x), (-2, -2), (1, 2)).view(n, h // k, k, w // k, k, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, c)
        qkv = self.qkv(y).reshape(-1, k * k, 3, self.heads, c // self.heads)
        q, key, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ key.transpose(-2, -1) + self.bias
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, k * k, c))
        y = y.view(n, h // k, w // k, k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
        return self.head(self.merge(self.norm2(x)).mean((1, 2)))


class Lines(nn.Module):
    """Convolutions whose columns are the steps of an LSTM (Shi et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 1)),
        )  # fmt: skip
        self.rnn = nn.LSTM(24 * 2, 16, 2, bidirectional=True)
        self.head = nn.Linear(32, 7)

    def forward(self, x: Any) -> Any:
        x = self.convs(x)
        n, c, h, w = x.shape
        y, _ = self.rnn(x.permute(3, 0, 1, 2).reshape(w, n, c * h))
        return self.head(y)


def _made(build: Callable[[], nn.Module], args: tuple[Any, ...], free: dict[int, Any]) -> Made:
    torch.manual_seed(0)
    return lively(build()), args, (free,)


MORE: dict[str, Callable[[], Made]] = {
    "decoder": lambda: _made(Decoder, tokens(), {0: Dim("batch"), 1: Dim("time", max=16)}),
    "grouped": lambda: _made(Grouped, tokens(), {0: Dim("batch"), 1: Dim("time")}),
    "windows": lambda: _made(Windows, image(), {0: Dim("batch")}),
    "lines": lambda: _made(Lines, image(), {0: Dim("batch")}),
}
