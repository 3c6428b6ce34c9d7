"""A German sentence in, an English one out: two bundles, a tokenizer and a search."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from search import F32, I64, Found, beam, greedy
from text import END_ID, PADDING_ID, Text, TranslateError

if TYPE_CHECKING:
    from edgebm.runtime.session import Session
    from edgebm.runtime.stream import Stream

# compress.sh compiles the encoder for these numbers of subwords; sentences are filled up to them.
LENGTHS = (16, 32, 48)
_ENCODER = {"input_ids", "attention_mask"}
_DECODER = {"input_ids", "position", "parents", "encoder_attention_mask"}


@dataclass(frozen=True)
class Translation:
    """The English sentence, how it was found, and what of the German one was lost.

    `found` is None for a sentence without words.
    """

    text: str
    found: Found | None
    losses: tuple[str, ...] = ()


@dataclass
class Times:
    """In ns: every step of the decoder, and every sentence from text to text."""

    step_ns: list[int] = field(default_factory=list)
    sentence_ns: list[int] = field(default_factory=list)
    tokens: int = 0

    def per_second(self, taken_ns: list[int]) -> float:
        """Subwords written in a second of these."""
        return self.tokens / (sum(taken_ns) / 1e9) if taken_ns else 0.0


class Decoder:
    """`rows` hypotheses about one source; the stream keeps what each has written."""

    def __init__(self, stream: Stream, rows: int, times: Times) -> None:
        self._stream, self._times = stream, times
        self._feeds: dict[str, NDArray[Any]] = {}
        for spec in stream.inputs:
            shape = tuple(rows if isinstance(dim, str) else dim for dim in spec.shape)
            self._feeds[spec.name] = np.zeros(shape, spec.dtype)
        self._mask = self._feeds["encoder_attention_mask"]
        self.window = self._mask.shape[1]

    def begin(self, read: dict[str, NDArray[Any]], tokens: int) -> None:
        """A new source of so many subwords; `read` is what the encoder gave."""
        self._stream.reset()
        self._mask[:] = np.arange(self.window) < tokens
        for name, array in read.items():
            if name in self._feeds:
                # What is behind the source is masked, and any number that is finite will do.
                self._feeds[name][:, :, : array.shape[2]] = array

    def step(self, tokens: I64, position: int, parents: I64) -> F32:
        """Scores [rows, vocabulary] of what comes next; see `search.Step`."""
        begin_ns = time.perf_counter_ns()
        feeds = self._feeds
        feeds["input_ids"][:, 0] = tokens
        feeds["position"][0] = position
        feeds["parents"][:] = parents
        scores: F32 = self._stream.step(feeds)["logits"][:, 0]
        self._times.step_ns.append(time.perf_counter_ns() - begin_ns)
        return scores

    def model(self) -> list[int]:
        """The digests of the weights and of the tokenizer that the decoder was made with."""
        self._mask[:, 0] = 1
        return list(self._stream.step(self._feeds)["model"].tolist())


class Translator:
    """Sentence after sentence, with `rows` hypotheses each; 1 is greedy.

    Sessions and stream stay the caller's to close. `times` counts from the last sentence back to
    the beginning.

    Raises:
        TranslateError: encoder, decoder and tokenizer do not belong together.
    """

    def __init__(self, encoder: Session, stream: Stream, text: Text, rows: int = 1) -> None:
        self._encoder, self._text, self._rows = encoder, text, rows
        _check_face(encoder, _ENCODER, "encoder")
        _check_face(stream, _DECODER, "decoder")
        self.times = Times()
        self._decoder = Decoder(stream, rows, self.times)
        self._check_models()

    def __call__(self, sentence: str) -> Translation:
        """A sentence without words gives an empty one."""
        begin_ns = time.perf_counter_ns()
        if not sentence.strip():
            return Translation("", None)
        decoder = self._decoder
        source = self._text.read(sentence, decoder.window)
        decoder.begin(self._read(source.ids), len(source.ids))
        if self._rows == 1:
            found = greedy(decoder.step, decoder.window)
        else:
            found = beam(decoder.step, decoder.window, self._rows)
        written = self._text.written(found.ids)
        self.times.tokens += len(found.ids) + found.ended
        self.times.sentence_ns.append(time.perf_counter_ns() - begin_ns)
        losses = source.losses
        if not found.ended:
            losses = (*losses, f"the translation is cut behind {len(found.ids)} subwords")
        return Translation(written, found, losses)

    def _read(self, ids: list[int]) -> dict[str, NDArray[Any]]:
        """What the encoder gives for a sentence, filled up to a length it was compiled for."""
        length = next((n for n in LENGTHS if n >= len(ids)), len(ids))
        filled, mask = np.full((1, length), PADDING_ID), np.zeros((1, length), np.int64)
        filled[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        return self._encoder.run(input_ids=filled, attention_mask=mask)

    def _check_models(self) -> None:
        model = self._read([END_ID])["model"].tolist()
        if self._decoder.model() != model:
            raise TranslateError(
                "encoder and decoder are of different models: take both from one run of "
                "compress.sh"
            )
        if self._text.digest != model[2:]:
            raise TranslateError(
                "tokenizer.json is not the one that the model was trained with: take it from the "
                "folder that train.py wrote"
            )


def _check_face(part: Session | Stream, wanted: set[str], name: str) -> None:
    inputs, outputs = ({spec.name for spec in face} for face in (part.inputs, part.outputs))
    if not wanted <= inputs or "model" not in outputs:
        raise TranslateError(
            f"the bundle of the {name} takes {', '.join(sorted(inputs))}: it is another model; "
            "compress.sh makes the two that are needed"
        )
