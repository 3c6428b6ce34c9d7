"""One process of a training, for tests: `python train_worker.py OUT FAMILY STEPS [CHECKPOINT]`.

It says "step N" on stdout after each step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import students
import torch

from edgebm.grad.distill import Conditions, distill
from edgebm.grad.identity import Kept
from edgebm.grad.schedule import Schedule
from edgebm.grad.teaching import Teaching, Weights
from edgebm.grad.world import joined


def teaching(family: str, steps: int) -> Teaching:
    augment = {"cnn": ("flip", "shift", "noise", "mixup"), "gru": ("gain",), "bert": ()}[family]
    relations = 0.1 if family == "bert" else 0.0
    return Teaching(
        Schedule(steps, 0.01, check_every=5),
        batch=16,
        weights=Weights(relations=relations, attention=relations),
        augment=augment,
    )


def made(family: str) -> tuple:
    if family == "cnn":
        return students.cnn(8, 1), students.cnn(24, 0), students.digits(60)
    if family == "gru":
        return students.gru(6, 1), students.gru(16, 0), students.signals(60)
    return students.bert(8, 1), students.bert(32, 0), students.sentences(60)


def weights(model) -> dict[str, np.ndarray]:
    held = model.graph.graph.initializers
    return {label: np.asarray(value.const_value.numpy()) for label, value in held.items()}


def trained(family: str, steps: int, kept: Kept | None = None, progress=lambda *at: None):
    """The weights of the student of a family, after as many steps, and what came of it."""
    student, teacher, samples = made(family)
    with joined("cpu") as world:
        found = distill(
            student,
            teacher,
            samples,
            teaching(family, steps),
            conditions=Conditions(world, "f32", kept),
            progress=progress,
        )
    return weights(student), found


def main(out: str, family: str, steps: str, checkpoint: str = "") -> None:
    torch.set_num_threads(1)
    kept = Kept(Path(checkpoint), resume=True, every_s=0.0) if checkpoint else None
    found, _ = trained(family, int(steps), kept, lambda done, _: print(f"step {done}", flush=True))
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
