"""A German sentence in, an English one out: two bundles, a tokenizer, and a search."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from search import F32, I64, Found, beam, greedy
from text import END_ID, Text, TranslateError

if TYPE_CHECKING:
    from edgebm.runtime.session import Session

# The encoder is compiled for these numbers of subwords; a sentence is filled up to the next.
LENGTHS = (16, 32, 48)


@dataclass
class Times:
    """What was measured so far: every step of the decoder, and what each sentence took."""

    step_ns: list[int] = field(default_factory=list)
    encode_ns: list[int] = field(default_factory=list)
    sentence_ns: list[int] = field(default_factory=list)
    tokens: int = 0


@dataclass(frozen=True)
class Translation:
    """The English sentence, how it was found, and what to tell the user about it."""

    text: str
    found: Found | None
    losses: tuple[str, ...]


class Decoder:
    """The decoder's stream: `rows` hypotheses about one source, whose cache it keeps."""

    def __init__(self, session: Session, rows: int) -> None:
        self._stream = session.stream()
        self.specs = {spec.name: spec for spec in self._stream.inputs}
        self._feeds: dict[str, NDArray[Any]] = {}
        for name, spec in self.specs.items():
            shape = tuple(rows if isinstance(dim, str) else dim for dim in spec.shape)
            self._feeds[name] = np.zeros(shape, spec.dtype)
        self.window = self._feeds["encoder_attention_mask"].shape[1]
        self.step_ns: list[int] = []

    def begin(self, read: dict[str, NDArray[Any]], tokens: int) -> None:
        """A new source of so many subwords; `read` are the `cross.*` of the encoder."""
        self._stream.reset()
        mask = self._feeds["encoder_attention_mask"]
        mask[:] = 0
        mask[:, :tokens] = 1
        for name, array in read.items():
            self._feeds[name][:, :, :tokens] = array[:, :, :tokens]

    def step(self, tokens: I64, position: int, parents: I64) -> F32:
        """Scores [rows, vocabulary] of what comes next; see `search.Step`."""
        begin_ns = time.perf_counter_ns()
        feeds = self._feeds
        feeds["input_ids"][:, 0] = tokens
        feeds["position"][0] = position
        feeds["parents"][:] = parents
        scores: F32 = self._stream.step(feeds)["logits"][:, 0]
        self.step_ns.append(time.perf_counter_ns() - begin_ns)
        return scores

    def identity(self) -> list[int]:
        """What the model was made of, as the encoder says it too."""
        self._stream.reset()
        return [int(x) for x in self._stream.step(self._feeds)["model"]]


class Translator:
    """Owns nothing: the sessions are the caller's to close.

    Raises:
        TranslateError: encoder, decoder and tokenizer do not belong together.
    """

    def __init__(self, encoder: Session, decoder: Session, text: Text, rows: int = 1) -> None:
        self._encoder, self._text, self._rows = encoder, text, rows
        self._decoder = Decoder(decoder, rows)
        self.times = Times(self._decoder.step_ns)
        self._check()
        self.times.step_ns.clear()

    def __call__(self, sentence: str) -> Translation:
        """An empty sentence gives an empty one."""
        if not sentence.strip():
            return Translation("", None, ())
        begin_ns = time.perf_counter_ns()
        decoder = self._decoder
        source = self._text.read(sentence, decoder.window)
        decoder.begin(self._read(source.ids), len(source.ids))
        encoded_ns = time.perf_counter_ns()
        if self._rows == 1:
            found = greedy(decoder.step, decoder.window)
        else:
            found = beam(decoder.step, decoder.window, self._rows)
        text = self._text.written(found.ids)
        self.times.encode_ns.append(encoded_ns - begin_ns)
        self.times.sentence_ns.append(time.perf_counter_ns() - begin_ns)
        self.times.tokens += len(found.ids) + found.ended
        losses = source.losses
        if not found.ended:
            losses = (*losses, f"the translation is cut behind {len(found.ids)} subwords")
        return Translation(text, found, losses)

    def _read(self, ids: list[int]) -> dict[str, NDArray[Any]]:
        """Keys and values for the decoder."""
        length = next((n for n in LENGTHS if n >= len(ids)), len(ids))
        feeds = np.full((1, length), END_ID), np.zeros((1, length), np.int64)
        feeds[0][0, : len(ids)], feeds[1][0, : len(ids)] = ids, 1
        read = self._encoder.run(input_ids=feeds[0], attention_mask=feeds[1])
        self._model = read.pop("model")
        return read

    def _check(self) -> None:
        ...
