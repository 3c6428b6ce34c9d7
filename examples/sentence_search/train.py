"""Fine-tunes a sentence encoder on STS-B, and writes it as a sentence-transformers folder.

    pip install "edgebm[train,huggingface]"
    python train.py --from all-MiniLM-L6-v2 --data PATH --out search

`--from` is a local folder of a BERT-class encoder that pools by the mean, such as
all-MiniLM-L6-v2; without it a small one is trained from nothing, for a quick look. Written are

- `model/`: the encoder, for `edgebm compress`: token ids to `sentence_embedding` [batch, width];
- `sentences.txt`: sentences without scores, to calibrate with and to teach a smaller model;
- `dev.jsonl`, `test.jsonl`: sentence pairs with scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base import LONGEST, begin, save
from numpy.typing import NDArray
from pairs import Pairs, data_folder, read_captions, read_stsb, spearman
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from edgebm.errors import EdgebmError

SEED, BATCH, RATE = 0, 32, 3e-5
SHARPNESS = 20.0  # lambda of CoSENT
Random = np.random.Generator


def tokens(tokenizer: Tokenizer, texts: list[str]) -> dict[str, Tensor]:
    """Ids and mask, both [n, tokens of the longest]."""
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": torch.tensor([each.ids for each in encoded]),
        "attention_mask": torch.tensor([each.attention_mask for each in encoded]),
    }


def embed(model: Any, fed: dict[str, Tensor]) -> Tensor:
    """The mean over the tokens that are no padding, brought to length 1: [n, width]."""
    states = model(**fed).last_hidden_state
    mask = fed["attention_mask"][:, :, None].to(states.dtype)
    return functional.normalize((states * mask).sum(1) / mask.sum(1))


def cosent(cosine: Tensor, scores: Tensor) -> Tensor:
    """log(1 + sum of exp(lambda (cos_j - cos_i)) over all i, j with score_i > score_j).

    Args:
        cosine: of the two vectors of each pair [pairs].
        scores: [pairs].

    Source:
        Huang et al. 2024, CoSENT, IEEE/ACM Trans. Audio, Speech, Lang. Process. 32.
    """
    wrong = SHARPNESS * (cosine[None, :] - cosine[:, None])[scores[:, None] > scores[None, :]]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)


@torch.inference_mode()
def judged(tokenizer: Tokenizer, model: Any, pairs: Pairs) -> float:
    """Spearman's rank correlation on the pairs, times 100."""
    model.eval()
    sides = []
    for texts in (pairs.first, pairs.second):
        parts = [texts[at : at + 100] for at in range(0, len(texts), 100)]
        sides.append(torch.cat([embed(model, tokens(tokenizer, part)) for part in parts]))
    return spearman(sides[0].numpy(), sides[1].numpy(), pairs.scores)


def batches(pairs: Pairs, random: Random) -> list[NDArray[np.int64]]:
    """All pairs in batches of sentences that are about as long, so that little is padding."""
    lengths = np.array([len(a) + len(b) for a, b in zip(pairs.first, pairs.second, strict=True)])
    order = np.argsort(lengths + random.uniform(0, 30, len(lengths)))
    made = np.array_split(order, max(1, len(order) // BATCH))
    return [made[k] for k in random.permutation(len(made))]


def fit(tokenizer: Tokenizer, model: Any, pairs: Pairs, epochs: int, rate: float) -> None:
    """AdamW, warmed up and then falling to zero; prints the loss of each epoch."""
    random = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    steps = epochs * max(1, len(pairs.scores) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    for epoch in range(epochs):
        begun, total, made = time.perf_counter(), 0.0, batches(pairs, random)
        model.train()
        for chosen in made:
            texts = [pairs.first[k] for k in chosen] + [pairs.second[k] for k in chosen]
            first, second = embed(model, tokens(tokenizer, texts)).chunk(2)
            loss = cosent((first * second).sum(1), torch.from_numpy(pairs.scores[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - begun
        mean = total / len(made)
        print(f"epoch {epoch + 1}/{epochs}: loss {mean:.3f}, {seconds:.0f} s", flush=True)


def write(tokenizer: Tokenizer, model: Any, folder: Path) -> None:
    """The encoder, and the files that say how a sentence's vector is made of its tokens'."""
    save(tokenizer, model, folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": k, "name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for k, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST}))
    for place in ("1_Pooling", "2_Normalize"):
        (folder / place).mkdir(exist_ok=True)
    width = model.config.hidden_size
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2))


def main() -> int:
    """Begin, train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="base", type=Path, help="local folder of an encoder")
    parser.add_argument("--data", type=Path, help="folder with stsb/ (default: $EDGEBM_DATA)")
    parser.add_argument("--out", type=Path, default=Path("search"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--pairs", type=int, help="use that many pairs, for a quick look")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    try:
        data = data_folder(options.data)
        parts = {name: read_stsb(data, name) for name in ("train", "dev", "test")}
        for name, part in parts.items() if options.pairs else ():
            chosen = np.random.default_rng(SEED).permutation(len(part.scores))[: options.pairs]
            sides = ([side[k] for k in chosen] for side in (part.first, part.second))
            parts[name] = Pairs(*sides, part.scores[chosen])
        train = parts["train"]
        tokenizer, model = begin(options.base, train.first + train.second)
    except EdgebmError as error:
        print(f"error: {error}\nhint:  {error.hint}", file=sys.stderr)
        return error.exit_code
    before = judged(tokenizer, model, parts["test"])
    print(f"before training: Spearman {before:.2f} on the test pairs", flush=True)
    fit(tokenizer, model, train, options.epochs, options.rate)
    options.out.mkdir(parents=True, exist_ok=True)
    write(tokenizer, model, options.out / "model")
    captions = read_captions(data)[: options.pairs]
    sentences = sorted({*train.first, *train.second, *captions})
    np.random.default_rng(SEED).shuffle(sentences)
    (options.out / "sentences.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")
    for name in ("dev", "test"):
        parts[name].save(options.out / f"{name}.jsonl")
        score = judged(tokenizer, model, parts[name])
        print(f"{name}: Spearman {score:.2f} on {len(parts[name].scores)} pairs", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
