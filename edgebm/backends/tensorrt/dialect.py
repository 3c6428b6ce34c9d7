"""Where integers go in a graph for TensorRT: the linter's rules, asked before anything is written.

Q and DQ stand right in front of what computes on integers. The builder itself moves them through
what only copies values, and through a Concat whose output has one scale.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgebm.backends.dialects import Dialect
from edgebm.backends.tensorrt.attention import unfit_attention
from edgebm.backends.tensorrt.layers import unfit_convolution, unfit_product
from edgebm.backends.tensorrt.residual import branch_of
from edgebm.ir.traits import MATMULS


def unfit(node: ir.Node) -> str:
    """Why a product or convolution gains nothing by integers (W07, W08, W13); "" if it may."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return unfit_convolution(node)
    return unfit_product(node) or unfit_attention(node)


def skip_of(node: ir.Node) -> tuple[int, ir.Node] | None:
    """Which input of a residual Add is read through Q/DQ, and the Conv of the other one (W05)."""
    found = branch_of(node)
    return None if found is None else (1 - found[0], found[1])


TENSORRT = Dialect(
    "tensorrt",
    "tensorrt",
    signed_activations=True,
    computes=MATMULS,
    joins=frozenset({"AveragePool", "GlobalAveragePool"}),
    carries=frozenset(),
    unfit=unfit,
    skip_of=skip_of,
    tables=False,
    half_scales=True,
)


def tensorrt_dialects() -> tuple[Dialect, ...]:
    """The placements worth trying, the safest first."""
    return (TENSORRT, replace(TENSORRT, name=f"{TENSORRT.name}+attention", attention=True))
