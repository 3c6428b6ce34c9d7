"""Arguments of a compression against its model."""

from __future__ import annotations

from collections.abc import Sequence

from edgebm.errors import UsageError
from edgebm.ir.axis_limits import axis_limits
from edgebm.ir.model import Model
from edgebm.ir.patterns import lost_patterns
from edgebm.search.shapes import ShapeLists, is_free, size_faults, static_shapes
from edgebm.search.stateful import Settled, fed_face


def check_ignored(model: Model, ignored: Sequence[str]) -> None:
    if lost := lost_patterns(model, ignored):
        raise UsageError(
            f"--ignored names nothing in the model: {', '.join(lost)}",
            hint="give node names, patterns such as 'encoder.*', or op types such as Conv; "
            "'edgebm compress --keep DIR' writes the graph with its node names",
        )


def check_shapes(settled: Settled, listed: ShapeLists) -> None:
    if listed and not is_free(settled.face):
        raise UsageError(
            "--shapes is given, but every axis of the model has a fixed size",
            hint="export the model with dynamic axes, or leave --shapes out",
        )
    if not listed:
        return
    if settled.states.growing:
        names = settled.states.names
        rest = {name: shapes for name, shapes in listed.items() if name not in names}
        static_shapes(fed_face(settled.face, names), rest, {})
    else:
        limits = axis_limits(settled.model)
        for shapes in static_shapes(settled.face, listed, {}):
            if faults := size_faults(settled.face, limits, shapes):
                raise UsageError(
                    f"--shapes: {'; '.join(faults)}", hint="list shapes that the model can take"
                )
