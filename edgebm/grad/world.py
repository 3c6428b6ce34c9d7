"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from edgebm.errors import UsageError

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(hours=2)  # for what one process does while the others wait


@dataclass(frozen=True, slots=True)
class World:
    """Process number `rank` of `size`, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def total(self, numbers: Tensor) -> Tensor:
        """The sums over all processes."""
        if self.size > 1:
            numbers = numbers.to(self.device)
            dist.all_reduce(numbers)
        return numbers

    def shared(self, number: float) -> float:
        """What the leading process has."""
        if self.size == 1:
            return number
        # In the bits of a double, so that it is the same number on all devices.
        held = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.broadcast(held, 0)
        return float(held[0])

    def shared_bytes(self, content: bytes) -> bytes:
        """What the leading process has; those of others may be on machines without its files."""
        size = int(self.shared(float(len(content))))
        if self.size == 1 or not size:
            return content if self.leads else b""
        held = torch.empty(size, dtype=torch.uint8, device=self.device)
        if self.leads:
            held.copy_(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
        dist.broadcast(held, 0)
        return held.cpu().numpy().tobytes()


def is_lost(error: RuntimeError) -> bool:
    """Whether `error` says that another process does not answer."""
    words = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def is_launched() -> bool:
    """Whether torchrun started this process, with others."""
    return all(name in os.environ for name in _NAMES) and int(os.environ["WORLD_SIZE"]) > 1


def leads() -> bool:
    """Whether this process writes and prints: the first one, or the only one."""
    return not is_launched() or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world that torchrun tells of in the environment, or one process alone.

    Args:
        device: "auto" takes the GPU with the process's local number where there is one.

    Raises:
        UsageError: no such device, or the processes do not find each other.
    """
    if not is_launched():
        yield World(device=_device(device, 0))
        return
    found = _device(device, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))
    if found.type == "cuda":
        torch.cuda.set_device(found)
    mine = not dist.is_initialized()
    if mine:
        try:
            dist.init_process_group("nccl" if found.type == "cuda" else "gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as cause:
            raise UsageError(
                f"the processes that torchrun started do not find each other: {cause}",
                hint="check MASTER_ADDR and MASTER_PORT, and that every process was started",
            ) from cause
    try:
        yield World(dist.get_rank(), dist.get_world_size(), found)
    finally:
        if mine:
            dist.destroy_process_group()


def _device(wanted: str, number: int) -> torch.device:
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device '{wanted}' is not known", hint="use auto, cpu or cuda")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not count:
        raise UsageError(
            "device cuda: torch finds no GPU here",
            hint="use device auto or cpu, or install a torch with CUDA",
        )
    if wanted == "cpu" or not count:
        return torch.device("cpu")
    return torch.device("cuda", number % count)
