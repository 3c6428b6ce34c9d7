"""The verb `quantize`: only the quantization, nothing measured or chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgebm.backends.half_simulation import read_model
from edgebm.backends.qdq import lower
from edgebm.backends.runtimes import BUILD, dialects_of, is_gpu
from edgebm.backends.weight_only import store_weights
from edgebm.errors import DataError, UsageError
from edgebm.importers import import_model
from edgebm.ir.annotate import has_ranges
from edgebm.ir.given_states import GivenPair
from edgebm.ir.model import Model
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.recipe import Recipe, load_recipe
from edgebm.search.decide import Decisions
from edgebm.search.half import with_extents
from edgebm.search.job import Job, Options, Progress, quiet
from edgebm.search.prepare import prepare
from edgebm.search.sparsity import shrunk
from edgebm.search.stateful import wanted_states
from edgebm.target import load_target


def quantize(  # noqa: PLR0913 - one keyword per option of the command line
    model: object,
    data: object,
    *,
    target: str | Path = "host",
    runtime: str | None = None,
    recipe: str | Path | Recipe = "int8",
    ignored: Sequence[str] = (),
    state: Sequence[GivenPair] | None = None,
    streaming: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Model:
    """Only the quantization: an ONNX graph with Q/DQ nodes placed for one runtime.

    A recipe that also makes the model smaller does that before. Nothing is measured, chosen or
    proved; `compress` does that. `Model.to_bytes()` of the result is the ONNX file.

    Args:
        model: as for `compress`.
        data: calibration samples, as for `compress`.
        target: without VNNI its CPU takes 7 bits of weights or of activations; which of them is
            settled as in `compress`.
        runtime: "onnxruntime", "openvino" or "tensorrt"; their kernels want the nodes in other
            places. For TensorRT what stays float is written in FP16. None takes ONNX Runtime
            where the target has it, else its first.
        recipe: name, YAML file or live recipe.
        ignored: node names, patterns or op types that stay float.
        state: as for `compress`.
        streaming: as for `compress`.
        seed: of every random choice.
        progress: called as `progress(step, done, total)`.

    Raises:
        EdgebmError: see `edgebm.errors`.
    """
    board = load_target(target)
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    options = Options(
        ignored=tuple(ignored), wanted=wanted_states(state, streaming=streaming), seed=seed
    )
    tick = progress or quiet
    job = prepare(import_model(model), plan, options, data=data)
    if any(isinstance(step, QuantizeActivations) for step in plan.steps) and job.made_up:
        raise DataError(
            f"the recipe {plan.name} needs samples to calibrate with",
            hint="give some, or use -r w8, which quantizes weights alone",
        )
    if runtime is None:
        runtime = "onnxruntime" if "onnxruntime" in board.runtimes else board.runtimes[0]
    if runtime not in board.runtimes:
        raise UsageError(f"{board.name} has {', '.join(board.runtimes)}, not '{runtime}'")
    one = replace(board, runtimes=(runtime,))
    job, _ = shrunk(job, one, tick)
    decisions = Decisions(job, one, tick)
    decided = decisions.passes()
    if is_gpu(runtime):
        return _for_gpu(job, decisions, with_extents(job, decided, tick), runtime)
    if not has_ranges(decided):
        return store_weights(decided, job.is_ignored).model
    return lower(decided, decisions.dialect(decided), job.is_ignored)[0]


def _for_gpu(job: Job, decisions: Decisions, decided: Model, runtime: str) -> Model:
    """The file that the runtime reads: integers where it has some and FP16 beside them."""
    if dialects_of(runtime) and not has_ranges(decided):
        raise UsageError(
            f"{runtime} has integers for static quantization only; the recipe quantizes weights "
            "alone",
            hint="use -r int8",
        )
    if dialects_of(runtime):
        decided = lower(decided, decisions.dialect(decided), job.is_ignored)[0]
    return read_model(BUILD[runtime](decided)["model.onnx"])
