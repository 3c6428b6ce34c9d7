"""Why edgebm places Q/DQ otherwise than Model Optimizer, pattern by pattern."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from placement_reading import Pair

from edgebm.backends.tensorrt.attention import unfit_attention
from edgebm.backends.tensorrt.dialect import unfit
from edgebm.backends.tensorrt.residual import branch_of
from edgebm.ir.traits import MATMULS

UNEXPLAINED = "**no reason is known: a fault of one of them**"


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence for the differences that `holds` is true of."""

    holds: Callable[[Pair], bool]
    text: str


def reason_of(pair: Pair) -> str:
    """The first reason that fits a difference, or that there is none."""
    return next((reason.text for reason in REASONS if reason.holds(pair)), UNEXPLAINED)


def why_other_scale(pair: Pair) -> str:
    """Why the scales of a value that both quantize are more than 1 % apart."""
    if not pair.mine.is_weight and pair.ours.before[pair.mine.index : pair.mine.index + 1] == (
        "Softmax",
    ):
        return (
            "Model Optimizer (ONNX Runtime's quantizer) takes 0 to 1 for what a Softmax writes, "
            "whatever was seen; we take the largest value that was seen"
        )
    return UNEXPLAINED


def _ours_float(pair: Pair) -> bool:
    return pair.mine.scale is None and pair.other.scale is not None


def _theirs_float(pair: Pair) -> bool:
    return pair.mine.scale is not None and pair.other.scale is None


def _op(pair: Pair) -> str:
    return pair.ours.node.op_type


def _is_product_of_activations(pair: Pair) -> bool:
    operands = pair.ours.operands
    return _op(pair) == "MatMul" and len(operands) == 2 and not any(o.is_weight for o in operands)


def _is_small_layer(pair: Pair) -> bool:
    is_layer = _op(pair) in MATMULS and not _is_product_of_activations(pair)
    return is_layer and bool(unfit(pair.ours.node))


def _has_factor_between(pair: Pair) -> bool:
    return _is_product_of_activations(pair) and "factor" in unfit_attention(pair.ours.node)


def _is_attention(pair: Pair) -> bool:
    return _is_product_of_activations(pair) and not unfit_attention(pair.ours.node)


def _is_residual_of_products(pair: Pair) -> bool:
    return (
        _op(pair) == "Add" and "MatMul" in pair.ours.before and branch_of(pair.ours.node) is None
    )


def _is_norm_of_conv(pair: Pair) -> bool:
    return _op(pair) == "LayerNormalization" and pair.ours.before[:1] == ("Concat",)


def _reads_as_well(pair: Pair) -> bool:
    """Whether the value that a LayerNormalization reads is also a term of a residual sum."""
    if _op(pair) != "LayerNormalization":
        return False
    value = pair.theirs.node.inputs[0]
    node: ir.Node | None = None if value is None else value.producer()
    while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
        before = node.inputs[0]
        node = None if before is None else before.producer()
    return node is not None and node.op_type == "Add"


REASONS = (
    Reason(
        lambda p: _ours_float(p) and _is_small_layer(p),
        "W07, W08: the layer is too small for integers to pay, by Model Optimizer's own rule",
    ),
    Reason(
        lambda p: _ours_float(p) and _has_factor_between(p),
        "W13: a factor stands between the product and Softmax. TensorRT's guide fuses attentions "
        "whose factor stands in front of the first product. Model Optimizer takes it for an "
        "attention only to find long ones, and quantizes both products like any others",
    ),
    Reason(
        lambda p: _ours_float(p) and _is_attention(p),
        "The first of our placements leaves attention in float, the second (`+attention`) "
        "quantizes both products; which one is taken is measured. Model Optimizer quantizes them "
        "where no mask stands between, and not where one does",
    ),
    Reason(
        lambda p: _theirs_float(p) and _is_attention(p),
        "Our placement `+attention` quantizes attention of up to 512 steps; Model Optimizer "
        "leaves attentions in float that have a mask, and no factor, between their products",
    ),
    Reason(
        lambda p: _ours_float(p) and _is_residual_of_products(p),
        "W14: a sum of int8 terms is fused with its Q/DQ only where its output is int8 too, and "
        "a LayerNormalization, which is float, reads this one. Model Optimizer rounds the output "
        "of the product so that it is written as int8 (fewer bytes), we keep the residual stream "
        "exact",
    ),
    Reason(
        lambda p: _ours_float(p) and _is_norm_of_conv(p),
        "W04 allows it: Q/DQ at a LayerNormalization of what a Conv wrote lets the Conv write "
        "int8. We keep it float: class token and positions are added in between, so that this Q "
        "is not at the Conv",
    ),
    Reason(
        lambda p: _ours_float(p) and _reads_as_well(p),
        "W04: LayerNormalization computes in float and gains nothing. Model Optimizer counts the "
        "first residual sum to the patch convolution; at later ones a pair that was made for the "
        "next sum, which then reads float all the same, is left at the LayerNormalization",
    ),
    Reason(
        lambda p: _ours_float(p) and _op(p) in ("AveragePool", "GlobalAveragePool"),
        "W14: pooling is int8 only with Q/DQ on both sides, and what reads this one is float",
    ),
    Reason(
        lambda p: _ours_float(p) and _op(p) == "MaxPool",
        "Rounding before or behind a MaxPool gives the same integers, and the builder moves Q to "
        "in front of it: one pair, behind the MaxPool, where they have two",
    ),
)  # fmt: skip
