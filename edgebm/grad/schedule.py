"""How long training lasts, and how fast it goes at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

_CHECKS, _JUDGING = 16, 0.1  # judgements, and their share of a budget at most
_FIRST, _LAST = 1 / 25, 1 / 250_000  # of the highest rate


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    The rate rises to `rate` over the first `warmup` of `steps`, along half a cosine from a 25th of
    it ("one_cycle") or along a line from nothing ("cosine"), and falls along half a cosine to
    nearly nothing; "constant" stays after its warm-up. Gradients are cut to a norm of `max_norm`.
    "adamw" decays matrices and kernels by `weight_decay`, biases and gains not at all; so does
    "sgd", which has a Nesterov momentum of `momentum`.

    With `budget_s` the number of steps is cut once, before the first, to what this machine does in
    so many seconds: the rate still falls to the end. `seconds` is a hard limit. A result of either
    depends on the speed of the machine. Every `check_every` steps the module is judged (0: only
    at the ends; "auto": sixteen times, or less often where that would take a tenth of the budget);
    after `patience` judgements without a better one it is over (0: never).

    With several `factors` of the rate, the highest first, each is tried for a few steps from the
    start (`steady_rate.py`), and the training goes on with the one that was chosen.

    Source:
        Loshchilov & Hutter 2019, "AdamW", arXiv:1711.05101; Smith & Topin 2018, "one cycle",
        arXiv:1708.07120; Loshchilov & Hutter 2017, "cosine", arXiv:1608.03983.
    """

    steps: int
    rate: float = 1e-3
    weight_decay: float = 0.0
    max_norm: float = 1.0
    warmup: float = 0.15
    seconds: float = math.inf
    check_every: int | Literal["auto"] = 0
    patience: int = 0
    shape: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    budget_s: float = math.inf
    factors: tuple[float, ...] = (1.0,)

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of step number `step`, from 0, of `steps` in all."""
        rising = self.warmup * steps
        if step < rising:
            if self.shape == "one_cycle":
                return self.rate * _half_cosine(_FIRST, 1.0, step / rising)
            return self.rate * (step + 1) / (math.floor(rising) + 1)
        if self.shape == "constant":
            return self.rate
        return self.rate * _half_cosine(1.0, _LAST, (step - rising) / max(1.0, steps - 1 - rising))

    def checks(self, judging_s: float) -> int:
        """How often "auto" judges in between: less where that would take a tenth of the time."""
        if judging_s <= 0 or math.isinf(self.budget_s):
            return _CHECKS
        return max(1, min(_CHECKS, int(_JUDGING * self.budget_s / judging_s)))

    def check_in(self, steps: int, judging_s: float) -> int:
        """Every how many of `steps` steps the module is judged; 0 for never in between."""
        if self.check_every == "auto":
            return max(1, steps // self.checks(judging_s))
        return self.check_every


def _half_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, part))) / 2
