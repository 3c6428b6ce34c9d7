"""Which shapes an engine of TensorRT is built for: one range for free sizes, one for each set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgebm.errors import BackendFailed
from edgebm.spec import EngineConfig, TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The smallest, the usual and the largest shape of one input."""

    low: Shape
    usual: Shape
    high: Shape

    def __str__(self) -> str:
        return f"{list(self.low)} to {list(self.high)}"


Profile = Mapping[str, ShapeRange]


def profiles_of(inputs: Sequence[TensorSpec], config: EngineConfig) -> tuple[Profile, ...]:
    """The optimization profiles of an artifact: that of the free sizes, then the static sets.

    Empty where no size is free.

    Raises:
        BackendFailed: the artifact does not say how large a free axis may be.
    """
    axes = dict.fromkeys(d for spec in inputs for d in spec.shape if isinstance(d, str))
    if not axes:
        return ()
    if missing := [axis for axis in axes if axis not in config.axes]:
        raise BackendFailed(
            f"the artifact does not say between which sizes {', '.join(missing)} may be",
            hint="compress the model again: this edgebm writes them into the bundle",
        )
    free = {
        spec.name: ShapeRange(
            *(
                tuple(config.axes[d][k] if isinstance(d, str) else d for d in spec.shape)
                for k in range(3)
            )
        )
        for spec in inputs
    }
    static = (
        {spec.name: ShapeRange(*[tuple(shapes[spec.name])] * 3) for spec in inputs}
        for shapes in config.static_shapes
    )
    return (free, *static)
