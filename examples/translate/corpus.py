"""Pairs of sentences, and the subword tokenizer that both languages share."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from text import END, PADDING, START, UNKNOWN
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

FOLDER = "multi30k_en_de"


@dataclass(frozen=True)
class Pairs:
    """German sentences, and the English one of each."""

    german: list[str]
    english: list[str]

    def __len__(self) -> int:
        return len(self.german)

    def __getitem__(self, chosen: slice) -> Pairs:
        return Pairs(self.german[chosen], self.english[chosen])


def lines(path: Path) -> list[str]:
    """The sentences of a gzip file, one a line."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing: name the folder that holds {FOLDER}/ with --data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def read(data: Path, part: str) -> Pairs:
    """`part` is train, val or test_2016_flickr."""
    german, english = (lines(data / FOLDER / f"{part}.{end}.gz") for end in ("de", "en"))
    if len(german) != len(english):
        raise SystemExit(f"{part}: {len(german)} German and {len(english)} English lines")
    return Pairs(german, english)


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
        special_tokens=[PADDING, START, END, UNKNOWN],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*pairs.german, *pairs.english], trainer)
    return tokenizer
