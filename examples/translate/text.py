"""Sentences as subwords and back: what the device needs of the tokenizer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

PADDING, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
PADDING_ID, START_ID, END_ID, UNKNOWN_ID = range(4)


class TranslateError(Exception):
    """What a user can put right; the message says how."""


@dataclass(frozen=True)
class Source:
    """Subwords of a sentence, its end included, and what is lost: a sentence each, or nothing."""

    ids: list[int]
    losses: tuple[str, ...]


def digest(raw: bytes) -> list[int]:
    """62 bits of the SHA-256, as two numbers: OpenVINO computes int64 in 32 bits."""
    words = hashlib.sha256(raw).digest()[:8]
    return [int.from_bytes(words[k : k + 4], "big") >> 1 for k in (0, 4)]


class Text:
    """The tokenizer in `tokenizer.json`.

    Raises:
        TranslateError: it is missing, cannot be read, or has other special tokens.
    """

    def __init__(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError as cause:
            raise TranslateError(
                f"{path} cannot be read: {cause.strerror}; train.py writes it, and it has to lie "
                "beside the bundles"
            ) from cause
        try:
            self._tokenizer = Tokenizer.from_str(raw.decode("utf-8"))
        except Exception as cause:  # the package raises nothing narrower
            raise TranslateError(
                f"{path} is no tokenizer: {cause}; copy the one that train.py wrote"
            ) from cause
        known = [self._tokenizer.id_to_token(i) for i in range(4)]
        if known != [PADDING, START, END, UNKNOWN]:
            raise TranslateError(
                f"{path} begins with the tokens {known}; copy the one that train.py wrote"
            )
        self.digest = digest(raw)

    def read(self, sentence: str, limit: int) -> Source:
        """At most `limit` subwords of a sentence, the last one its end."""
        found = self._tokenizer.encode(sentence, add_special_tokens=False)
        losses = []
        odd = {
            sentence[begin:end].strip()
            for number, (begin, end) in zip(found.ids, found.offsets, strict=True)
            if number == UNKNOWN_ID
        }
        if odd:
            shown = ", ".join(repr(text) for text in sorted(odd))
            losses.append(f"the model has never seen {shown}")
        ids = found.ids[: limit - 1]
        if len(ids) < len(found.ids):
            kept = sentence[: found.offsets[len(ids) - 1][1]]
            losses.append(
                f"{len(found.ids)} subwords are too many: it is cut to {len(ids)}, behind "
                f"{kept[-20:]!r}"
            )
        return Source([*ids, END_ID], tuple(losses))

    def written(self, ids: list[int]) -> str:
        """The sentence that subwords make."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
