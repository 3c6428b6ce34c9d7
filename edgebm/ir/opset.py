"""From any opset to the internal one: which node needs a change, and the changes made.

Each operator keeps its own version history, and most new versions only allow more dtypes.
Those that mean something else have an adapter in `opset_up` (older files) or `opset_down`
(newer ones). Every fault is collected, so that one run names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import onnx
import onnx_ir as ir

from edgebm.errors import UnsupportedModel
from edgebm.ir.group_norm import write_out_group_norm
from edgebm.ir.model import Model
from edgebm.ir.opset_down import down_adapter
from edgebm.ir.opset_resize import settle_resize
from edgebm.ir.opset_up import UP
from edgebm.ir.rewrite import CannotConvert

INTERNAL_OPSET = 20
OLDEST_OPSET = 6
"""Older operators are taken too where they have not changed until then."""


def model_opset(model: Model) -> int:
    """The version of the standard operators the model says it uses (1 if it says none)."""
    imports = model.graph.opset_imports
    return int(imports.get("", imports.get("ai.onnx", 1)))


def to_internal_opset(model: Model) -> None:
    """Rewrite every node to opset `INTERNAL_OPSET`, in place. Shapes must be inferred before.

    Raises:
        UnsupportedModel: nodes have no equal there; all of them are listed.
    """
    convert_nodes(list(model.graph.graph.all_nodes()), model_opset(model))
    model.graph.opset_imports.pop("ai.onnx", None)
    model.graph.opset_imports[""] = INTERNAL_OPSET


def convert_nodes(nodes: Sequence[ir.Node], opset: int) -> None:
    """Rewrite these nodes from `opset` to `INTERNAL_OPSET`, in place.

    Raises:
        UnsupportedModel: as `to_internal_opset`.
    """
    standard = [node for node in nodes if node.domain in ("", "ai.onnx")]
    convert = partial(_convert, opset=opset)
    _refuse([fault for node in standard for fault in _fault(convert, node)], opset)


def settle_conversion(model: Model) -> None:
    """Finish what needed constants to be folded first.

    Raises:
        UnsupportedModel: as `to_internal_opset`.
    """
    nodes = list(model.nodes("Resize"))
    _refuse([fault for node in nodes for fault in _fault(settle_resize, node)], 10)


def _fault(change: Callable[[ir.Node], None], node: ir.Node) -> list[str]:
    try:
        change(node)
    except CannotConvert as fault:
        return [f"{node.op_type} '{node.name or node.outputs[0].name}': {fault}"]
    return []


def _refuse(faults: list[str], opset: int) -> None:
    if faults:
        raise UnsupportedModel(
            f"{len(faults)} node(s) of opset {opset} have no equal in opset {INTERNAL_OPSET}:\n"
            + "\n".join(f"  {fault}" for fault in faults),
            hint=f"export the model again with opset {INTERNAL_OPSET}",
            details={"faults": faults},
        )


def _convert(node: ir.Node, opset: int) -> None:
    node.version = None
    node.domain = ""
    if node.op_type == "GroupNormalization":
        write_out_group_norm(node, per_channel=opset > INTERNAL_OPSET)
        return
    if opset > INTERNAL_OPSET:
        down_adapter(node, opset, INTERNAL_OPSET)
        return
    if opset < OLDEST_OPSET and _since(node, opset) != _since(node, OLDEST_OPSET):
        raise CannotConvert(f"it is older than opset {OLDEST_OPSET}")
    for version in range(opset + 1, INTERNAL_OPSET + 1):
        # An adapter may change the node's type, so the table is asked again each time.
        adapter = UP.get((node.op_type, version))
        if adapter is not None:
            adapter(node)


def _since(node: ir.Node, opset: int) -> int:
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        return 0
    return int(onnx.defs.get_schema(node.op_type, opset).since_version)
