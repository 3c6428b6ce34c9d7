"""The Transformer: whole for training, and as the two graphs that a device runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    """Of the network; `window` is the most tokens that a sentence may have, on either side."""

    vocabulary: int
    width: int = 256
    heads: int = 8
    encoder_layers: int = 3
    decoder_layers: int = 2
    encoder_inner: int = 512
    decoder_inner: int = 1536
    window: int = 48
    dropout: float = 0.1


def split(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, width] to [batch, heads, tokens, width of a head]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """The way back from `split`."""
    return x.transpose(1, 2).flatten(2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention (Vaswani et al. 2017, section 3.2) as two products and a softmax.

    All are [batch, heads, tokens, width of a head]; `mask` is added to the scores.
    """
    scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3])
    return (scores + mask).softmax(3) @ values


def additive(seen: Tensor) -> Tensor:
    """0 where `seen` is true or 1, and what no softmax sees elsewhere."""
    return (1.0 - seen.to(torch.float32)) * -1e4


class Inner(nn.Module):
    """Two layers at each position, with the normalization in front."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(functional.relu(self.wide(self.norm(x))))


class SelfAttention(nn.Module):
    """Queries, keys and values are one product; what is attended to is the caller's affair."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [batch, heads, tokens, width of a head]."""
        queries, keys, values = self.read(self.norm(x)).chunk(3, 2)
        return split(queries, self.heads), split(keys, self.heads), split(values, self.heads)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.write(joined(attend(*self.parts(x), mask)))


class CrossAttention(nn.Module):
    """What the decoder reads of the source; its keys and values are the encoder's to compute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.source = nn.Linear(width, 2 * width)
        self.write = nn.Linear(width, width)

    def read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, heads, tokens, width of a head] of the source."""
        keys, values = self.source(states).chunk(2, 2)
        return split(keys, self.heads), split(values, self.heads)

    def queries(self, x: Tensor) -> Tensor:
        return split(self.query(self.norm(x)), self.heads)

    def forward(self, x: Tensor, read: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        return self.write(joined(attend(self.queries(x), *read, mask)))


class EncoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own = SelfAttention(sizes.width, sizes.heads)
        self.inner = Inner(sizes.width, sizes.encoder_inner)
        self.drop = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop(self.own(x, mask))
        return x + self.drop(self.inner(x))


class DecoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own = SelfAttention(sizes.width, sizes.heads)
        self.cross = CrossAttention(sizes.width, sizes.heads)
        self.inner = Inner(sizes.width, sizes.decoder_inner)
        self.drop = nn.Dropout(sizes.dropout)

    def forward(
        self, x: Tensor, own: Tensor, read: tuple[Tensor, Tensor], source: Tensor
    ) -> Tensor:
        x = x + self.drop(self.own(x, own))
        x = x + self.drop(self.cross(x, read, source))
        return x + self.drop(self.inner(x))


class Transformer(nn.Module):
    """Encoder and decoder with the normalization in front of each layer (Xiong et al. 2020).

    One table of embeddings serves both languages and the scores (Press & Wolf 2017).
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.words = nn.Embedding(sizes.vocabulary, sizes.width)
        self.places = nn.Embedding(sizes.window, sizes.width)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))
        self.encoder_norm = nn.LayerNorm(sizes.width)
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.decoder_norm = nn.LayerNorm(sizes.width)
        self.drop = nn.Dropout(sizes.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.words.weight, std=sizes.width**-0.5)
        nn.init.normal_(self.places.weight, std=0.5)

    def embed(self, ids: Tensor, places: Tensor) -> Tensor:
        """[batch, tokens] to [batch, tokens, width]."""
        return self.drop(self.words(ids) * math.sqrt(self.sizes.width) + self.places(places))

    def encode(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Hidden states of the source; `seen` [batch, tokens] is 0 for padding."""
        x = self.embed(ids, torch.arange(ids.shape[1]))
        mask = additive(seen)[:, None, None]
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x)

    def scores(self, x: Tensor) -> Tensor:
        """[..., width] to [..., vocabulary]."""
        return functional.linear(self.decoder_norm(x), self.words.weight)

    def forward(self, source: Tensor, seen: Tensor, written: Tensor) -> Tensor:
        """What the decoder says at each place of `written` [batch, tokens]: [..., width]."""
        states = self.encode(source, seen)
        tokens = written.shape[1]
        x = self.embed(written, torch.arange(tokens))
        own = additive(torch.ones(tokens, tokens).tril())
        mask = additive(seen)[:, None, None]
        for layer in self.decoder:
            x = layer(x, own, layer.cross.read(states), mask)
        return x
