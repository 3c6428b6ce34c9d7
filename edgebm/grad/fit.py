"""The one training loop: a module is led to given values, by name, in a given number of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgebm.grad.module import GraphModule, Tensors

Loss = Callable[[Tensor, Tensor], Tensor]
"""From what a value is and what it shall be to one number, to be made small."""

Batches = Callable[[torch.Generator], tuple[Tensors, Tensors]]
"""The next feeds, and the targets by the names of values. All chance comes from the generator."""


Ended = Literal["complete", "no better", "out of time", "diverged"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    The rate rises to `rate` over the first `warmup` of `steps` and falls to nearly nothing
    (one cycle). Gradients are cut to a norm of `max_norm`. `seconds` is a hard limit: a result
    that reached it depends on the speed of the machine. Every `check_every` steps (0: only at
    the ends) the module is judged; after `patience` judgements without a better one it is over
    (0: never).

    Source:
        Loshchilov & Hutter 2019, "AdamW", arXiv:1711.05101; Smith & Topin 2018, "one cycle",
        arXiv:1708.07120.
    """

    steps: int
    rate: float = 1e-3
    weight_decay: float = 0.0
    max_norm: float = 1.0
    warmup: float = 0.15
    seconds: float = math.inf
    check_every: int = 0
    patience: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What a module is led to: the sum of `losses` over the values they name shall be small.

    `batches` is called once a step and gives a target for each of those values. `judge` says how
    good the module is, low being good; it is called without gradients, and is worth most on
    samples that `batches` never gives.
    """

    batches: Batches
    losses: Mapping[str, Loss]
    judge: Callable[[GraphModule], float]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: `steps` done, the judge's figure `before` and `best`, and why it ended."""

    steps: int
    before: float
    best: float
    ended: Ended


def relative_mse(got: Tensor, want: Tensor) -> Tensor:
    """Noise over signal, sum (got - want)^2 / sum want^2: 10^(-dB / 10)."""
    power = want.square().sum()
    return (got - want).square().sum() / torch.where(power > 0, power, torch.ones_like(power))


def kl_divergence(got: Tensor, want: Tensor) -> Tensor:
    """KL(softmax(want) || softmax(got)) over the last axis, the mean over all others.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
    """
    log_got, log_want = torch.log_softmax(got, -1), torch.log_softmax(want, -1)
    return (log_want.exp() * (log_want - log_got)).sum(-1).mean()


def fit(
    module: GraphModule,
    task: Task,
    schedule: Schedule,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Train the parameters of `module` that ask for a gradient, in place.

    Kept are the weights that the judge liked best; those at the start are among them. Equal
    modules, tasks and seeds give equal weights on one machine with as many threads, unless time
    ran out. torch's own generator is left as it was.

    Args:
        module: what is trained.
        task: what it is led to.
        schedule: steps, rates and limits.
        seed: of the generator that `task.batches` gets, and of torch's own while it lasts.
        progress: called after each step with the steps done and their number.
    """
    keeper = _Keeper(module, task.judge)
    before = keeper.look()
    done, tired = 0, False
    ended: Ended = "complete"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for each in _train(module, task, schedule, torch.Generator().manual_seed(seed)):
            done, ended = each
            progress(done, schedule.steps)
            if schedule.check_every and done % schedule.check_every == 0:
                keeper.look()
            tired = 0 < schedule.patience <= keeper.since_best
            if tired:
                break
    if done and ended != "diverged":
        keeper.look()
    keeper.restore()
    return Fitted(done, before, keeper.best, "no better" if tired else ended)


def _train(
    module: GraphModule, task: Task, schedule: Schedule, generator: torch.Generator
) -> Iterator[tuple[int, Ended]]:
    """Do step after step; (steps done, why it would end here) after each."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters or schedule.steps < 1:
        return
    optimizer = torch.optim.AdamW(
        parameters, schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        schedule.rate,
        total_steps=schedule.steps,
        pct_start=schedule.warmup,
        cycle_momentum=False,
    )
    start = time.monotonic()
    for done in range(1, schedule.steps + 1):
        feeds, targets = task.batches(generator)
        got = module(feeds, list(task.losses))
        loss = torch.stack([f(got[k], targets[k]) for k, f in task.losses.items()]).sum()
        if not bool(torch.isfinite(loss)):
            yield done - 1, "diverged"
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, schedule.max_norm)
        optimizer.step()
        rates.step()
        late = done < schedule.steps and time.monotonic() - start > schedule.seconds
        yield done, "out of time" if late else "complete"
        if late:
            return


class _Keeper:
    """The parameters that were judged best."""

    def __init__(self, module: GraphModule, judge: Callable[[GraphModule], float]) -> None:
        self._module, self._judge = module, judge
        self._kept: list[Tensor] = []
        self.best, self.since_best = math.inf, 0

    @torch.no_grad()
    def look(self) -> float:
        found = self._judge(self._module)
        if not self._kept or found < self.best:
            self.best, self.since_best = found, 0
            self._kept = [p.detach().clone() for p in self._module.parameters()]
        else:
            self.since_best += 1
        return found

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, kept in zip(self._module.parameters(), self._kept, strict=True):
            parameter.copy_(kept)
