"""How long a free axis may get before a table that counts along it ends, such as positions."""

from __future__ import annotations

import re
from itertools import zip_longest

import onnx_ir as ir

from edgebm.ir.model import Model

# What torch.export calls the length of a table that is cut to the length of an axis.
_CUT = re.compile(r"Min\((?:(\d+), (\w+)|(\w+), (\d+))\)")
_JOINS = ("Add", "Div", "Mul", "Sub")


def axis_limits(model: Model) -> dict[str, int]:
    """The largest size of each free axis that is bounded, by its name.

    A table of 512 positions cut to `tokens` has `Min(512, tokens)` rows; where it is added to
    values with `tokens` rows, 513 tokens would be added to 512 rows. ONNX Runtime refuses that
    during the call, and OpenVINO (2026.4) answers with nothing or crashes.
    """
    limits: dict[str, int] = {}
    for node in model.nodes(*_JOINS):
        first, second = (_dims(value) for value in node.inputs[:2])
        for one, other in zip_longest(reversed(first), reversed(second), fillvalue=""):
            for dim, beside in ((one, other), (other, one)):
                cut = _CUT.fullmatch(dim)
                if cut is None:
                    continue
                size, axis = (cut[1], cut[2]) if cut[1] else (cut[4], cut[3])
                if axis == beside and int(size) > 1:
                    limits[axis] = min(limits.get(axis, int(size)), int(size))
    return limits


def _dims(value: ir.Value | None) -> list[str]:
    """Sizes as text; none where the rank is not known."""
    if value is None or value.shape is None:
        return []
    return [str(dim.value if isinstance(dim, ir.SymbolicDim) else dim) for dim in value.shape]
