"""Trains a small Transformer that translates German into English, and exports it.

    pip install "edgebm[train]" tokenizers
    python train.py --data PATH --out translate --bf16
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus import Pairs, read, train_tokenizer
from model import Sizes, Transformer
from torch import Tensor, nn
from torch.nn import functional

SEED, PEAK_RATE, SMOOTHING = 0, 2e-3, 0.1
BATCH_TOKENS = 2000
PAD, BEGIN, STOP = 0, 1, 2
Rows = list[list[int]]


def padded(rows: Rows) -> Tensor:
    """[rows, tokens of the longest]."""
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def batches(
    source: Rows, target: Rows, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sentences of about one length together, some 2,000 tokens of either side at a time."""
    order = random.permutation(len(source))
    # Of equal length in any order: no batch is the same twice.
    order = sorted(order, key=lambda i: (len(target[i]), len(source[i])))
    groups: list[list[int]] = [[]]
    longest = 0
    for i in order:
        longest = max(longest, len(source[i]), len(target[i]))
        if groups[-1] and longest * (len(groups[-1]) + 1) > BATCH_TOKENS:
            groups.append([])
            longest = max(len(source[i]), len(target[i]))
        groups[-1].append(i)
    for k in random.permutation(len(groups)):
        yield padded([source[i] for i in groups[k]]), padded([target[i] for i in groups[k]])


def loss_of(net: Transformer, source: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy of the tokens behind the first; padding counts for nothing."""
    states = net(source, source != PAD, target[:, :-1])
    labels = target[:, 1:]
    real = labels != PAD
    scores = net.scores(states[real])
    return functional.cross_entropy(scores.float(), labels[real], label_smoothing=smoothing)


def fit(
    net: Transformer, train: tuple[Rows, Rows], held: tuple[Rows, Rows], epochs: int, bf16: bool,
    keep
) -> None:
    random = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(
        net.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    steps = sum(1 for _ in batches(*train, np.random.default_rng(SEED)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=epochs * (steps + 2), pct_start=0.1
    )
    for epoch in range(epochs):
        begin, total, count = time.perf_counter(), 0.0, 0
        net.train()
        for source, target in batches(*train, random):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(net, source, target, SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total, count = total + float(loss.detach()), count + 1
            if count % 20 == 0: print(count, steps, f"{total/count:.3f} {time.perf_counter()-begin:.0f}", flush=True)
        net.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = [float(loss_of(net, *b, 0.0)) for b in batches(*held, random)]
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / count:.3f}, held out "
            f"{sum(losses) / len(losses):.3f}, {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
        keep()


def rows_of(tokenizer, pairs: Pairs, window: int) -> tuple[Rows, Rows]:
    source = [e.ids[: window - 1] + [STOP] for e in tokenizer.encode_batch(pairs.german)]
    target = [
        [BEGIN, *e.ids[: window - 1], STOP] for e in tokenizer.encode_batch(pairs.english)
    ]
    return source, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEBM_DATA"))
    parser.add_argument("--out", type=Path, default=Path("translate"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--vocabulary", type=int, default=4000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = read(options.data, "train")[: options.pairs]
    tokenizer = train_tokenizer(pairs, options.vocabulary)
    tokenizer.save(str(options.out / "tokenizer.json"))
    sizes = Sizes(tokenizer.get_vocab_size(), options.width)
    net = Transformer(sizes)
    train = rows_of(tokenizer, pairs, sizes.window)
    held = rows_of(tokenizer, read(options.data, "val"), sizes.window)
    lens = [len(r) for r in train[0]]; lent = [len(r) for r in train[1]]
    print(sizes, np.percentile(lens, [50, 99, 100]), np.percentile(lent, [50, 99, 100]), np.mean(lens), np.mean(lent))
    def keep() -> None:
        np.savez(options.out / "weights.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
    fit(net, train, held, options.epochs, options.bf16, keep)


if __name__ == "__main__":
    main()
