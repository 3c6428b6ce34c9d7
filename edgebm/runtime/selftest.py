"""Re-run the golden samples: the same answers here as where the bundle was made?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import SelfTestFailed
from edgebm.runtime.bundle import Bundle
from edgebm.spec import Variant

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
# For an output whose tolerance the writer did not state.
DEFAULT_TOLERANCE = 1e-2


def relative_error(got: NDArray[Any], golden: NDArray[Any]) -> float:
    """`norm(got - golden) / norm(golden)` over all elements.

    Arrays of any equal shape; another shape is infinitely wrong. Where the golden value is NaN or
    infinite the answer must be the same value. With a golden norm of zero it is `norm(got)`.
    """
    if got.shape != golden.shape:
        return float("inf")
    ours, theirs = got.astype(np.float64).ravel(), golden.astype(np.float64).ravel()
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    ours, theirs = ours[finite], theirs[finite]
    if not np.isfinite(ours).all():
        return float("inf")
    norm = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(ours - theirs)) / (norm if norm > 0 else 1.0)


def self_test(bundle: Bundle, variant: Variant, run: Run) -> dict[str, float]:
    """The worst relative error of each output over all golden samples.

    Raises:
        SelfTestFailed: an output is beyond its tolerance; lists each one with both figures.
    """
    manifest = bundle.manifest
    worst: dict[str, float] = {}
    for index in range(manifest.golden):
        inputs, outputs = bundle.golden(index)
        got = run({spec.name: x for spec, x in zip(manifest.inputs, inputs, strict=True)})
        for spec, golden in zip(manifest.outputs, outputs, strict=True):
            error = relative_error(got[spec.name], golden)
            worst[spec.name] = max(error, worst.get(spec.name, 0.0))
    _judge(worst, variant, bundle.path)
    return worst


def _judge(worst: Mapping[str, float], variant: Variant, where: str) -> None:
    limits = {name: tolerance(variant, name) for name in worst}
    over: Sequence[str] = [name for name in worst if not worst[name] <= limits[name]]
    if over:
        figures = [f"{name} is off by {worst[name]:.3g} of {limits[name]:.3g}" for name in over]
        raise SelfTestFailed(
            f"{where}: {variant.target}/{variant.runtime} gives other answers here than where it "
            f"was made: {', '.join(figures)}",
            hint="compress for this processor, or update the runtime package",
            details={"errors": dict(worst), "tolerance": limits},
        )


def tolerance(variant: Variant, output: str) -> float:
    """The largest relative error allowed for `output`."""
    return variant.tolerance.get(output, DEFAULT_TOLERANCE)
