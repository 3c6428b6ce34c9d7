"""Encoders of transformers and their heads: token ids and mask in, scores or vectors out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgebm.importers.huggingface_export import Case, Vocabulary, additive, agree, arrays
from edgebm.importers.huggingface_folder import Pooling

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
EMBEDDING = "sentence_embedding"
# The end of a class's name says what comes out. "Model" is last: all others end otherwise.
HEADS = {
    "ForSequenceClassification": ("logits",),
    "ForTokenClassification": ("logits",),
    "ForMaskedLM": ("logits",),
    "ForQuestionAnswering": ("start_logits", "end_logits"),
    "Model": ("last_hidden_state",),
}


class EncoderExport:
    """One call of a model that reads all tokens at once.

    Args:
        model: of transformers, in eval mode.
        answers: names of its outputs.
        pooling: makes one vector of the last hidden states; None leaves them.
    """

    def __init__(self, model: Any, answers: tuple[str, ...], pooling: Pooling | None) -> None:
        self._model, self._answers, self._pooling = model, answers, pooling
        self._words = Vocabulary.of(model.config)
        known = inspect.signature(model.forward).parameters
        types = int(getattr(model.config, "type_vocab_size", None) or 0)
        self.inputs: tuple[str, ...] = (IDS, MASK)
        if TYPES in known and types > 1:
            self.inputs += (TYPES,)
        self.outputs = (EMBEDDING,) if pooling is not None else answers
        self._one_type = TYPES in known and types == 1

    def module(self) -> nn.Module:
        plain = _Encoder(self._model, self._answers, self._pooling)
        lean = _LeanEncoder(self._model, self._answers, self._pooling)
        lean.one_type = self._one_type
        feeds = self._feeds()
        try:
            told = agree(arrays(self.outputs, plain(**feeds)), arrays(self.outputs, lean(**feeds)))
        except (ValueError, TypeError, RuntimeError, IndexError) as cause:
            told = str(cause)  # a model that makes its masks in a way of its own
        return plain if told else lean

    def examples(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._feeds(), {name: {0: "batch", 1: "tokens"} for name in self.inputs}

    def cases(self) -> Iterator[Case]:
        plain = _Encoder(self._model, self._answers, self._pooling)
        for batch, tokens in ((2, 12), (1, 5)):
            feeds = self._feeds(batch, tokens)
            yield arrays(self.inputs, feeds.values()), arrays(self.outputs, plain(**feeds))

    def _feeds(self, batch: int = 2, tokens: int = 12) -> dict[str, Tensor]:
        ids, mask = self._words.padded(batch, tokens)
        types = torch.zeros_like(ids)
        types[:, tokens // 2 :] = 1
        return dict(zip(self.inputs, (ids, mask, types), strict=False))


class _Encoder(nn.Module):
    """The model with its inputs as they are."""

    def __init__(self, model: Any, answers: tuple[str, ...], pooling: Pooling | None) -> None:
        super().__init__()
        self.model, self.answers, self.pooling = model, answers, pooling

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        given = self._given(attention_mask, token_type_ids)
        found = self.model(input_ids=input_ids, return_dict=True, **given)
        answers = tuple(found[name] for name in self.answers)
        if self.pooling is None:
            return answers
        return (_pooled(answers[0], attention_mask, self.pooling),)

    def _given(self, mask: Tensor, types: Tensor | None) -> dict[str, Tensor]:
        return {MASK: mask, **({} if types is None else {TYPES: types})}


class _LeanEncoder(_Encoder):
    """The model with the mask as it is added, and the only token type as a constant."""

    one_type = False

    def _given(self, mask: Tensor, types: Tensor | None) -> dict[str, Tensor]:
        if types is None and self.one_type:
            types = torch.zeros(1, 1, dtype=torch.int64)
        return super()._given(additive(mask), types)


def _pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """[batch, tokens, width] to [batch, width] as sentence-transformers does it."""
    weights = mask[:, :, None].to(states.dtype)
    if pooling.mode == "mean":
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    elif pooling.mode == "max":
        pooled = (states + (1.0 - weights) * -1e9).amax(1)
    else:
        pooled = states[:, 0]
    return nn.functional.normalize(pooled, dim=-1) if pooling.normalize else pooled
