"""From any opset to the internal one: which node needs a change, and the changes made.

Each operator keeps its own version history, and most new versions only allow more dtypes.
Those that mean something else have an adapter in `opset_up` (older files) or `opset_down`
(newer ones). Every fault is collected, so that one run names them all.
"""

from __future__ import annotations

import onnx_ir as ir

from edgebm.errors import UnsupportedModel
from edgebm.ir.model import Model
from edgebm.ir.opset_down import down_adapter
from edgebm.ir.opset_up import UP
from edgebm.ir.rewrite import CannotConvert

INTERNAL_OPSET = 20
OLDEST_OPSET = 7


def model_opset(model: Model) -> int:
    """The version of the standard operators the model says it uses (1 if it says none)."""
    imports = model.graph.opset_imports
    return int(imports.get("", imports.get("ai.onnx", 1)))


def to_internal_opset(model: Model) -> None:
    """Rewrite every node to opset `INTERNAL_OPSET`, in place. Shapes must be inferred before.

    Raises:
        UnsupportedModel: the opset is below `OLDEST_OPSET`, or nodes have no equal there: all
            of them are listed.
    """
    opset = model_opset(model)
    if opset < OLDEST_OPSET:
        raise UnsupportedModel(
            f"{model.source or 'the model'} uses opset {opset}; the oldest supported is "
            f"{OLDEST_OPSET}",
            hint="export it again with a newer opset, or convert it with onnx.version_converter",
        )
    faults: list[str] = []
    for node in list(model.graph.graph.all_nodes()):
        if node.domain in ("", "ai.onnx"):
            try:
                _convert(node, opset)
            except CannotConvert as fault:
                faults.append(f"{node.op_type} '{node.name or node.outputs[0].name}': {fault}")
    if faults:
        raise UnsupportedModel(
            f"{len(faults)} node(s) of opset {opset} have no equal in opset {INTERNAL_OPSET}:\n"
            + "\n".join(f"  {fault}" for fault in faults),
            hint="export the model again with opset 20",
            details={"nodes": faults},
        )
    model.graph.opset_imports.pop("ai.onnx", None)
    model.graph.opset_imports[""] = INTERNAL_OPSET


def _convert(node: ir.Node, opset: int) -> None:
    node.version = None
    node.domain = ""
    if opset > INTERNAL_OPSET:
        down_adapter(node, opset, INTERNAL_OPSET)
        return
    for version in range(opset + 1, INTERNAL_OPSET + 1):
        # An adapter may change the node's type, so the table is asked again each time.
        adapter = UP.get((node.op_type, version))
        if adapter is not None:
            adapter(node)
