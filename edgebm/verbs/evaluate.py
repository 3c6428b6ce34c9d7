"""The verb `evaluate`: the score of a bundle or a model as it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from edgebm.ir.given_states import GivenPair
from edgebm.search.evaluate import open_scorable, score_samples
from edgebm.search.job import Progress, quiet
from edgebm.search.stateful import wanted_states


def evaluate(  # noqa: PLR0913 - one keyword per option of the command line
    model: str | os.PathLike[str],
    *,
    data: object = None,
    eval: object = None,  # noqa: A002 - the name of the option
    metric: object = None,
    labels: object = None,
    state: Sequence[GivenPair] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a bundle, or a model file as it is, without compressing anything.

    Args:
        model: a bundle, or a model as for `compress`, which runs in f32 on ONNX Runtime.
        data: samples, with labels unless `eval` is a program.
        eval: a program `f(run) -> float`, callable or `module:function`.
        metric: name, `module:function` or callable; None for the labels' default.
        labels: labels of `data`, when they are not in it.
        state: pairs of a model file, as for `compress`; a bundle knows its own.
        progress: called as `progress(step, done, total)`.

    Returns:
        `metric`, `unit`, `higher_is_better`, `value`, `samples`, and what ran; `classes`, the
        figure of each class (None where the metric has none), and `warnings`, sentences.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    tick = progress or quiet
    with open_scorable(model, wanted_states(state)) as scorable:
        return score_samples(scorable, data, labels, metric, eval, tick)
