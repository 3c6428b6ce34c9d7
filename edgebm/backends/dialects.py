"""What each inference engine accepts, as Python values a type checker can read.

A target YAML names facts of a board; rules about ops live here and only here.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgebm.ir.traits import MATMULS, MOVES, RECURRENT


@dataclass(frozen=True, slots=True)
class Grid:
    """Bits of the integers that weights and activations are rounded to."""

    weight_bits: int
    activation_bits: int

    @property
    def cell_bits(self) -> int:
        """Bits of the weights of a recurrent cell, whose hidden state always takes 8."""
        return 8 if self == EXACT else 7

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"


EXACT = Grid(8, 8)


def _all_fit(node: ir.Node) -> str:
    return ""


def _no_skips(node: ir.Node) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where integers may flow on one engine.

    `computes` lists ops with integer kernels. `joins` lists elementwise and pooling ops that
    have one too, used only between integer ops. `carries` lists ops that hand integers
    through unchanged, so that their output shares its input's scale. `needs_output` lists
    computing ops whose integer kernel exists only when the output is quantized as well.
    `requantize_carried` says whether a carrier needs Q/DQ on both sides. `int32_bias` says
    whether a bias must be an integer for the kernel to be taken. `attention` says whether
    products of two activations are quantized, `stacked_weights` whether a MatMul by a constant
    stack of matrices is, `grouped_adds` whether an Add behind a grouped Conv is.
    `free_transposed` says whether a ConvTranspose may have groups, and inputs below zero.
    `unfit` says why the engine gains nothing by integers in a node, "" where it may gain.
    `skip_of` says which input of a residual Add is read through Q/DQ where the Conv behind the
    other one is integer. `tables` says whether rows of integers can be picked from an embedding.
    `half_scales` says whether scales have to be FP16 numbers. `grid` holds the bits that its
    kernels take.
    """

    name: str
    runtime: str
    signed_activations: bool
    computes: frozenset[str]
    joins: frozenset[str]
    carries: frozenset[str] = MOVES
    needs_output: frozenset[str] = frozenset()
    requantize_carried: bool = False
    int32_bias: bool = False
    attention: bool = False
    stacked_weights: bool = True
    grouped_adds: bool = True
    free_transposed: bool = True
    cells: frozenset[str] = frozenset()
    unfit: Callable[[ir.Node], str] = _all_fit
    skip_of: Callable[[ir.Node], tuple[int, ir.Node] | None] = _no_skips
    tables: bool = True
    half_scales: bool = False
    grid: Grid = EXACT

    def why_not(self, op_type: str) -> str:
        """Why this op stays in float here; an empty string if it can be integer."""
        if op_type in self.computes | self.carries | self.joins:
            return ""
        if op_type in RECURRENT:
            return f"{op_type} runs in float on {self.runtime}"
        return f"{self.runtime} has no int8 kernel for {op_type}"


ONNXRUNTIME_CPU = Dialect(
    "onnxruntime-cpu",
    "onnxruntime",
    signed_activations=False,
    computes=MATMULS - {"ConvTranspose"},
    joins=frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool"}),
    needs_output=frozenset({"Conv"}),
    requantize_carried=True,
    int32_bias=True,
    stacked_weights=False,  # its kernel takes one scale per column of one matrix only
)
OPENVINO_CPU = Dialect(
    "openvino-cpu",
    "openvino",
    signed_activations=False,
    computes=MATMULS,
    joins=frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool"}),
    # Fused into the convolution it ends the process: illegal instruction, 2026.4 on AVX2.
    grouped_adds=False,
    # It would round their inputs, and compute them in float all the same (2026.4).
    free_transposed=False,
    cells=frozenset({"LSTM", "GRU"}),
)
_CPU = {d.runtime: d for d in (ONNXRUNTIME_CPU, OPENVINO_CPU)}

# CPU features that sum products of two 8-bit numbers in 32 bits. Without one, x86 runtimes add
# pairs of u8 x s8 products in 16 bits (`vpmaddubsw`): 2 * 255 * 127 overflows them, while
# 2 * 127 * 127 and 2 * 255 * 63 do not.
_EXACT_DOT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "neon"})


def cpu_grids(features: Set[str]) -> tuple[Grid, ...]:
    """The grids that cannot overflow the integer kernels of a CPU with `features`.

    One bit less has to come from the weights or from the activations. Which costs less is the
    model's affair: activations with outliers need theirs, narrow layers need the weights'.
    """
    return (EXACT,) if features & _EXACT_DOT else (Grid(8, 7), Grid(7, 8))


def cpu_dialects(runtime: str, grid: Grid = EXACT) -> tuple[Dialect, ...]:
    """The placements worth measuring on a CPU runtime, the safest first."""
    base = replace(_CPU[runtime], grid=grid)
    return (base, replace(base, name=f"{base.name}+attention", attention=True))
