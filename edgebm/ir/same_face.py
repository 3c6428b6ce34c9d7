"""Whether a model can stand in for another: the same inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgebm.errors import UsageError
from edgebm.ir.edit import free_name, name
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.spec import TensorSpec


def take_face(student: Model, teacher: Model) -> list[str]:
    """Give `student`, in place, the names of the inputs and outputs of `teacher`.

    They are matched by name where both have the same names, else by their order.

    Returns:
        Sentences on what was renamed.

    Raises:
        UsageError: every difference in number, order, dtype, rank and size. Where the teacher's
            axis is free the student's must be; names of free axes do not matter.
    """
    faults, notes = [], []
    graph, wanted = student.graph.graph, teacher.graph.graph
    sides = zip(face(student), face(teacher), ("input", "output"), strict=True)
    for mine, theirs, what in sides:
        faults += _differences(mine, theirs, what)
    if faults:
        text = "".join(f"\n  - {fault}" for fault in faults)
        raise UsageError(
            f"the student cannot stand in for its teacher; {len(faults)} difference(s):{text}",
            hint="change the student's inputs and outputs, or give another student",
            details={"faults": faults},
        )
    for values, likes, what in (
        (graph.inputs, wanted.inputs, "input"),
        (graph.outputs, wanted.outputs, "output"),
    ):
        notes += _renamed(graph, values, [name(value) for value in likes], what)
    return notes


def _differences(mine: Sequence[TensorSpec], theirs: Sequence[TensorSpec], what: str) -> list[str]:
    ours, others = ([spec.name for spec in side] for side in (mine, theirs))
    if len(mine) != len(theirs):
        return [
            f"{len(mine)} {what}s ({', '.join(ours)}), where the teacher has {len(theirs)} "
            f"({', '.join(others)})"
        ]
    faults = []
    if sorted(ours) == sorted(others) and ours != others:
        faults.append(f"{what}s in the order {', '.join(ours)}, not {', '.join(others)}")
        mine = sorted(mine, key=lambda spec: others.index(spec.name))
    for have, want in zip(mine, theirs, strict=True):
        if have.dtype != want.dtype or not _fits(have, want, is_input=what == "input"):
            faults.append(f"{what} {have} where the teacher has {want}")
    return faults


def _fits(have: TensorSpec, want: TensorSpec, *, is_input: bool) -> bool:
    """A free axis of an output may turn out to have any size; runs will tell."""
    if len(have.shape) != len(want.shape):
        return False
    for mine, theirs in zip(have.shape, want.shape, strict=True):
        if isinstance(mine, int) and isinstance(theirs, int) and mine != theirs:
            return False
        if is_input and isinstance(mine, int) and not isinstance(theirs, int):
            return False
    return True


def _renamed(
    graph: ir.Graph, values: Sequence[ir.Value], names: Sequence[str], what: str
) -> list[str]:
    changed = [(v, label) for v, label in zip(values, names, strict=True) if v.name != label]
    for _, label in changed:
        _give_way(graph, label, values)
    notes = []
    for value, label in changed:
        notes.append(f"the student's {what} {value.name} stands for the teacher's {label}")
        value.name = free_name(graph, f"{label}_renamed")  # names may change places
    for value, label in changed:
        value.name = label
    return notes


def _give_way(graph: ir.Graph, label: str, face_values: Sequence[ir.Value]) -> None:
    """Give what has the name `label` inside the graph another one."""
    held = graph.initializers.pop(label, None)
    if held is not None:
        held.name = free_name(graph, f"{label}_inside")
        graph.register_initializer(held)
    for node in graph:
        for value in node.outputs:
            if value.name == label and not any(value is each for each in face_values):
                value.name = free_name(graph, f"{label}_inside")
