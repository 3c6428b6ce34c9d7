"""The vectors of many sentences in one file, bound to the bundle that they were made with."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from texts import F32

from edgebm.errors import DataError

_AGAIN = "build it again with this bundle: --build SENTENCES.txt"


@dataclass(frozen=True, slots=True)
class Index:
    """`vectors` [n, width], each of length 1, of `texts`; `numbers` are their lines, from 1.

    `made_with` are the SHA-256 of the bundle and of the tokenizer.
    """

    vectors: F32
    texts: list[str]
    numbers: NDArray[np.int64]
    made_with: tuple[str, str]

    def nearest(self, vector: F32, count: int) -> list[tuple[float, int, str]]:
        """Cosine similarity, line and text of the `count` most alike, the most alike first."""
        scores = self.vectors @ unit(vector[None])[0]
        order = np.argsort(-scores, kind="stable")[:count]
        return [(float(scores[k]), int(self.numbers[k]), self.texts[k]) for k in order]

    def save(self, path: Path) -> None:
        """Write the file in one step: a reader sees the old one or the new one.

        Raises:
            DataError: it cannot be written.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    vectors=self.vectors,
                    # Not an array of texts: each would take as much as the longest.
                    texts=np.frombuffer("\n".join(self.texts).encode(), np.uint8),
                    numbers=self.numbers,
                    made_with=np.array(self.made_with),
                )
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as cause:
            part.unlink(missing_ok=True)
            raise DataError(
                f"{path} cannot be written: {cause.strerror}", hint="give --index another place"
            ) from cause


def unit(vectors: F32) -> F32:
    """Vectors [n, width] brought to length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def hashes(bundle: Path, tokenizer: Path) -> tuple[str, str]:
    """SHA-256 of both files; either changes the vectors."""
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (bundle, tokenizer))
    return first, second


def load_index(path: Path, made_with: tuple[str, str]) -> Index:
    """Read an index for the bundle and the tokenizer with these hashes.

    Raises:
        DataError: there is none, it is damaged, or was made with another bundle or tokenizer.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            vectors, numbers = file["vectors"], file["numbers"]
            texts = file["texts"].tobytes().decode().split("\n")
            held = [str(each) for each in file["made_with"]]
    except FileNotFoundError as cause:
        raise DataError(f"there is no index {path}", hint=_AGAIN) from cause
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as cause:
        raise DataError(f"{path} is no readable index: {cause}", hint=_AGAIN) from cause
    if vectors.ndim != 2 or not len(vectors) == len(texts) == len(numbers) or len(held) != 2:
        raise DataError(f"{path} is no index: its parts do not fit each other", hint=_AGAIN)
    for what, was, now in zip(("bundle", "tokenizer"), held, made_with, strict=True):
        if was != now:
            raise DataError(
                f"{path} was made with another {what}: sha256 {was[:16]}, and this one is "
                f"{now[:16]}; vectors of two models cannot be compared",
                hint=_AGAIN,
            )
    return Index(vectors, texts, numbers, made_with)
