"""Which training a checkpoint is of, and where it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edgebm.grad.checkpoint import Checkpoint
from edgebm.grad.rows import Rows
from edgebm.grad.teaching import Teaching
from edgebm.ir.model import Model

_MOST = 256  # samples that are looked at


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the state is written every `every_s` seconds, and whether to go on from there.

    With `own_name` the file's name ends in what tells the training from others: several may
    share a `path`, and each goes on from its own file if there is one.
    """

    path: Path
    resume: bool = False
    every_s: float = 60.0
    own_name: bool = False

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        if not self.own_name:
            return Checkpoint(self.path, identity, self.every_s, self.resume)
        text = json.dumps(identity, sort_keys=True)
        ending = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = self.path.with_name(f"{self.path.name}.{ending}")
        return Checkpoint(path, identity, self.every_s, resume=True)


def identity(
    student: Model, teacher: Model, rows: Rows, teaching: Teaching, precision: str
) -> dict[str, Any]:
    """What two runs must have in common to be one training; JSON types.

    The learning rate is not among it: a lower one is how to go on where training diverged.
    """
    settings = asdict(teaching)
    del settings["schedule"]["rate"], settings["schedule"]["factors"]
    return {
        "student": hashlib.sha256(student.to_bytes()).hexdigest(),
        "teacher": hashlib.sha256(teacher.to_bytes()).hexdigest(),
        "samples": _samples(rows),
        "precision": precision,
        **settings,
    }


def _samples(rows: Rows) -> str:
    """A digest of their number and of some of them."""
    found = hashlib.sha256(str(len(rows)).encode())
    stride = -(-len(rows) // _MOST)
    for part in rows.picked(torch.arange(0, len(rows), stride)):
        for label, column in sorted(part.columns.items()):
            found.update(f"{label} {column.dtype} {tuple(column.shape)}".encode())
            found.update(column.contiguous().numpy().tobytes())
    return found.hexdigest()
