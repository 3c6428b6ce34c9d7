"""Lines of text through a bundle: each in the shortest bucket of tokens that holds it.

For device programs: numpy, tokenizers and edgebm, no torch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import DataError, EdgebmError

LENGTHS = (16, 32, 64)  # tokens; compress.sh gives each a fixed copy
F32 = NDArray[np.float32]
_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
_PADDINGS = ("[PAD]", "<pad>")


@dataclass(slots=True)
class Lines:
    """Texts with their line numbers, from 1; what is blank or no UTF-8 is left out and counted."""

    name: str
    damaged: int = 0
    blank: int = 0

    def read(self, raw: Iterable[bytes]) -> Iterator[tuple[int, str]]:
        """The texts of a stream, as they come."""
        for number, line in enumerate(raw, 1):
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                self.damaged += 1
                place = f"{self.name}, line {number}"
                print(f"{place}: left out, no UTF-8 ({error.reason})", file=sys.stderr)
                continue
            if text:
                yield number, text
            else:
                self.blank += 1

    def read_file(self, path: Path) -> list[tuple[int, str]]:
        """The texts of a file.

        Raises:
            DataError: it cannot be read, or holds no text.
        """
        try:
            with path.open("rb") as raw:
                found = list(self.read(raw))
        except OSError as cause:
            raise DataError(
                f"{path} cannot be read: {cause.strerror}", hint="give a file of texts, one a line"
            ) from cause
        if not found:
            raise DataError(
                f"{path} holds no text: {self.damaged} lines are no UTF-8, {self.blank} are blank",
                hint="give UTF-8 texts, one a line",
            )
        return found


@dataclass(slots=True)
class Tally:
    """What was answered: milliseconds of each call by (texts, tokens), and texts cut off."""

    calls_ms: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    cut: int = 0

    def __str__(self) -> str:
        texts = sum(rows * len(times) for (rows, _), times in self.calls_ms.items())
        lines = [f"{texts} texts, {self.cut} of them cut off at the longest bucket"]
        for (rows, tokens), times in sorted(self.calls_ms.items()):
            p50, p99 = np.percentile(times, (50, 99))
            lines.append(
                f"{rows}x{tokens} tokens: {len(times)} calls, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
            )
        return "\n".join(lines)


class TextModel:
    """A session whose inputs are token ids, and the tokenizer that was trained with it.

    Args:
        session: an open session.
        tokenizer: tokenizer.json of the model's folder.
        lengths: buckets in tokens; a text longer than the last one is cut off there.
        batch: texts of one bucket that make one call; what is left over goes one by one.

    Raises:
        DataError: the bundle takes something else than token ids or gives no row a text, or the
            tokenizer cannot be used.
    """

    def __init__(
        self,
        session: Any,
        tokenizer: Path,
        lengths: Sequence[int] = LENGTHS,
        batch: int = 1,
    ) -> None:
        others = [str(spec) for spec in session.inputs if spec.name not in _FIELDS]
        answers = [spec for spec in session.outputs if len(spec.shape) == 2]
        if others or len(answers) != 1 or len(session.outputs) != 1:
            gives = ", ".join(map(str, session.outputs))
            takes = f"takes {', '.join(others)}" if others else f"gives {gives}"
            raise DataError(
                f"the bundle {takes}, and is no model of texts with one row a text",
                hint=f"its inputs are called {', '.join(_FIELDS)}; compress.sh makes such a one",
            )
        self.session = session
        self.output = answers[0].name
        self.tally = Tally()
        self._lengths, self._batch = sorted(lengths), batch
        self._tokenizer = read_tokenizer(tokenizer)
        self._tokenizer.enable_truncation(self._lengths[-1])
        found = (self._tokenizer.token_to_id(name) for name in _PADDINGS)
        self._padding = next((number for number in found if number is not None), None)
        if self._padding is None:
            raise DataError(
                f"{tokenizer} has no token for padding ({', '.join(_PADDINGS)})",
                hint="take the tokenizer.json of the folder that was compressed",
            )

    def run(self, texts: Sequence[str]) -> tuple[F32, NDArray[np.bool_]]:
        """A row for each text [n, width], in their order, and which were cut off [n].

        Raises:
            EdgebmError: a call failed.
        """
        encoded = self._tokenizer.encode_batch(list(texts))
        cut = np.array([bool(each.overflowing) for each in encoded], bool)
        self.tally.cut += int(cut.sum())
        fits = np.searchsorted(self._lengths, [len(each.ids) for each in encoded])
        rows: dict[int, F32] = {}
        for bucket, length in enumerate(self._lengths):
            places = np.flatnonzero(fits == bucket)
            for some in self._calls(places):
                given = self._feeds([encoded[place] for place in some], length)
                begun = time.perf_counter()
                answer = self.session.run(given)[self.output]
                taken_ms = 1e3 * (time.perf_counter() - begun)
                self.tally.calls_ms.setdefault((len(some), length), []).append(taken_ms)
                rows.update(zip(some.tolist(), answer, strict=True))
        return np.stack([rows[place] for place in range(len(texts))]), cut

    def _calls(self, places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Full batches, then one by one: other sizes would each be a shape to prepare."""
        full = len(places) // self._batch * self._batch
        yield from places[:full].reshape(-1, self._batch)
        if self._batch > 1:
            yield from places[full:].reshape(-1, 1)

    def _feeds(self, encoded: Sequence[Any], length: int) -> dict[str, NDArray[Any]]:
        feeds = {}
        for spec in self.session.inputs:
            rest = self._padding if spec.name == "input_ids" else 0
            made = np.full((len(encoded), length), rest, np.dtype(spec.dtype))
            for row, each in zip(made, encoded, strict=True):
                row[: len(each.ids)] = getattr(each, _FIELDS[spec.name])
            feeds[spec.name] = made
        return feeds


def read_tokenizer(path: Path) -> Any:
    """A tokenizer of the package tokenizers.

    Raises:
        DataError: there is none, it is damaged, or the package is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as cause:
        raise DataError(
            f"reading {path} needs tokenizers, which is not installed",
            hint="pip install tokenizers",
        ) from cause
    hint = "copy tokenizer.json of the model's folder beside the bundle, or name it: --tokenizer"
    if not path.is_file():
        raise DataError(f"there is no tokenizer {path}", hint=hint)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as cause:  # the package raises nothing more special
        raise DataError(f"{path} is no readable tokenizer: {cause}", hint=hint) from cause
    tokenizer.no_padding()
    return tokenizer


def end(program: Callable[[], int]) -> int:
    """Run a program; what it refuses becomes two lines on stderr and an exit code."""
    try:
        return program()
    except EdgebmError as error:
        print(f"error: {error}\nhint:  {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the answers has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
