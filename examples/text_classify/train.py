"""Fine-tunes a BERT-class encoder on SST-2: is what a sentence says of a film good or bad?

    pip install "edgebm[train,huggingface]"
    python train.py --from all-MiniLM-L6-v2 --data PATH --out sst2 --bf16

`--from` is a local folder of a BERT-class encoder, such as all-MiniLM-L6-v2; without it a small
one is trained from nothing, for a quick look. Written are

- `model/`: encoder and head, for `edgebm compress`: token ids to `logits` [batch, 2];
- `texts.jsonl`: training sentences and parts of them, without labels, to calibrate and to teach;
- `dev.jsonl`, `test.jsonl`: sentences with labels, 0 negative and 1 positive;
- `test.npz`: the same as token ids, for `../medical_ecg/figures.py`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base import LONGEST, begin, save
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from edgebm.errors import DataError, EdgebmError

SEED, BATCH, RATE = 0, 32, 5e-5
NAMES = ("negative", "positive")
_BREAKS = re.compile(r" [,;:] | but | and | while ")
Reviews = tuple[list[str], NDArray[np.int64]]


def read(data: Path, part: str, limit: int | None) -> Reviews:
    """Sentences and labels of one part (train, dev, test) of SST-2.

    Raises:
        DataError: the file is missing, or a line is of another form.
    """
    path = data / "sst2" / f"sst2_{part}.tsv.gz"
    if not path.is_file():
        raise DataError(
            f"there is no {path}",
            hint="name the folder that holds sst2/ with --data PATH or EDGEBM_DATA=PATH",
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    wrong = next((n for n, row in enumerate(rows, 1) if len(row) != 2 or row[1] not in "01"), 0)
    if wrong:
        raise DataError(
            f"{path}, line {wrong}: not a text, a tab and 0 or 1", hint="copy it again"
        )
    chosen = np.random.default_rng(SEED).permutation(len(rows))[:limit]
    return [rows[k][0].strip() for k in chosen], np.array([int(rows[k][1]) for k in chosen])


def parts_of(texts: list[str]) -> list[str]:
    """The texts and their parts between commas and conjunctions, three words at least."""
    found = dict.fromkeys(texts)
    for text in texts:
        found |= dict.fromkeys(p for p in _BREAKS.split(text) if len(p.split()) >= 3)
    texts = list(found)
    np.random.default_rng(SEED).shuffle(texts)
    return texts


def tokens(tokenizer: Tokenizer, texts: list[str], length: int | None = None) -> dict[str, Tensor]:
    """Ids, mask and types, each [n, length]; without `length` that of the longest."""
    tokenizer.enable_truncation(LONGEST)
    padding = tokenizer.token_to_id("[PAD]")
    tokenizer.enable_padding(pad_id=padding, pad_token="[PAD]", length=length)
    encoded = tokenizer.encode_batch(texts)
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {
        name: torch.tensor([getattr(each, field) for each in encoded])
        for name, field in fields.items()
    }


@torch.inference_mode()
def accuracy(tokenizer: Tokenizer, model: Any, reviews: Reviews) -> float:
    """Percent of the sentences whose label has the higher score."""
    model.eval()
    texts, labels = reviews
    found = [
        model(**tokens(tokenizer, texts[at : at + 100])).logits.argmax(1)
        for at in range(0, len(texts), 100)
    ]
    return 100 * float((torch.cat(found).numpy() == labels).mean())


def fit(tokenizer: Tokenizer, model: Any, reviews: Reviews, options: argparse.Namespace) -> None:
    """AdamW, warmed up and then falling to zero; prints the loss of each epoch."""
    texts, labels = reviews
    random = np.random.default_rng(SEED)
    steps = max(1, len(texts) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), options.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, options.epochs * steps, pct_start=0.1
    )
    for epoch in range(options.epochs):
        begun, total = time.perf_counter(), 0.0
        model.train()
        # Sentences that are about as long share a batch, so that little is padding.
        order = np.argsort([len(text) + random.uniform(0, 40) for text in texts])
        batches = np.array_split(order, steps)
        for number in random.permutation(steps):
            chosen = batches[number]
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                scores = model(**tokens(tokenizer, [texts[k] for k in chosen])).logits
            loss = functional.cross_entropy(scores.float(), torch.from_numpy(labels[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - begun
        mean = total / steps
        print(f"epoch {epoch + 1}/{options.epochs}: loss {mean:.3f}, {seconds:.0f} s", flush=True)


def write(path: Path, texts: list[str], labels: NDArray[np.int64] | None = None) -> None:
    """One text a line, as `edgebm compress` reads it."""
    rows: list[dict[str, Any]] = [{"text": text} for text in texts]
    for row, label in zip(rows, labels if labels is not None else (), strict=False):
        row["label"] = int(label)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def main() -> int:
    """Begin, train, count and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="base", type=Path, help="local folder of an encoder")
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEBM_DATA", ""))
    parser.add_argument("--out", type=Path, default=Path("sst2"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--sentences", type=int, help="of each part, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="faster where the CPU has bf16")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    try:
        parts = {
            name: read(Path(options.data), name, options.sentences)
            for name in ("train", "dev", "test")
        }
        settings = {"num_labels": 2, "id2label": dict(enumerate(NAMES))}
        kind = AutoModelForSequenceClassification
        tokenizer, model = begin(options.base, parts["train"][0], kind, **settings)
    except EdgebmError as error:
        print(f"error: {error}\nhint:  {error.hint}", file=sys.stderr)
        return error.exit_code
    fit(tokenizer, model, parts["train"], options)
    options.out.mkdir(parents=True, exist_ok=True)
    save(tokenizer, model, options.out / "model")
    write(options.out / "texts.jsonl", parts_of(parts["train"][0]))
    for name in ("dev", "test"):
        write(options.out / f"{name}.jsonl", *parts[name])
        right = accuracy(tokenizer, model, parts[name])
        print(f"{name}: {right:.2f} % of {len(parts[name][1])} sentences", flush=True)
    arrays = {
        key: each.numpy() for key, each in tokens(tokenizer, parts["test"][0], LONGEST).items()
    }
    if model.config.type_vocab_size < 2:
        del arrays["token_type_ids"]
    np.savez_compressed(options.out / "test.npz", **arrays, labels=parts["test"][1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
