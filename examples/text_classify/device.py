"""Tells good reviews from bad ones on the device: numpy, tokenizers and edgebm, no torch.

    python device.py sentiment.edgebm reviews.txt
    python device.py sentiment.edgebm < reviews.txt
    python device.py sentiment.edgebm test.jsonl       # with labels: counts what is right

One line of text, one answer: label, probability as the model sees it, and the text. Lines of stdin
are answered as they come. tokenizer.json of the model's folder lies beside the bundle. Answers go
to stdout, what there is to say about the run to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from texts import LENGTHS, Lines, TextModel, end

import edgebm
from edgebm.errors import DataError

CHUNK = 1024  # lines of a file that are tokenized and grouped at a time
NAMES = ("negative", "positive")


@dataclass(slots=True)
class Counts:
    """What was answered, and how often it was what the label says."""

    labels: dict[int, int] = field(default_factory=dict)  # by line number
    answers: list[int] = field(default_factory=list)
    right: int = 0
    judged: int = 0

    def add(self, number: int, place: int) -> None:
        """One answer."""
        self.answers.append(place)
        if number in self.labels:
            self.judged += 1
            self.right += self.labels[number] == place

    def __str__(self) -> str:
        told = ", ".join(f"{self.answers.count(k)} {name}" for k, name in enumerate(NAMES))
        if self.judged:
            percent = 100 * self.right / self.judged
            told += f"; {self.right} of {self.judged} as labelled ({percent:.2f} %)"
        return told


def probabilities(logits: Any) -> Any:
    """Softmax along the last axis."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def labelled(path: Path, found: list[tuple[int, str]], counts: Counts) -> list[tuple[int, str]]:
    """The texts of lines such as {"text": "...", "label": 0}; labels go to `counts`.

    Raises:
        DataError: a line is of another form.
    """
    texts = []
    for number, line in found:
        try:
            record = json.loads(line)
            text = record["text"]
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(
                f"{path}, line {number} is no JSON object with a text",
                hint='a line is {"text": "...", "label": 0}; plain texts belong in a .txt file',
            ) from cause
        if not isinstance(text, str):
            raise DataError(f"{path}, line {number}: the text is none", hint="give a string")
        if record.get("label") is not None:
            counts.labels[number] = record["label"]
        texts.append((number, text))
    return texts


def chunks(lines: Iterable[tuple[int, str]], size: int) -> Iterator[Sequence[tuple[int, str]]]:
    """Lists of `size` lines; the last one may be shorter."""
    rest = iter(lines)
    while some := list(islice(rest, size)):
        yield some


def answer(
    model: TextModel, lines: Iterable[tuple[int, str]], size: int, counts: Counts, name: str
) -> None:
    """Print an answer for each line, in their order."""
    for some in chunks(lines, size):
        logits, cut = model.run([text for _, text in some])
        shares = probabilities(logits.astype(np.float64))
        for (number, text), share, short in zip(some, shares, cut, strict=True):
            place = int(share.argmax())
            counts.add(number, place)
            print(f"{NAMES[place]}\t{share[place]:.3f}\t{text}")
            if short:
                print(f"{name}, line {number}: cut off, too long", file=sys.stderr)
        sys.stdout.flush()


def main() -> int:
    """Load, answer, and say how fast that was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("file", type=Path, nargs="?", help=".txt or .jsonl; default: stdin")
    parser.add_argument("--tokenizer", type=Path, help="default: tokenizer.json by the bundle")
    parser.add_argument("--batch", type=int, default=1, help="texts of a file for one call")
    options = parser.parse_args()
    if options.batch < 1:
        parser.error("--batch must be 1 or more")
    tokenizer = options.tokenizer or options.bundle.with_name("tokenizer.json")
    name = str(options.file or "stdin")
    lines, counts = Lines(name), Counts()
    with edgebm.load(options.bundle) as session:
        model = TextModel(session, tokenizer, LENGTHS, options.batch if options.file else 1)
        if session.outputs[0].shape[1] != len(NAMES):
            raise DataError(
                f"the bundle gives {session.outputs[0]}, and {len(NAMES)} scores are needed",
                hint="give the bundle that compress.sh made of this example's model",
            )
        texts: Iterable[tuple[int, str]]
        if options.file:
            texts = lines.read_file(options.file)
            if options.file.suffix == ".jsonl":
                texts = labelled(options.file, list(texts), counts)
        else:
            texts = lines.read(sys.stdin.buffer)
        begun = time.perf_counter()
        answer(model, texts, CHUNK if options.file else 1, counts, name)
        seconds = time.perf_counter() - begun
        report = session.report()
    if not counts.answers:
        raise DataError(f"{name} holds no text", hint="give UTF-8 texts, one a line")
    print(
        f"{counts}\n{len(counts.answers) / seconds:.0f} a second, tokenizing included; "
        f"{lines.damaged} lines left out that are no UTF-8, {lines.blank} blank\n"
        f"{report['runtime']}, {report['precision']}: {model.tally}",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(end(main))
