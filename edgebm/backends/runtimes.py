"""The runtimes that files are made for: where each takes integers, and how its files are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version

from edgebm.backends import onnxruntime, onnxruntime_cuda, openvino
from edgebm.backends.dialects import EXACT, Dialect, Grid, cpu_dialects, cpu_grids
from edgebm.backends.tensorrt import files as tensorrt
from edgebm.backends.tensorrt.dialect import tensorrt_dialects
from edgebm.ir.model import Model
from edgebm.runtime.engines import CPU_RUNTIMES

Build = Callable[[Model], dict[str, bytes]]
Builders = Mapping[str, Build]

# How files are made from a graph, float or with Q/DQ, whose values know their extents where what
# is not quantized is to be FP16.
BUILD: Builders = {
    "onnxruntime": onnxruntime.build,
    "openvino": openvino.build,
    "tensorrt": partial(tensorrt.build, half=True),
    "onnxruntime-cuda": partial(onnxruntime_cuda.build, half=True),
}
# The same in FP32, on runtimes whose files say what they compute in.
BUILD_F32: Builders = {
    "tensorrt": partial(tensorrt.build, half=False),
    "onnxruntime-cuda": partial(onnxruntime_cuda.build, half=False),
}


def is_gpu(runtime: str) -> bool:
    """Whether a runtime computes on a GPU. Its files say in which precision."""
    return runtime not in CPU_RUNTIMES


def runs_as(runtime: str) -> str:
    """The runtime whose answers are seen here in place of its own: a GPU's are simulated."""
    return "onnxruntime" if is_gpu(runtime) else runtime


def made_with(runtime: str) -> str:
    """The version of the runtime that its answers are seen on here; "" for a GPU's: on none."""
    return "" if is_gpu(runtime) else version(runtime)


def dialects_of(runtime: str, grid: Grid = EXACT) -> tuple[Dialect, ...]:
    """The placements worth trying on a runtime, the safest first; none where it has no integers.

    `grid` is what does not overflow on a CPU; a GPU adds products of 8 bits exactly.
    """
    if runtime == "tensorrt":
        return tensorrt_dialects()
    return () if is_gpu(runtime) else cpu_dialects(runtime, grid)


def grids_of(runtimes: Sequence[str], features: frozenset[str]) -> tuple[Grid, ...]:
    """The grids whose sums cannot overflow on a board with these runtimes and CPU features."""
    return (EXACT,) if all(map(is_gpu, runtimes)) else cpu_grids(features)
