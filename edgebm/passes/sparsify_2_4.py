"""Two of every four neighbouring weights become zero, for the GPUs that skip them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.exec.collect import collect
from edgebm.ir.edit import const, name, set_const
from edgebm.ir.model import Model
from edgebm.ir.traits import is_float_const
from edgebm.passes.base import Context, step
from edgebm.pruning.semi_structured import GROUP, SPARSE_OPS, input_axis, masked_2_4


@step
class Sparsify24:
    """Make the weights of Conv, Gemm and MatMul 2:4 sparse along their input axis.

    Only NVIDIA GPUs from Ampere on, with TensorRT, compute such layers faster; on CPUs nothing
    is gained, and the report says so. With samples a weight counts as much as its size times the
    norm of what it is multiplied with, in layers of one group. Training behind this step keeps
    zeros zero.

    Source:
        Mishra et al. 2021, arXiv:2104.08378, section 3; Sun et al. 2023, "Wanda",
        arXiv:2306.11695, section 3.
    """

    kind: Literal["sparsify_2_4"] = "sparsify_2_4"
    needs_samples: ClassVar[bool] = False

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        layers = [node for node in model.nodes(*SPARSE_OPS) if self._takes(node, ctx)]
        norms = {} if ctx.samples is None else self._norms(model, layers, ctx)
        for node in layers:
            weight = const(node.inputs[1])
            assert weight is not None
            seen = norms.get(name(_read(node))) if _is_plain(node) else None
            made = masked_2_4(weight, input_axis(node), seen)
            set_const(node, 1, made, suffix="sparse")
        if layers:
            ctx.notes.append(
                f"{len(layers)} layers have 2:4 sparse weights; TensorRT on Ampere and later "
                "computes them faster, CPU runtimes do not"
            )
        return model

    def _takes(self, node: ir.Node, ctx: Context) -> bool:
        """Whether a layer can be made sparse; else its reason goes to the report."""
        weight = const(node.inputs[1]) if is_float_const(node.inputs[1]) else None
        reason = ""
        if ctx.is_ignored(node.name or "", node.op_type):
            reason = "it is on the ignored list"
        elif weight is None or weight.ndim < 2:
            reason = "it has no constant weight"
        elif weight.shape[input_axis(node)] % GROUP:
            width = weight.shape[input_axis(node)]
            reason = f"it sums over {width} channels, which do not divide into fours"
        if reason:
            ctx.skip(self, node.name, reason)
        return not reason

    def _norms(
        self, model: Model, layers: list[ir.Node], ctx: Context
    ) -> dict[str, NDArray[np.float64]]:
        """The norm of each channel that plain layers read, over the samples."""
        samples = ctx.given("2:4 sparsity")
        sums: dict[str, NDArray[np.float64]] = {}

        def watch(label: str, axis: int) -> Callable[[NDArray[Any]], None]:
            def add(value: NDArray[Any]) -> None:
                others = tuple(i for i in range(value.ndim) if i != axis % value.ndim)
                squares = np.square(value, dtype=np.float64).sum(axis=others)
                sums[label] = sums[label] + squares if label in sums else squares

            return add

        sinks = {
            name(_read(node)): watch(name(_read(node)), 1 if node.op_type == "Conv" else -1)
            for node in layers
            if _is_plain(node)
        }
        if sinks:
            collect(model, samples.feeds(), sinks, ctx.counter(self.kind, len(samples)))
        return {label: np.sqrt(each) for label, each in sums.items()}


def _is_plain(node: ir.Node) -> bool:
    """Whether all of its outputs sum over all channels of what it reads, on the usual axis."""
    grouped = node.attributes.get_int("group", 1) > 1
    transposed = node.attributes.get_int("transA", 0) == 1
    return not (grouped or transposed or const(_read(node)) is not None)


def _read(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
