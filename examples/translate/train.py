"""Trains a small Transformer that translates German into English, and exports it.

    pip install "edgebm[train]" tokenizers
    python train.py --data PATH --out translate --bf16

`--data` (or EDGEBM_DATA) is the folder that holds `multi30k_en_de/`. Written are

- `tokenizer.json`, which belongs beside the bundles on the device;
- `encoder.onnx` and `decoder.onnx` (see `graphs.py`), and `weights.npz`, of which `--weights`
  makes them again without training;
- `encoder.npz`: `input_ids` and `attention_mask` int64 [300, 32], training sentences;
- `decoder.npz`: what `samples.py` feeds, of 48 training sentences and 100 of the validation set.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import Pairs, Rows, batches, encoded, padded, read, train_tokenizer
from graphs import export, names
from model import Sizes, Transformer
from samples import CALIBRATION
from text import PADDING_ID, digest
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

SEED, PEAK_RATE, SMOOTHING = 0, 2e-3, 0.1
ENCODER_SAMPLES, ENCODER_LENGTH, JUDGED = 300, 32, 100


@dataclass(frozen=True)
class Course:
    """How long to train, and whether products are made in bfloat16."""

    epochs: int
    bf16: bool


def loss_of(net: Transformer, batch: tuple[Tensor, Tensor], smoothing: float) -> Tensor:
    """Mean cross entropy of the tokens behind the first; padding counts for nothing."""
    source, target = batch
    states = net(source, source != PADDING_ID, target[:, :-1])
    labels = target[:, 1:]
    real = labels != PADDING_ID
    scores = net.scores(states[real]).float()
    return functional.cross_entropy(scores, labels[real], label_smoothing=smoothing)


def fit(
    net: Transformer, train: tuple[Rows, Rows], held: tuple[Rows, Rows], course: Course
) -> None:
    """AdamW with one cycle of the rate; prints both losses of each epoch."""
    random = np.random.default_rng(SEED)
    steps = sum(1 for _ in batches(*train, np.random.default_rng(SEED)))
    optimizer = torch.optim.AdamW(
        net.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    # The number of batches differs a little from epoch to epoch.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=course.epochs * (steps + 2), pct_start=0.1
    )
    for epoch in range(course.epochs):
        begin, losses = time.perf_counter(), []
        net.train()
        for batch in batches(*train, random):
            with torch.autocast("cpu", torch.bfloat16, enabled=course.bf16):
                loss = loss_of(net, batch, SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        net.eval()
        with torch.inference_mode():
            judged = [float(loss_of(net, batch, 0.0)) for batch in batches(*held, random)]
        print(
            f"epoch {epoch + 1}/{course.epochs}: loss {np.mean(losses):.3f}, held out "
            f"{np.mean(judged):.3f}, {time.perf_counter() - begin:.0f} s",
            flush=True,
        )


@torch.inference_mode()
def write_samples(
    net: Transformer, folder: Path, train: tuple[Rows, Rows], held: tuple[Rows, Rows]
) -> None:
    """`encoder.npz` and `decoder.npz`."""
    random, window = np.random.default_rng(SEED), net.sizes.window
    short = [row for row in train[0] if len(row) <= ENCODER_LENGTH]
    chosen = random.permutation(len(short))[:ENCODER_SAMPLES]
    ids = padded([short[i] for i in chosen], ENCODER_LENGTH)
    mask = (ids != PADDING_ID).to(torch.int64)
    np.savez(folder / "encoder.npz", input_ids=ids.numpy(), attention_mask=mask.numpy())

    pairs = []
    for (source, target), count in ((train, CALIBRATION), (held, JUDGED)):
        pairs += [(source[i], target[i]) for i in random.permutation(len(source))[:count]]
    ids = padded([source for source, _ in pairs], window)
    mask = (ids != PADDING_ID).to(torch.int64)
    states = net.encode(ids, mask)
    read = [x.numpy() for layer in net.decoder for x in layer.cross.read(states)]
    np.savez(
        folder / "decoder.npz",
        tokens=padded([target for _, target in pairs]).numpy(),
        encoder_attention_mask=mask.numpy(),
        **dict(zip(names("cross", len(net.decoder)), read, strict=True)),
    )


def save_weights(net: Transformer, path: Path) -> list[int]:
    """Write them, and give their digest."""
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    np.savez(path, **arrays)
    return digest(b"".join(arrays[name].tobytes() for name in sorted(arrays)))


def load_weights(net: Transformer, path: Path) -> None:
    with np.load(path) as file:
        net.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEBM_DATA"))
    parser.add_argument("--out", type=Path, default=Path("translate"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pairs", type=int, help="train on so many, for a quick look")
    parser.add_argument("--vocabulary", type=int, default=4000, help="subwords")
    parser.add_argument("--width", type=int, default=256, help="a multiple of 8 heads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="faster where the CPU has bf16")
    parser.add_argument("--weights", type=Path, help="take these, and train nothing")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("name the folder of the data: --data PATH or EDGEBM_DATA=PATH")
    return chosen


def main() -> None:
    """Read, train and write."""
    chosen = options()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(SEED)
    chosen.out.mkdir(parents=True, exist_ok=True)
    pairs, others = read(chosen.data, "train")[: chosen.pairs], read(chosen.data, "val")
    make(pairs, others, chosen)


def make(pairs: Pairs, others: Pairs, chosen: argparse.Namespace) -> None:
    """All files, from pairs to train on and pairs to look at."""
    tokenizer = train_tokenizer(pairs, chosen.vocabulary)
    tokenizer.save(str(chosen.out / "tokenizer.json"))
    net = Transformer(sizes_of(tokenizer, chosen.width))
    train, held = (encoded(tokenizer, some, net.sizes.window) for some in (pairs, others))
    if chosen.weights:
        load_weights(net, chosen.weights)
    else:
        fit(net, train, held, Course(chosen.epochs, chosen.bf16))
    net.eval()
    weights = save_weights(net, chosen.out / "weights.npz")
    words = digest((chosen.out / "tokenizer.json").read_bytes())
    export(net, [*weights, *words], chosen.out)
    write_samples(net, chosen.out, train, held)
    count = sum(value.numel() for value in net.parameters())
    print(f"{count:,} weights, {tokenizer.get_vocab_size()} subwords, {len(pairs)} pairs")


def sizes_of(tokenizer: Tokenizer, width: int) -> Sizes:
    """The sizes of the network that go with a width."""
    return Sizes(
        tokenizer.get_vocab_size(), width, encoder_inner=2 * width, decoder_inner=6 * width
    )


if __name__ == "__main__":
    main()
