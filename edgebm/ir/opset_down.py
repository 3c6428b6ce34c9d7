"""From opsets above the internal one back to it, where nothing is lost."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgebm.ir.rewrite import CannotConvert

# New versions after opset 20 of every other operator allow more dtypes, nothing else.
# Attributes listed here are new; with these values they say what opset 20 does anyway.
_NEW_ATTRIBUTES: dict[str, dict[str, tuple[object, ...]]] = {
    "Cast": {"round_mode": ("up", None)},
    "CastLike": {"round_mode": ("up", None)},
    "DequantizeLinear": {"block_size": (0,), "output_dtype": (0,)},
    "QuantizeLinear": {"block_size": (0,), "output_dtype": (0,), "precision": (0,)},
    "Range": {"stash_type": (1,)},
    "SpaceToDepth": {"mode": ("DCR",)},
}


def down_adapter(node: ir.Node, opset: int, target: int) -> None:
    """Make a node of a newer opset one of `target`.

    Raises:
        CannotConvert: the operator is newer, or the node uses what `target` does not have.
    """
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        return  # unknown at any version: the legality check names it
    if not onnx.defs.has(node.op_type, max_inclusive_version=target):
        raise CannotConvert(f"the operator is not in opset {target}")
    for attribute, harmless in _NEW_ATTRIBUTES.get(node.op_type, {}).items():
        found = node.attributes.get(attribute)
        if found is None:
            continue
        if found.value not in harmless:
            raise CannotConvert(f"{attribute}={found.value} is not in opset {target}")
        node.attributes.pop(attribute)
