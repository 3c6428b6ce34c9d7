"""A model of texts that is made in a second: a sum of word vectors, and a tokenizer for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from graphs import random_model
from text_models import save_tokenizer
from tiny_models import QUICK

import edgebm

WIDTH = 8
_TEXT = """g (int64[batch,tokens] input_ids, int64[batch,tokens] attention_mask)
  => (float[batch,WIDTH] OUTPUT) {
    vectors = Gather(table, input_ids)
    mask = Cast<to=1>(attention_mask)
    one = Constant<value_ints=[1]>()
    row = Unsqueeze(mask, one)
    total = MatMul(row, vectors)
    OUTPUT = Squeeze(total, one)
  }"""


def save_bundle(folder: Path, output: str = "sentence_embedding", width: int = WIDTH) -> Path:
    """`words.edgebm`, float, and tokenizer.json beside it. Padding changes no answer."""
    save_tokenizer(folder)
    text = _TEXT.replace("OUTPUT", output).replace("WIDTH", str(width))
    ids = np.random.default_rng(0).integers(0, 11, (12, 16))
    samples = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    out = folder / "words.edgebm"
    model = random_model(text, table=(11, width))
    edgebm.compress(model, recipe="fp32", data=samples, out=out, **QUICK)
    return out
