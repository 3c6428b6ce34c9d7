"""Step after step of one training: gradients, judgements, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgebm.errors import WorkerLost
from edgebm.grad.batches import seeded
from edgebm.grad.checkpoint import State
from edgebm.grad.interrupt import Interrupts
from edgebm.grad.keeper import Keeper
from edgebm.grad.losses import Tensors
from edgebm.grad.module import GraphModule
from edgebm.grad.pace import step_seconds
from edgebm.grad.schedule import Schedule
from edgebm.grad.steady_rate import steady_factor, trial_steps
from edgebm.grad.stepper import Stepper, exchanging, together
from edgebm.grad.task import Ended, Fitted, Place, Task
from edgebm.grad.update import Updater
from edgebm.grad.world import is_lost

_TRYING = 0.05  # of the time that is planned, to see what a step takes
_MARGIN = 0.95  # of the time that is planned; the rest is for what was not timed


class Training:
    def __init__(
        self, module: GraphModule, task: Task, schedule: Schedule, seed: int, place: Place
    ) -> None:
        self._task, self._schedule, self._seed, self._place = task, schedule, seed, place
        self._module, self._world = module, place.world
        self._home = next((p.device for p in module.parameters()), self._world.device)
        self._stepper = Stepper(module, task.objective, place).to(self._world.device)
        self._parameters = [p for p in self._stepper.parameters() if p.requires_grad]
        self._forward: nn.Module = self._stepper
        self._keeper = Keeper(module, self._judged)
        self._updater = self._new_updater()
        self._done = self._resumed_at = 0
        self._steps = schedule.steps if self._parameters else 0
        self._every, self._factor = 0, schedule.factors[0]
        self._before = math.nan
        self._start = time.monotonic()

    def _new_updater(self) -> Updater:
        device, trained = self._world.device, self._module.trained
        masks = [(trained[k], m.to(device)) for k, m in self._task.masks.items()]
        scaler = self._place.precision.scaler(device)
        return Updater(self._parameters, self._schedule, scaler, masks)

    def begin(self) -> None:
        """Judge and plan, or take over what a checkpoint holds."""
        self._module.eval()
        checkpoint = self._place.checkpoint
        if checkpoint is not None:
            content = checkpoint.content() if self._world.leads else b""
            state = checkpoint.load(self._world.shared_bytes(content))
            if state is not None:
                self._restore(state)
        if not self._resumed_at:
            started = self._spent()
            self._before = self._keeper.look()
            judging_s = self._world.shared(self._spent() - started)
            if math.isfinite(self._schedule.budget_s) and self._steps:
                self._steps = self._fitted_steps(judging_s)
            self._every = self._schedule.check_in(self._steps, judging_s)
        if self._world.size > 1 and self._done < self._steps:
            self._forward = self._distributed()
        if not self._resumed_at and self._steps and len(self._schedule.factors) > 1:
            self._factor = steady_factor(self._schedule.factors, self._before, self._attempt)

    def run(self, progress: Callable[[int, int], None], held: Interrupts) -> Ended:
        while self._done < self._steps:
            if not self._advance(held):
                return "diverged"
            progress(self._done, self._steps)
            if self._every and self._done % self._every == 0:
                self._keeper.look()
            if 0 < self._schedule.patience <= self._keeper.since_best:
                return "no better"
            late = self._spent() > self._schedule.seconds
            if self._done < self._steps and self._world.shared(float(late)):
                return "out of time"
            self._keep(held)
        return "complete"

    def end(self, ended: Ended) -> Fitted:
        if self._done and ended != "diverged":
            self._keeper.look()
        if self._place.checkpoint is not None and self._world.leads and ended != "diverged":
            self._place.checkpoint.save(self._state())
        self._keeper.restore()
        self._stepper.to(self._home)
        self._module.eval()
        return Fitted(
            self._done, self._before, self._keeper.best, ended,
            self._steps, self._spent(), self._resumed_at, self._factor,
        )  # fmt: skip

    def _advance(self, held: Interrupts) -> bool:
        """One step; False where loss or gradients are no numbers."""
        self._stepper.train(self._task.moving)
        loss = self._backward(self._done)
        self._stepper.eval()
        told = [loss, float(bool(held.pending))]
        total, stop = self._world.total(torch.tensor(told, dtype=torch.float64)).tolist()
        held.agreed = stop > 0
        rate = self._factor * self._schedule.rate_at(self._done, self._steps)
        if not math.isfinite(total) or not self._updater.apply(rate):
            return False
        self._done += 1
        return True

    def _backward(self, step: int) -> float:
        """Gradients of the loss of a step's batch; this process's part of the loss."""
        chance = seeded(self._seed, step)
        torch.manual_seed(chance.initial_seed())
        parts = self._task.batches(step, chance)
        self._updater.clear()
        total = 0.0
        for number, part in enumerate(parts):
            with exchanging(self._forward, now=number == len(parts) - 1):
                loss = self._forward(self._moved(part.feeds), self._moved(part.targets))
                # Processes that train together take the mean of their gradients.
                self._updater.backward(loss * (part.share * self._world.size))
            total += part.share * float(loss.detach())
        return total

    def _moved(self, values: Tensors) -> dict[str, Tensor]:
        return {k: v.to(self._world.device, non_blocking=True) for k, v in values.items()}

    def _judged(self) -> float:
        # Of one process, so that all keep the same weights.
        found = self._task.judge(self._module) if self._world.leads else 0.0
        return self._world.shared(found)

    def _spent(self) -> float:
        return time.monotonic() - self._start

    def _fitted_steps(self, judging_s: float) -> int:
        """As many steps as fit in the budget, by the time that a few of them take."""
        budget = self._schedule.budget_s
        with self._tried():
            each = step_seconds(self._try, self._steps, _TRYING * budget, self._world)
        checks = 1 + self._schedule.checks(judging_s)
        left = budget * _MARGIN - self._world.shared(self._spent()) - checks * judging_s
        steps = max(1, min(self._steps, int(left / each)))
        if (trials := len(self._schedule.factors)) > 1:
            left -= trials * (trial_steps(steps) * each + judging_s)
        return max(1, min(steps, int(left / each)))

    def _attempt(self, factor: float) -> float:
        """The loss after a few steps at one factor of the rate, from the start."""
        count = trial_steps(self._steps)
        with self._tried():
            for number in range(count):
                self._backward(number * (self._steps - 1) // count)
                if not self._updater.apply(factor * self._schedule.rate):
                    return math.inf
            self._stepper.eval()
            with torch.no_grad():
                return self._judged()

    def _try(self, step: int) -> None:
        self._backward(step)
        self._updater.apply(0.0)

    def _distributed(self) -> nn.Module:
        """The module wrapped so that gradients are means over all processes."""
        with self._tried():
            self._backward(0)
            for parameter in self._parameters:  # what no loss depends on would be waited for
                parameter.requires_grad_(parameter.grad is not None)
        return together(self._stepper)

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Steps that leave nothing behind."""
        held = {k: v.clone() for k, v in self._keeper.changing().items()}
        weights = [p.detach().clone() for p in self._parameters]
        optimizer = self._updater.state()
        self._stepper.train(self._task.moving)
        try:
            yield
        finally:
            self._stepper.eval()
            self._updater = self._new_updater()
            self._updater.restore(*optimizer)
            self._keeper.put(held)
            with torch.no_grad():  # those of the objective too, which the keeper does not know
                for parameter, weight in zip(self._parameters, weights, strict=True):
                    parameter.copy_(weight)

    def _keep(self, held: Interrupts) -> None:
        """Write a checkpoint if it is time, or if this was the last step for now."""
        checkpoint = self._place.checkpoint
        if checkpoint is None or self._done == self._steps:
            return
        # Processes that train together learn in the next step that one got a signal.
        stops = held.agreed or (self._world.size == 1 and bool(held.pending))
        if self._world.leads and (stops or checkpoint.is_due()):
            checkpoint.save(self._state())
        if stops:
            held.deliver(
                f"interrupted after step {self._done} of {self._steps}; the checkpoint "
                f"{checkpoint.path} goes on from there: run the same again with --resume"
            )

    @contextmanager
    def with_others(self) -> Iterator[None]:
        """Where another process may turn out to be gone; the state after the last step is kept."""
        try:
            yield
        except RuntimeError as cause:
            if self._world.size == 1 or not is_lost(cause):
                raise
            raise self._lost(cause) from cause

    def _lost(self, cause: Exception) -> WorkerLost:
        checkpoint, written = self._place.checkpoint, ""
        if checkpoint is not None:
            written = f"; the checkpoint {checkpoint.path} has the state after step {self._done}"
            if self._world.leads and self._done > self._resumed_at:
                checkpoint.save(self._state())
        return WorkerLost(
            f"another process is gone after step {self._done} of {self._steps}{written}: {cause}",
            hint="start all processes again, with --resume to go on from a checkpoint",
        )

    def _state(self) -> State:
        optimizer, rest = self._updater.state()
        held = {"module": self._keeper.changing(), "best": self._keeper.kept}
        held["objective"] = {k: p.detach() for k, p in self._stepper.objective.named_parameters()}
        arrays = {
            f"{kind}/{label}": tensor.cpu().numpy()
            for kind, tensors in held.items()
            for label, tensor in tensors.items()
        }
        arrays.update((f"optimizer/{label}", array) for label, array in optimizer.items())
        meta = {
            "step": self._done,
            "steps": self._steps,
            "every": self._every,
            "factor": self._factor,
            "before": self._before,
            "best": self._keeper.best,
            "since_best": self._keeper.since_best,
            "seconds": self._spent(),
            "rest": rest,
        }
        return State(arrays, meta)

    @torch.no_grad()
    def _restore(self, state: State) -> None:
        held = {
            kind: {k: torch.from_numpy(array) for k, array in state.under(kind).items()}
            for kind in ("module", "best", "objective")
        }
        self._keeper.put(held["module"])
        self._keeper.kept = {k: v.to(self._world.device) for k, v in held["best"].items()}
        for label, parameter in self._stepper.objective.named_parameters():
            parameter.copy_(held["objective"][label])
        meta = state.meta
        self._updater.restore(state.under("optimizer"), meta["rest"])
        self._done = self._resumed_at = meta["step"]
        self._steps, self._every, self._before = meta["steps"], meta["every"], meta["before"]
        # Where another rate was given, it is meant as it is.
        several = len(self._schedule.factors) > 1
        self._factor = meta["factor"] if several else self._schedule.factors[0]
        self._keeper.best, self._keeper.since_best = meta["best"], meta["since_best"]
        self._start -= meta["seconds"]
