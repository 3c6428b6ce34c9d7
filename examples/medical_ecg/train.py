"""Trains an LSTM that tells normal from abnormal heartbeats.

    python examples/medical_ecg/train.py --data DATA --out ecg

DATA (or the environment variable EDGEBM_DATA) is the folder that holds
`ecg5000_train/ecg5000_train.npz`. It writes `beats.onnx` and the samples to compress with:
`calibration.npz` (training beats), `test.npz` (beats that training has not seen, with labels)
and `kinds.npz` (which of the five kinds each test beat is, for the figures).

The model takes `beat`, float32 [N, 140]: one heartbeat of 140 samples with mean 0 and deviation 1,
as the data set has them. It gives `scores`, float32 [N, 2]: normal, abnormal.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

SEED = 0
KINDS = ("normal", "R-on-T PVC", "PVC", "supraventricular", "unclassified")
STEP = 4  # samples of a beat that the LSTM reads at a time: 35 steps
EPOCHS, BATCH, RATE, WIDTH = 40, 32, 2e-3, 192
TEST_SHARE, VALIDATION_SHARE = 0.4, 0.1


class BeatLstm(nn.Module):
    """Two LSTM layers read a beat four samples at a time; the mean over time decides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(STEP, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, beat: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(beat.reshape(-1, 140 // STEP, STEP))
        return self.head(states.mean(dim=1))


def split(kinds: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Places of the training, validation and test beats: two fifths of each kind are for the test.

    A kind with few beats gives the test at least one, and keeps at least one to train on.
    """
    random = np.random.default_rng(SEED)
    parts: dict[str, list[NDArray[np.int64]]] = {"train": [], "validation": [], "test": []}
    for kind in range(len(KINDS)):
        places = random.permutation(np.flatnonzero(kinds == kind))
        test = max(1, round(TEST_SHARE * len(places)))
        validation = round(VALIDATION_SHARE * len(places))
        parts["test"].append(places[:test])
        parts["validation"].append(places[test : test + validation])
        parts["train"].append(places[test + validation :])
    return {name: np.sort(np.concatenate(each)) for name, each in parts.items()}


def train(
    model: nn.Module,
    beats: dict[str, torch.Tensor],
    labels: dict[str, torch.Tensor],
    epochs: int,
) -> None:
    """Keeps the weights of the epoch with the lowest loss on the validation beats."""
    random = torch.Generator().manual_seed(SEED)
    share = labels["train"].float().mean()
    weights = torch.stack([0.5 / (1 - share), 0.5 / share])  # both classes count alike
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    batches = -(-len(beats["train"]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * batches)
    best, kept = float("inf"), model.state_dict()
    for epoch in range(epochs):
        model.train()
        for index in torch.randperm(len(beats["train"]), generator=random).split(BATCH):
            batch = beats["train"][index]
            batch = batch + 0.1 * torch.randn(batch.shape, generator=random)
            scores = model(batch)
            loss = functional.cross_entropy(scores, labels["train"][index], weights)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            scores = model(beats["validation"])
            held_out = float(functional.cross_entropy(scores, labels["validation"], weights))
        if held_out < best:
            best = held_out
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        print(f"epoch {epoch + 1}: validation loss {held_out:.4f}", flush=True)
    model.load_state_dict(kept)


def export(model: nn.Module, path: Path) -> None:
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 140),),
        str(path),
        dynamo=True,
        optimize=False,  # names of weights stay
        external_data=False,
        input_names=["beat"],
        output_names=["scores"],
        dynamic_shapes={"beat": {0: torch.export.Dim("batch")}},
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("EDGEBM_DATA")
    parser.add_argument("--data", type=Path, default=data, required=not data, help="folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--width", type=int, default=WIDTH, help="units of each LSTM layer")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    torch.manual_seed(SEED)
    with np.load(arguments.data / "ecg5000_train" / "ecg5000_train.npz") as file:
        all_beats, kinds = file["x"], file["y"]
    parts = split(kinds)
    beats = {name: torch.tensor(all_beats[places]) for name, places in parts.items()}
    labels = {name: torch.tensor(kinds[places] > 0).long() for name, places in parts.items()}
    model = BeatLstm(arguments.width)
    train(model, beats, labels, arguments.epochs)
    export(model, arguments.out / "beats.onnx")
    np.savez_compressed(arguments.out / "calibration.npz", beat=all_beats[parts["train"]])
    np.savez_compressed(
        arguments.out / "test.npz",
        beat=all_beats[parts["test"]],
        labels=(kinds[parts["test"]] > 0).astype(np.int64),
    )
    np.savez_compressed(arguments.out / "kinds.npz", kinds=kinds[parts["test"]], names=KINDS)
    counts = ", ".join(f"{len(places)} {name}" for name, places in parts.items())
    print(f"{arguments.out / 'beats.onnx'}: {counts} beats")


if __name__ == "__main__":
    main()
