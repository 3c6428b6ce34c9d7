"""Trains a GRU that tells six spoken digits from everything else, frame by frame.

    pip install "edgebm[train]"
    python train.py --data PATH --out voice

writes `frames.onnx` (`features`, float32 [1, 50, 40], to `scores` [1, 50, 7]), `calibration.npz`
(training scenes without labels) and `valid.npz` (scenes that end where a clip ends, with the
word as label; from clips that were not trained on).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from features import BANDS, F32, HOP, I16, WINDOW, log_mel
from numpy.typing import NDArray
from recordings import SEED, Clips, Random, data_folder, load, noise, spoken
from spotter import WORDS
from torch import Tensor, nn
from torch.nn import functional

FRAMES = 150
_SAMPLES = WINDOW + (FRAMES - 1) * HOP
_IGNORED = -100  # of torch's cross entropy
_BATCH = 64


class Spotter(nn.Module):
    """Two GRU layers and a linear layer: scores [batch, frames, 7] of each frame."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(BANDS, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, len(WORDS) + 1)
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("deviation", torch.ones(BANDS))

    def forward(self, features: Tensor) -> Tensor:
        hidden, _ = self.gru((features - self.mean) / self.deviation)
        return self.head(hidden)


def class_of(digit: int) -> int:
    """1 to 6 for the keywords, 0 for the other digits."""
    return digit + 1 if digit < len(WORDS) else 0


def scene(clips: Clips, first: int, random: Random) -> tuple[I16, NDArray[np.int64]]:
    """1.5 s that begin with noise and hold clip `first` and others, and a class per frame.

    A keyword is known in its second half and a little longer; its first half and the moment
    after it count for nothing.
    """
    made = noise(_SAMPLES, random)
    classes = np.zeros(FRAMES, np.int64)
    ends = np.arange(FRAMES) * HOP + WINDOW
    at, i = int(random.uniform(0, 0.4) * 8000), first
    while at < _SAMPLES:
        backwards = random.random() < 0.1
        sound = spoken(clips.audio[i][:: -1 if backwards else 1], random)
        end = at + len(sound)
        made[at:end] += sound[: _SAMPLES - at]
        known = 0 if backwards else class_of(int(clips.digits[i]))
        if known:
            classes[(ends > at) & (ends <= end + 1200)] = _IGNORED
            classes[(ends > (at + end) // 2) & (ends <= end + 400)] = known
        at = end + int(random.uniform(0.15, 0.8) * 8000)
        i = int(random.integers(len(clips.audio)))
    return np.clip(np.rint(made), -32768, 32767).astype(np.int16), classes


def batch(clips: Clips, chosen: NDArray[np.int64], random: Random) -> tuple[Tensor, Tensor]:
    """Features [n, 150, 40] with a few bands blotted out, and classes [n, 150]."""
    scenes = [scene(clips, int(i), random) for i in chosen]
    features = np.stack([log_mel(samples) for samples, _ in scenes])
    for row in features:  # SpecAugment: Park et al. 2019, arXiv:1904.08779, section 2
        band, width = random.integers(0, BANDS - 5), random.integers(0, 5)
        row[:, band : band + width] = row.mean()
    return torch.from_numpy(features), torch.from_numpy(np.stack([c for _, c in scenes]))


def train(clips: Clips, hidden: int, epochs: int) -> Spotter:
    """Trains from scratch; prints the loss of each epoch."""
    torch.manual_seed(SEED)
    random, net = np.random.default_rng(SEED), Spotter(hidden)
    plain, _ = batch(clips, random.permutation(len(clips.audio))[:200], random)
    net.mean.copy_(plain.mean((0, 1)))
    net.deviation.copy_(plain.std((0, 1)))
    steps = max(1, len(clips.audio) // _BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps * epochs)
    for epoch in range(epochs):
        begin, total = time.perf_counter(), 0.0
        order = random.permutation(len(clips.audio))
        for step in range(steps):
            features, classes = batch(clips, order[step * _BATCH : (step + 1) * _BATCH], random)
            loss = functional.cross_entropy(net(features).flatten(0, 1), classes.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - begin
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}, {seconds:.0f} s", flush=True)
    return net.eval()


def ending_scenes(clips: Clips, random: Random) -> tuple[F32, NDArray[np.int64]]:
    """Features [n, 100, 40] that end 50 ms behind a clip, with noise in front, and its class."""
    rows = []
    for clip in clips.audio:
        made = noise(WINDOW + 99 * HOP, random)
        sound = spoken(clip, random)[-(len(made) - 400) :]
        made[-400 - len(sound) : -400] += sound
        rows.append(log_mel(np.clip(np.rint(made), -32768, 32767).astype(np.int16)))
    return np.stack(rows), np.array([class_of(int(digit)) for digit in clips.digits])


def export(net: Spotter, path: Path) -> None:
    """The network over 50 frames; `edgebm compress --streaming` makes single steps of it."""
    torch.onnx.export(
        net,
        (torch.zeros(1, 50, BANDS),),
        str(path),
        input_names=["features"],
        output_names=["scores"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def main() -> None:
    """Parse the options, train, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with fsdd/ (default: $EDGEBM_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--hidden", type=int, default=256, help="units of each GRU layer")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--clips", type=int, help="train on that many clips, for a quick look")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    data, random = data_folder(chosen.data), np.random.default_rng(SEED)
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    clips = load(data, "train")
    kept = random.permutation(len(clips.audio))[: chosen.clips]
    clips = Clips([clips.audio[i] for i in kept], clips.digits[kept])
    net = train(clips, chosen.hidden, chosen.epochs)
    export(net, chosen.out / "frames.onnx")
    calibration, _ = batch(clips, np.arange(len(kept))[:100], random)
    np.savez(chosen.out / "calibration.npz", features=calibration.numpy())
    features, labels = ending_scenes(load(data, "valid"), random)
    np.savez(chosen.out / "valid.npz", features=features, labels=labels)
    with torch.inference_mode():
        found = net(torch.from_numpy(features))[:, -1].argmax(1).numpy()
    print(f"{100 * (found == labels).mean():.2f} % of {len(labels)} scenes with other clips")


if __name__ == "__main__":
    main()
