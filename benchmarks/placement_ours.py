"""Both of edgebm's TensorRT files of a model, as `compress` would make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgebm.backends.tensorrt.files import MODEL
from edgebm.importers import import_model
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.recipe import load_recipe
from edgebm.search.build import build_integer
from edgebm.search.candidates import Artifact
from edgebm.search.decide import Decisions
from edgebm.search.half import with_extents
from edgebm.search.job import Options, quiet
from edgebm.search.prepare import prepare
from edgebm.target import load_target

TARGET, RUNTIME = "jetson-orin-nano", "tensorrt"
_KEPT = (FoldBatchNorm, QuantizeActivations, QuantizeWeights)


def write_ours(model: Path, calibration: Path, folder: Path) -> tuple[dict[str, Path], Path]:
    """Quantize by those steps of the recipe int8 that leave weights as they are.

    Scales come from the largest magnitude, as theirs do.

    Returns:
        The file of each placement, by its kind: `int8`, `int8+attention`; and the samples that
        they were calibrated on, for the other tool.
    """
    recipe = load_recipe("int8")
    steps = tuple(
        replace(step, observer="minmax") if isinstance(step, QuantizeActivations) else step
        for step in recipe.steps
        if isinstance(step, _KEPT)
    )
    job = prepare(
        import_model(str(model)),
        replace(recipe, steps=steps),
        Options(),
        data=str(calibration),
    )
    target = replace(load_target(TARGET), runtimes=(RUNTIME,))
    decisions = Decisions(job, target, quiet)
    noted = with_extents(job, decisions.passes(), quiet)
    paths = {}
    for made in build_integer(noted, RUNTIME, decisions.grids(noted), job.is_ignored):
        if not isinstance(made, Artifact):
            raise made
        paths[made.kind] = folder / f"{model.stem}.ours.{made.kind}.onnx"
        paths[made.kind].write_bytes(made.files[MODEL])
    seen = folder / f"{model.stem}.seen.npz"
    feeds = list(job.calibration.feeds())
    np.savez(seen, **{name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]})
    return paths, seen
