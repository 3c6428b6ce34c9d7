"""Time of a training step of an imported graph against the torch module it was exported from.

Forward and backward of a ResNet, a two-layer LSTM and two BERT-shaped encoders (attention written
out, and torch's own kernel), both in turns on one thread; the figure is the median over the turns
of the graph's time by the module's.

    python benchmarks/grad_speed.py [--only BERT] [--turns 12]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bert import Layer, SentenceEncoder
from nets import CifarResNet
from timing import median_ms, race
from torch import Tensor, nn

import edgebm

TURN_S = 0.5
BERT = {
    "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4,
    "num_hidden_layers": 4, "vocab_size": 5000, "type_vocab_size": 2,
    "max_position_embeddings": 128, "layer_norm_eps": 1e-12,
}  # fmt: skip


class FusedLayer(Layer):
    """The layer of `bert.py` on torch's attention kernel."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self.split(f(x)) for f in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, bias)
        x = self.attention_norm(x + self.attention_output(mixed.transpose(1, 2).flatten(2)))
        inner = nn.functional.gelu(self.intermediate(x))
        normed: Tensor = self.output_norm(x + self.output(inner))
        return normed


class Sequences(nn.Module):
    """Two LSTM layers over [batch, steps, features], the last state to classes."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return self.classifier(y[:, -1])


def models() -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...], Any]]:
    """Name, module, example inputs, and which of their axes stay free."""
    batch = torch.export.Dim("batch", min=2, max=512)
    steps = torch.export.Dim("steps", min=2, max=128)
    yield "ResNet", CifarResNet(10, 3), (torch.randn(32, 3, 32, 32),), ({0: batch},)
    yield "LSTM", Sequences(64, 256, 10), (torch.randn(16, 48, 64),), ({0: batch, 1: steps},)
    ids = torch.randint(0, BERT["vocab_size"], (16, 64))
    axes = {0: batch, 1: steps}
    yield "BERT", SentenceEncoder(BERT), (ids, torch.ones_like(ids)), (axes, axes)
    fused = SentenceEncoder(BERT)
    for layer in fused.layers:
        layer.__class__ = FusedLayer
    yield "BERT, fused", fused, (ids, torch.ones_like(ids)), (axes, axes)


def step(module: nn.Module, *args: Any) -> Callable[[], None]:
    """A call that computes the gradients of all parameters."""

    def run() -> None:
        module.zero_grad(set_to_none=True)
        found = module(*args)
        found = found if isinstance(found, Tensor) else next(iter(found.values()))
        found.square().sum().backward()

    return run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--turns", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| model | torch ms | graph ms | ratio | of each turn |")
    print("|---|---|---|---|---|")
    for name, module, inputs, axes in models():
        if options.only not in name:
            continue
        graph = edgebm.as_module((module, inputs, axes)).train()
        feeds = dict(zip(graph.inputs, inputs, strict=True))
        both = {"torch": step(module.train(), *inputs), "graph": step(graph, feeds)}
        found = race(both, options.turns, TURN_S)
        ratios = [g / t for g, t in zip(found["graph"], found["torch"], strict=True)]
        torch_ms, graph_ms = (median_ms(found[key]) for key in ("torch", "graph"))
        spread = " ".join(f"{ratio:.2f}" for ratio in ratios)
        middle = statistics.median(ratios)
        print(
            f"| {name} | {torch_ms:.1f} | {graph_ms:.1f} | {middle:.2f} | {spread} |", flush=True
        )


if __name__ == "__main__":
    main()
