"""What a recurrent node reads while the float graph runs: one entry for each sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, FloatRunner
from edgebm.ir.edit import const, name
from edgebm.ir.model import Model
from edgebm.ir.recurrent import Cell

Array = NDArray[Any]


@dataclass(slots=True)
class Read:
    """Sequences [T, I], cut where they end, and the states [D, H] that they begin with."""

    x: list[Array] = field(default_factory=list)
    initial: list[Array] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (*self.x, *self.initial))


def read_by(model: Model, cell: Cell, samples: Iterable[Feeds]) -> Read:
    """What `cell` reads in `model`, sequence by sequence; those without a step are left out.

    Raises:
        DataError: the model does not run on a sample.
    """
    parts = [cell.node.inputs[0], cell.lengths, cell.initial_h]
    computed = [name(value) for value in parts if value is not None and const(value) is None]
    runner = FloatRunner(model, list(dict.fromkeys(computed)))
    found = Read()
    for feeds in samples:
        got = runner.run(feeds)
        x, lengths, initial = (_value(part, got) for part in parts)
        assert x is not None
        for n in range(x.shape[1]):
            end = len(x) if lengths is None else int(lengths[n])
            if end:
                shape = (cell.directions, cell.hidden)
                h = np.zeros(shape, x.dtype) if initial is None else initial[:, n]
                found.x.append(np.array(x[:end, n]))
                found.initial.append(np.array(h))
    return found


def _value(part: ir.Value | None, got: Feeds) -> Array | None:
    held = const(part)
    return held if held is not None or part is None else np.asarray(got[name(part)])
