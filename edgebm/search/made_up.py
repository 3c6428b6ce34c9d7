"""What stands in for samples where the user gave none: enough to time a model, not to know it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgebm.data.samples import Samples, open_samples
from edgebm.errors import DataError
from edgebm.ir.indices import index_limits
from edgebm.ir.model import Model
from edgebm.search.candidates import Face
from edgebm.search.shapes import ShapeLists, is_free, static_shapes
from edgebm.spec import Dim, Shapes, TensorSpec

_COUNT = 8


def made_up_samples(
    model: Model, face: Face, listed: ShapeLists, like: Shapes | None, seed: int
) -> Samples:
    """Inputs that the model accepts.

    Floats are normal, row numbers of a table are any of its rows, what a camera or microphone
    gives is any bytes, inputs with "mask" in their name are ones, and other integers zeros. A
    free first axis that no shape settles is taken for the batch, and has size 1.

    Args:
        model: canonical; tells which inputs are row numbers.
        face: its inputs.
        listed: `--shapes`: the first listed shapes settle free axes.
        like: shapes of a sample that is known; they settle all axes.
        seed: of the numbers.

    Raises:
        DataError: the size of a free axis is not known.
        UsageError: listed shapes do not fit.
    """
    rng = np.random.default_rng(seed)
    limits, shapes = index_limits(model), _shapes(face, listed, like)
    samples = [
        {spec.name: _array(spec, shapes[spec.name], limits, rng) for spec in face.inputs}
        for _ in range(_COUNT)
    ]
    return open_samples(samples, face.inputs)


def _shapes(face: Face, listed: ShapeLists, like: Shapes | None) -> Shapes:
    if like is not None:
        return like
    if is_free(face) and listed:
        return static_shapes(face, listed, {})[0]
    batch = {spec.shape[0] for spec in face.inputs if spec.shape}
    sizes = {dim: 1 for dim in batch if isinstance(dim, str)}
    free = [spec for spec in face.inputs if any(_is_unknown(dim, sizes) for dim in spec.shape)]
    if free:
        example = "x".join(str(sizes.get(str(d), 64) if isinstance(d, str) else d)
                           for d in free[0].shape)  # fmt: skip
        raise DataError(
            f"without samples the sizes of free axes are not known: {'; '.join(map(str, free))}",
            hint="give samples with -d, one is enough to measure with; or sizes with --shapes, "
            f"such as --shapes {free[0].name}:{example}",
        )
    return {
        spec.name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        for spec in face.inputs
    }


def _is_unknown(dim: Dim, sizes: Mapping[str, int]) -> bool:
    return isinstance(dim, str) and dim not in sizes


def _array(
    spec: TensorSpec,
    shape: tuple[int, ...],
    limits: Mapping[str, int],
    rng: np.random.Generator,
) -> NDArray[np.generic]:
    dtype = np.dtype(spec.dtype)
    if "mask" in spec.name.lower():
        return np.ones(shape, dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if dtype.kind in "iu" and spec.name in limits:
        most = min(limits[spec.name], int(np.iinfo(dtype).max) + 1)
        return rng.integers(0, most, shape).astype(dtype)
    if dtype.kind in "iu" and spec.layout:
        limit = np.iinfo(dtype)
        return rng.integers(limit.min, limit.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)
