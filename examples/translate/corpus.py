"""Pairs of sentences, their subwords, and batches of them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from text import END, END_ID, PADDING, PADDING_ID, START, START_ID, UNKNOWN
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

FOLDER = "multi30k_en_de"
BATCH_TOKENS = 2000
Rows = list[list[int]]


@dataclass(frozen=True)
class Pairs:
    """German sentences, and the English one of each."""

    german: list[str]
    english: list[str]

    def __len__(self) -> int:
        return len(self.german)

    def __getitem__(self, chosen: slice) -> Pairs:
        return Pairs(self.german[chosen], self.english[chosen])


def read(data: Path, part: str) -> Pairs:
    """`part` is train, val or test_2016_flickr."""
    german, english = (_lines(data / FOLDER / f"{part}.{end}.gz") for end in ("de", "en"))
    if len(german) != len(english):
        raise SystemExit(f"{part} has {len(german)} German and {len(english)} English lines")
    return Pairs(german, english)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise SystemExit(f"{path} is missing: name the folder that holds {FOLDER}/ with --data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def train_tokenizer(pairs: Pairs, size: int) -> Tokenizer:
    """Byte pair encoding (Sennrich et al. 2016, section 3.2) of both languages together."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PADDING, START, END, UNKNOWN],  # in the order of their ids
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*pairs.german, *pairs.english], trainer)
    return tokenizer


def encoded(tokenizer: Tokenizer, pairs: Pairs, window: int) -> tuple[Rows, Rows]:
    """Subwords of either side: German ends with the end, English also begins with the start.

    At most `window` are read, and as many are written.
    """
    german, english = (
        [row.ids[: window - 1] for row in tokenizer.encode_batch(side)]
        for side in (pairs.german, pairs.english)
    )
    return [[*row, END_ID] for row in german], [[START_ID, *row, END_ID] for row in english]


def padded(rows: Rows, least: int = 0) -> Tensor:
    """[rows, tokens of the longest], and `least` tokens where that is more."""
    longest = max(least, *map(len, rows))
    return torch.tensor([row + [PADDING_ID] * (longest - len(row)) for row in rows])


def batches(
    source: Rows, target: Rows, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sentences of about one length together, some 2,000 tokens of either side at a time."""
    # Sorting keeps the random order of sentences of one length: no batch comes twice.
    order = sorted(
        random.permutation(len(source)).tolist(), key=lambda i: (len(target[i]), len(source[i]))
    )
    groups: Rows = [[]]
    longest = 0
    for i in order:
        longest = max(longest, len(source[i]), len(target[i]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > BATCH_TOKENS:
            groups.append([])
            longest = max(len(source[i]), len(target[i]))
        groups[-1].append(i)
    for k in random.permutation(len(groups)):
        yield padded([source[i] for i in groups[k]]), padded([target[i] for i in groups[k]])
