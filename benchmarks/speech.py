"""Train the recurrent networks of the benchmarks on spoken digits and write them as ONNX files.

``python benchmarks/speech.py lstm128 gru512 --data PATH`` leaves in ``benchmarks/out``, for each
name: NAME.onnx, a classifier of clips, [batch, 100 frames, 40 bands] to [batch, 10 digits];
NAME_frames.onnx, the same network with scores for every frame [batch, frames, 10]; and for all
speech_calibration_300.npz, speech_test.npz and speech_shifted.npz (20 copies of each test clip,
each moved by its own number of samples).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import WORK, add_data_option, data_folder
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

RATE = 8000
FRAME, HOP, BANDS, FRAMES = 256, 80, 40, 100
_FFT = 256
_FLOOR = 1e-3
COPIES = 20
F32 = NDArray[np.float32]


def mel_filters() -> F32:
    """Triangular filters [129, 40] that are evenly spaced on the mel scale, 60 to 3800 Hz.

    Source:
        O'Shaughnessy, "Speech Communication", 1987: mel = 2595 log10(1 + f / 700).
    """
    mels = np.linspace(*(2595 * np.log10(1 + np.array([60.0, 3800.0]) / 700)), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.arange(_FFT // 2 + 1)[:, None] * RATE / _FFT
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


_MEL, _WINDOW = mel_filters(), np.hanning(FRAME).astype(np.float32)


def log_mel(audio: F32) -> F32:
    """Audio [samples] in -1..1 to log energies [100, 40] of frames of 32 ms every 10 ms."""
    wanted = FRAME + (FRAMES - 1) * HOP
    audio = np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))
    frames = np.lib.stride_tricks.sliding_window_view(audio, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(frames * _WINDOW, _FFT)).astype(np.float32) ** 2
    return np.log(power @ _MEL + _FLOOR)


@dataclass(frozen=True)
class Speech:
    """Recordings in -1..1 and their labels [n]; `is_test` [n] marks the official test part."""

    clips: list[F32]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]

    def part(self, *, test: bool) -> tuple[list[F32], NDArray[np.int64]]:
        """The clips and labels of one part."""
        chosen = np.flatnonzero(self.is_test == test)
        return [self.clips[i] for i in chosen], self.labels[chosen]


def load(data: Path) -> Speech:
    """3,000 recordings of ten digits by six speakers; 300 of them are the test part."""
    with np.load(data / "fsdd" / "fsdd.npz") as stored:
        audio = stored["audio"].astype(np.float32) / 32768
        clips = np.split(audio, stored["offsets"][1:-1])
        return Speech(clips, stored["label"].astype(np.int64), stored["is_test"])


def shifted(clip: F32, generator: np.random.Generator) -> F32:
    """The clip moved by up to 0.2 s to the right, or its beginning cut by up to 0.02 s."""
    by = int(generator.integers(-160, 1600))
    return np.pad(clip, (by, 0)) if by >= 0 else clip[-by:]


class Recurrent(nn.Module):
    """Recurrent layers and a linear layer that scores each frame [batch, frames, classes]."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], hidden: int, *, both_ways: bool) -> None:
        super().__init__()
        self.rnn = kind(BANDS, hidden, num_layers=2, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(hidden * (1 + both_ways), 10)
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("deviation", torch.ones(BANDS))

    def forward(self, features: Tensor) -> Tensor:
        hidden, _ = self.rnn((features - self.mean) / self.deviation)
        scores: Tensor = self.head(hidden)
        return scores


class OfClips(nn.Module):
    """The mean score over the frames, [batch, classes]."""

    def __init__(self, frames: nn.Module) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.frames(features).mean(1)
        return scores


@dataclass(frozen=True)
class Job:
    """One network and the epochs it is trained for."""

    kind: type[nn.LSTM | nn.GRU]
    hidden: int
    epochs: int
    both_ways: bool = False


JOBS = {
    "lstm128": Job(nn.LSTM, 128, 30),
    "gru128": Job(nn.GRU, 128, 30),
    "lstm512": Job(nn.LSTM, 512, 14),
    "gru512": Job(nn.GRU, 512, 8),
    "bilstm512": Job(nn.LSTM, 512, 6, both_ways=True),
}
_SHORT = 64


def batch_of(clips: list[F32], generator: np.random.Generator, frames: int) -> Tensor:
    """Features [n, frames, 40] of clips, each moved and with its own loudness and noise."""
    rows = []
    for clip in clips:
        loud = clip * np.float32(np.exp(generator.normal(0, 0.5)))
        noise = generator.normal(0, 1e-4 * np.exp(generator.normal(0, 1.5)), len(loud))
        rows.append(log_mel(shifted(loud + noise.astype(np.float32), generator))[:frames])
    features = torch.from_numpy(np.stack(rows))
    for row in features:  # SpecAugment: Park et al. 2019, arXiv:1904.08779, section 2
        first, width = generator.integers(0, BANDS - 5), generator.integers(0, 5)
        row[:, first : first + width] = row.mean()
    return features


def fit(name: str, speech: Speech, seed: int) -> Recurrent:
    """Train from scratch; prints loss and test accuracy of each epoch."""
    torch.manual_seed(seed)
    job, generator = JOBS[name], np.random.default_rng(seed)
    clips, labels = speech.part(test=False)
    net = Recurrent(job.kind, job.hidden, both_ways=job.both_ways)
    plain = torch.from_numpy(np.stack([log_mel(clip) for clip in clips]))
    net.mean.copy_(plain.mean((0, 1)))
    net.deviation.copy_(plain.std((0, 1)))
    steps = len(clips) // 96
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3 if job.hidden < 512 else 2e-3, total_steps=steps * job.epochs
    )
    for epoch in range(job.epochs):
        begin, total = time.perf_counter(), 0.0
        frames = FRAMES if epoch >= job.epochs - 3 else _SHORT
        for chosen in np.split(generator.permutation(len(clips))[: steps * 96], steps):
            features = batch_of([clips[i] for i in chosen], generator, frames)
            loss = functional.cross_entropy(
                net(features).mean(1), torch.from_numpy(labels[chosen]), label_smoothing=0.05
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"{name} epoch {epoch + 1}/{job.epochs} loss {total / steps:.3f} "
            f"test {accuracy(net, speech):.2f} % in {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    return net


@torch.inference_mode()
def accuracy(net: nn.Module, speech: Speech) -> float:
    """Top-1 accuracy on the test clips in percent."""
    clips, labels = speech.part(test=True)
    features = torch.from_numpy(np.stack([log_mel(clip) for clip in clips]))
    found = torch.cat([net(part).mean(1).argmax(1) for part in features.split(100)])
    return 100 * float((found.numpy() == labels).mean())


def export(net: nn.Module, path: Path, output: str, *, frames: bool) -> None:
    """Write ``net`` as ONNX: input ``features`` [batch, 100, 40]; with ``frames`` that is free."""
    free = {0: torch.export.Dim("batch")}
    if frames:
        free[1] = torch.export.Dim("frames")
    torch.onnx.export(
        net.eval(),
        (torch.zeros(2, FRAMES, BANDS),),
        str(path),
        input_names=["features"],
        output_names=[output],
        dynamic_shapes=(free,),
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def write_samples(speech: Speech, seed: int) -> None:
    """Unlabelled calibration clips, the labelled test clips, and shifted copies of those."""
    generator = np.random.default_rng(seed)
    clips, _ = speech.part(test=False)
    chosen = generator.permutation(len(clips))
    for count in (300, len(clips)):
        rows = np.stack([log_mel(shifted(clips[i], generator)) for i in chosen[:count]])
        label = "300" if count == 300 else "all"
        np.savez(WORK / f"speech_calibration_{label}.npz", features=rows)
    clips, labels = speech.part(test=True)
    rows = np.stack([log_mel(clip) for clip in clips])
    np.savez(WORK / "speech_test.npz", features=rows, labels=labels)
    rows = np.stack([log_mel(shifted(clip, generator)) for clip in clips for _ in range(COPIES)])
    np.savez(WORK / "speech_shifted.npz", features=rows, labels=np.repeat(labels, COPIES))


def main() -> None:
    """Parse the options and train what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    add_data_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    speech = load(data_folder(options.data))
    write_samples(speech, options.seed)
    for name in options.names:
        net = fit(name, speech, options.seed)
        export(OfClips(net), WORK / f"{name}.onnx", "logits", frames=False)
        export(net, WORK / f"{name}_frames.onnx", "scores", frames=True)
        torch.save(net.state_dict(), WORK / f"{name}.pt")
        print(f"{name}: {accuracy(net, speech):.2f} % of the 300 test clips", flush=True)


if __name__ == "__main__":
    main()
