"""What is cut together: units, and every place in the graph that a unit has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["channels", "neurons", "heads", "hidden", "embedding"]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the units of a group lie along one axis of one value or constant.

    `index` is [units, k]: row u lists the k positions on `axis` that unit u has.
    """

    name: str
    axis: int
    index: Index


@dataclass(frozen=True, slots=True)
class Group:
    """Units that exist only together in all places of the group: cut one, and it goes everywhere.

    Units are numbered 0 to `units` - 1; what the user sees is `name`, that of the first layer
    that makes them. `writes` are the rows of constants that make a unit (weights, biases,
    moments of norms), `reads` the columns of constants that take it in, `values` where it
    lies in activations: computed by the layers of `writes`, before anything adds them up.
    `inputs` are the activations that the layers of `reads` take it from: a unit that is zero
    in all of these is dead. `layers` names every node that gets narrower.

    A unit is dead when all that reads it sees zeros: that is what cutting keeps exactly.
    """

    name: str
    kind: Kind
    units: int
    writes: tuple[Place, ...]
    reads: tuple[Place, ...]
    values: tuple[Place, ...]
    inputs: tuple[Place, ...]
    layers: tuple[str, ...]
