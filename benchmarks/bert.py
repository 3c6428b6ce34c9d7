"""A BERT sentence encoder in plain torch, for the published MiniLM weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OPSET = 20


class Layer(nn.Module):
    """One post-norm encoder layer (Devlin et al., 2019)."""

    def __init__(self, width: int, inner: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.intermediate = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=epsilon)

    def split(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to [batch, heads, tokens, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self.split(f(x)) for f in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.attention_output(mixed))
        inner = nn.functional.gelu(self.intermediate(x))
        normed: Tensor = self.output_norm(x + self.output(inner))
        return normed


class SentenceEncoder(nn.Module):
    """Token ids and mask [batch, tokens] to unit-length sentence embeddings [batch, width]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.types = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        inner, heads = config["intermediate_size"], config["num_attention_heads"]
        self.layers = nn.ModuleList(
            Layer(width, inner, heads, epsilon) for _ in range(config["num_hidden_layers"])
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.words(input_ids) + self.types.weight[0] + self.positions(places)
        x = self.norm(x)
        mask = attention_mask.to(x.dtype)
        bias = (1 - mask)[:, None, None, :] * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[:, :, None]
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=-1)


LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def published_name(name: str) -> str:
    """The name a parameter has in the published weights."""
    parts = name.split(".")
    if parts[0] == "layers":
        return f"encoder.layer.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    top = {
        "words": "word_embeddings",
        "positions": "position_embeddings",
        "types": "token_type_embeddings",
        "norm": "LayerNorm",
    }
    return f"embeddings.{top[parts[0]]}.{parts[1]}"


def export_encoder(
    weights: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any], path: Path
) -> None:
    """Write the encoder as ONNX; batch and tokens stay symbolic."""
    encoder = SentenceEncoder(config).eval()
    encoder.load_state_dict(
        {name: torch.from_numpy(weights[published_name(name)]) for name in encoder.state_dict()}
    )
    sample = torch.ones(2, 16, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2, max=512)}
    torch.onnx.export(
        encoder,
        (sample, torch.ones_like(sample)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["sentence_embedding"],
        dynamic_shapes=(axes, axes),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
