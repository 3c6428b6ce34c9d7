"""Encoder-decoder models of transformers, as two graphs.

The encoder gives what each layer of the decoder reads of the source (`cross.0.key`), once for a
sentence. The decoder is one step: one token and its cache in (`past.0.key`), scores and the longer
cache out (`present.0.key`). The cache is stream state.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from edgebm.importers.huggingface_encoder import IDS, MASK
from edgebm.importers.huggingface_export import Case, Vocabulary, additive, arrays

SOURCE_MASK = "encoder_attention_mask"
_STEPS = 3
Pairs = list[tuple[Tensor, Tensor]]


def _names(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}.{layer}.{kind}" for layer in range(count) for kind in ("key", "value"))


def _flat(pairs: Pairs) -> tuple[Tensor, ...]:
    return tuple(tensor for pair in pairs for tensor in pair)


def _held(cache: Any) -> Pairs:
    return [(layer.keys, layer.values) for layer in cache.layers]


class _Part(nn.Module):
    """Calls of the whole model; the cache is called by another name in older versions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        known = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in known else "past_key_values"

    def step(
        self, ids: Tensor, states: Tensor, mask: Tensor, cache: Any, own: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Scores for `ids` [batch, steps], and the cache behind them."""
        found = self.model(
            decoder_input_ids=ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_attention_mask=own,
            use_cache=True,
            return_dict=True,
            **{self.cache_name: cache},
        )
        return found.logits, found[self.cache_name]


class _Source(_Part):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        mask = additive(attention_mask)
        encoder = self.model.get_encoder()
        states = encoder(input_ids=input_ids, attention_mask=mask, return_dict=True)[0]
        # The products that a decoder's layers make of the source are made when it first reads it.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        _, cache = self.step(
            input_ids[:, :1], states, mask, cache, additive(attention_mask[:, :1])
        )
        return (states, *_flat(_held(cache.cross_attention_cache)))


class _Step(_Part):
    def forward(
        self, input_ids: Tensor, encoder_attention_mask: Tensor, cross: Pairs, past: Pairs
    ) -> tuple[Tensor, ...]:
        cache = EncoderDecoderCache(DynamicCache(past), DynamicCache(cross))
        cache.is_updated = dict.fromkeys(range(len(cross)), True)
        mask = additive(encoder_attention_mask)
        # Only their shape is read: what they become lies in `cross`.
        width = self.model.config.hidden_size
        states = torch.zeros(mask.shape[0], mask.shape[3], width)
        # The newest token sees all that are in the cache.
        own = torch.zeros(1, 1, 1, 1)
        scores, cache = self.step(input_ids, states, mask, cache, own)
        return (scores, *_flat(_held(cache.self_attention_cache)))


class _Seq2Seq:
    """What both parts know of the whole model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._words = Vocabulary.of(model.config)
        self._whole = _Part(model)
        ids, mask = self._words.padded()
        _, _, cache = self._run(ids, mask, ids[:, :1])
        self._layers = len(cache.cross_attention_cache.layers)

    def _run(self, ids: Tensor, mask: Tensor, written: Tensor) -> tuple[Tensor, Tensor, Any]:
        """The model as its users call it: hidden states, scores of all steps, the cache."""
        states = self._model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)[0]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        return states, *self._whole.step(written, states, mask, cache)


class SourceExport(_Seq2Seq):
    """The encoder: `last_hidden_state`, and keys and values for each layer of the decoder."""

    inputs: tuple[str, ...] = (IDS, MASK)

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.outputs = ("last_hidden_state", *_names("cross", self._layers))

    def module(self) -> nn.Module:
        return _Source(self._model)

    def examples(self) -> tuple[dict[str, Any], dict[str, Any]]:
        axes = {0: "batch", 1: "tokens"}
        return dict(zip(self.inputs, self._words.padded(), strict=True)), dict.fromkeys(
            self.inputs, axes
        )

    def cases(self) -> Iterator[Case]:
        for batch, tokens in ((2, 12), (1, 5)):
            ids, mask = self._words.padded(batch, tokens)
            states, _, cache = self._run(ids, mask, ids[:, :1])
            answers = (states, *_flat(_held(cache.cross_attention_cache)))
            yield arrays(self.inputs, (ids, mask)), arrays(self.outputs, answers)


class DecoderExport(_Seq2Seq):
    """One step of the decoder: `input_ids` [batch, 1], the source, and the cache."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        cross, past = _names("cross", self._layers), _names("past", self._layers)
        self.inputs = (IDS, SOURCE_MASK, *cross, *past)
        self.outputs = ("logits", *_names("present", self._layers))

    def module(self) -> nn.Module:
        return _Step(self._model)

    def examples(self) -> tuple[dict[str, Any], dict[str, Any]]:
        given = self._given(2, 12, _STEPS)
        whole = [({0: "batch", 2: "tokens"},) * 2] * self._layers
        grown = [({0: "batch", 2: "past"},) * 2] * self._layers
        axes = {IDS: {0: "batch"}, SOURCE_MASK: {0: "batch", 1: "tokens"}}
        return given, {**axes, "cross": whole, "past": grown}

    def cases(self) -> Iterator[Case]:
        for batch, tokens, steps in ((2, 12, _STEPS), (1, 5, 0), (1, 5, 1)):
            given = self._given(batch, tokens, steps)
            feeds = (given[IDS], given[SOURCE_MASK], *_flat(given["cross"]), *_flat(given["past"]))
            written = self._written(batch, steps + 1)
            _, scores, cache = self._run(*self._words.padded(batch, tokens), written)
            answers = (scores[:, -1:], *_flat(_held(cache.self_attention_cache)))
            yield arrays(self.inputs, feeds), arrays(self.outputs, answers)

    def _written(self, batch: int, steps: int) -> Tensor:
        return self._words.ids(batch, _STEPS + 1, seed=1)[:, :steps]

    def _given(self, batch: int, tokens: int, steps: int) -> dict[str, Any]:
        """Token number `steps`, and the caches as they are before it."""
        ids, mask = self._words.padded(batch, tokens)
        _, _, cache = self._run(ids, mask, self._written(batch, max(1, steps)))
        past = [(k[:, :, :steps], v[:, :, :steps]) for k, v in _held(cache.self_attention_cache)]
        token = self._written(batch, steps + 1)[:, -1:]
        cross = _held(cache.cross_attention_cache)
        return {IDS: token, SOURCE_MASK: mask, "cross": cross, "past": past}
