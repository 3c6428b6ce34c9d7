"""From one part of a batch to its loss, in one process or in several."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgebm.grad.losses import Objective, Tensors
from edgebm.grad.module import GraphModule
from edgebm.grad.task import Place


class Stepper(nn.Module):
    """From one part to its loss."""

    def __init__(self, module: GraphModule, objective: Objective, place: Place) -> None:
        super().__init__()
        self.module, self.objective = module, objective
        self._place = place

    def forward(self, feeds: Tensors, targets: Tensors) -> Tensor:
        with self._place.precision.cast(self._place.world.device):
            got = self.module(feeds, list(self.objective.fetch))
        # Losses are small differences: never in half precision.
        loss: Tensor = self.objective(_full(got), _full(targets))
        return loss


def _full(values: Tensors) -> dict[str, Tensor]:
    half = (torch.bfloat16, torch.float16)
    return {k: v.float() if v.dtype in half else v for k, v in values.items()}


def together(stepper: Stepper) -> DistributedDataParallel:
    """The same in all processes, with gradients that are their mean."""
    # Moments of a batch are those of all processes as it is; torch has two words for that.
    known = inspect.signature(DistributedDataParallel).parameters
    word = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {word: False}
    return DistributedDataParallel(stepper, **options)


def exchanging(forward: nn.Module, *, now: bool) -> AbstractContextManager[Any]:
    """Where processes add up gradients: once a step, with its last part."""
    if now or not isinstance(forward, DistributedDataParallel):
        return nullcontext()
    return forward.no_sync()
