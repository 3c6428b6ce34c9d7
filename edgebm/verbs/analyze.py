"""The verb `analyze`: which layer is to blame for what quantization costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebm.errors import DataError, UsageError
from edgebm.importers import import_model
from edgebm.ir.given_states import GivenPair
from edgebm.recipe import Recipe, load_recipe
from edgebm.report.findings import findings
from edgebm.search.examine import examine
from edgebm.search.job import Options, Progress, quiet
from edgebm.search.prepare import prepare
from edgebm.search.sparsity import shrunk
from edgebm.search.stateful import wanted_states
from edgebm.target import load_target


def analyze(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    data: object,
    *,
    target: str | Path = "host",
    recipe: str | Path | Recipe = "int8",
    ignored: Sequence[str] = (),
    subset_size: int | None = None,
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Say which layer is to blame for what quantization costs. Nothing is built or timed.

    Every quantized layer is put on integers alone, and left in float alone, and the error is
    measured at the model's worst output, in simulation with the exact rounding.

    Args:
        model: as for `compress`.
        data: calibration samples, as for `compress`; labels are not looked at.
        target: whose CPU decides how many bits there are.
        recipe: name, YAML file or live recipe.
        ignored: node names, patterns or op types that stay float.
        subset_size: samples to calibrate with; None takes the recipe's (300).
        state: as for `compress`.
        streaming: as for `compress`.
        progress: called as `progress(step, done, total)`.

    Returns:
        `findings`, a few sentences; `analysis`, the figures of each layer, the most harmful
        first; `layers`, what stays in float and why; and `model`, `data`, `recipe`, `target`,
        `notes`, `skips`, `warnings` as in a report. JSON types only.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    if data is None:
        raise DataError(
            "what integers do to a layer is measured on samples, and there are none",
            hint="give some with -d samples.npz; a few dozen show the worst layers",
        )
    if subset_size is not None and subset_size < 1:
        raise UsageError(f"subset_size must be above 0, not {subset_size}")
    board = load_target(target)
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    tick = progress or quiet
    tick("import", 0, 1)
    imported = import_model(model)
    tick("import", 1, 1)
    wanted = wanted_states(state, streaming=streaming)
    options = Options(subset_size=subset_size, ignored=tuple(ignored), wanted=wanted)
    job, _ = shrunk(prepare(imported, plan, options, data=data), board, tick)
    found = examine(job, board, tick)
    return {"findings": findings(found["analysis"]), **found}
