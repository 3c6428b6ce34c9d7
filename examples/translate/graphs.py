"""The two graphs of a trained Transformer, and how they become ONNX files.

The encoder is one call for a sentence. It also computes what each layer of the decoder reads of
the source (`cross.0.key`), which stays the same for all steps. The decoder is one step: one token
of each hypothesis in, scores out. What it has written so far is its state: `past.0.key` comes
back as `present.0.key`. Both say in `model` which weights and which tokenizer they were made with.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from model import Transformer, additive, attend, joined
from torch import Tensor, nn

Pairs = list[tuple[Tensor, Tensor]]


def names(stem: str, layers: int) -> list[str]:
    """`stem.0.key`, `stem.0.value`, `stem.1.key`, ..."""
    return [f"{stem}.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]


class Source(nn.Module):
    """`input_ids` and `attention_mask` [1, tokens] to keys and values of the cross attention."""

    def __init__(self, net: Transformer, identity: list[int]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("identity", torch.tensor(identity))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        states = self.net.encode(input_ids, attention_mask)
        read = [x for layer in self.net.decoder for x in layer.cross.read(states)]
        return (*read, self.identity.clone())


class Step(nn.Module):
    """One token of each hypothesis; all read the same source.

    `parents` has, for each hypothesis, the row of the step before that it goes on from: a beam
    search changes the order of its hypotheses at every step, and so moves the cache along. The
    cache has room for a whole window and never grows, so that every step has the same shapes. It
    begins with zeros and each place is written once: adding is faster there than choosing.
    """

    def __init__(self, net: Transformer, identity: list[int]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("identity", torch.tensor(identity))

    def forward(
        self,
        input_ids: Tensor,
        position: Tensor,
        parents: Tensor,
        encoder_attention_mask: Tensor,
        cross: Pairs,
        past: Pairs,
    ) -> tuple[Tensor, ...]:
        x = self.net.embed(input_ids, position)
        places = torch.arange(self.net.sizes.window)
        own = additive(places <= position)
        here = (places == position).to(torch.float32)[:, None]
        source = additive(encoder_attention_mask)[:, None, None]
        present: list[Tensor] = []
        for layer, read, held in zip(self.net.decoder, cross, past, strict=True):
            queries, *new = layer.own.parts(x)
            rows = [old.index_select(0, parents) for old in held]
            kept = [old + here * now for now, old in zip(new, rows, strict=True)]
            present += kept
            x = x + layer.own.write(joined(attend(queries, *kept, own)))
            # The hypotheses are rows of one product: [1, heads, hypotheses, width of a head].
            asked = layer.cross.queries(x).transpose(0, 2)
            found = attend(asked, *read, source).transpose(0, 2)
            x = x + layer.cross.write(joined(found))
            x = x + layer.inner(x)
        return (self.net.scores(x), *present, self.identity.clone())


def export(net: Transformer, identity: list[int], folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx`; `identity` is what both give as `model`.

    No two example inputs are one tensor: torch would take two inputs for one.
    """
    net.eval()
    sizes, layers = net.sizes, net.sizes.decoder_layers
    ids = torch.ones(1, 9, dtype=torch.int64)
    tokens = {1: torch.export.Dim("tokens")}
    _write(
        Source(net, identity),
        {"input_ids": ids, "attention_mask": ids.clone()},
        [*names("cross", layers), "model"],
        {"input_ids": tokens, "attention_mask": tokens},
        folder / "encoder.onnx",
    )
    rows = 3  # any number but 1, which torch would take for fixed
    read = torch.zeros(1, sizes.heads, sizes.window, sizes.width // sizes.heads)
    held, batch = read.repeat(rows, 1, 1, 1), {0: torch.export.Dim("batch")}
    _write(
        Step(net, identity),
        {
            "input_ids": torch.ones(rows, 1, dtype=torch.int64),
            "position": torch.zeros(1, dtype=torch.int64),
            "parents": torch.zeros(rows, dtype=torch.int64),
            "encoder_attention_mask": torch.ones(1, sizes.window, dtype=torch.int64),
            "cross": [(read.clone(), read.clone()) for _ in range(layers)],
            "past": [(held.clone(), held.clone()) for _ in range(layers)],
        },
        ["logits", *names("present", layers), "model"],
        {
            "input_ids": batch,
            "position": {},
            "parents": batch,
            "encoder_attention_mask": {},
            "cross": [({}, {})] * layers,
            "past": [(batch, batch)] * layers,
        },
        folder / "decoder.onnx",
    )


def _write(
    module: nn.Module, inputs: dict[str, Any], outputs: list[str], axes: Any, path: Path
) -> None:
    layers = {
        name: names(name, len(value)) for name, value in inputs.items() if isinstance(value, list)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            f=str(path),
            input_names=[each for name in inputs for each in layers.get(name, [name])],
            output_names=outputs,
            dynamic_shapes=axes,
            dynamo=True,
            optimize=False,
            external_data=False,
            verbose=False,
        )
