"""The one training loop: a module is led to given values, in a given number of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgebm.grad.interrupt import Interrupts
from edgebm.grad.loop import Training
from edgebm.grad.module import GraphModule
from edgebm.grad.schedule import Schedule
from edgebm.grad.task import Ended, Fitted, Part, Place, Task

__all__ = ["Ended", "Fitted", "Part", "Place", "Schedule", "Task", "fit"]

Report = Callable[[int, int], None]


def fit(
    module: GraphModule,
    task: Task,
    schedule: Schedule,
    *,
    seed: int = 0,
    progress: Report = lambda done, total: None,
    place: Place | None = None,
) -> Fitted:
    """Train the parameters of `module` that ask for a gradient, in place.

    Kept are the weights that the judge liked best; those at the start are among them. Equal
    modules, tasks and seeds give equal weights on one machine with as many threads, unless the
    clock had a say; so do runs that were interrupted and resumed. torch's own generator is left as
    it was, and the module in evaluation mode on the device it was on.

    Under torchrun every process calls this with the same arguments, but for its parts of the
    batches; all end with the same weights.

    Args:
        module: what is trained.
        task: what it is led to.
        schedule: steps, rates and limits.
        seed: of the generator that `task.batches` gets, and of torch's own while it lasts.
        progress: called after each step with the steps done and their number.
        place: devices, precision and checkpoints.

    Raises:
        UsageError: the checkpoint cannot be written, or is of another training.
        WorkerLost: another process is gone.
        KeyboardInterrupt: the user ended it. A checkpoint was written, if there is to be one.
    """
    training = Training(module, task, schedule, seed, place or Place())
    keeps = place is not None and place.checkpoint is not None
    with (
        torch.random.fork_rng(devices=[]),
        Interrupts(held=keeps) as held,
        training.with_others(),
    ):
        training.begin()
        return training.end(training.run(progress, held))
