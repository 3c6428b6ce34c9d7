"""Matrix products, and sums of products by index."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from edgebm.grad.op import Compute, Family, plain


def _gemm(node: ir.Node) -> Compute:
    """Product alpha A' B' + beta C, with C broadcast to [M, N]."""
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    flip_a = node.attributes.get_int("transA", 0) == 1
    flip_b = node.attributes.get_int("transB", 0) == 1

    def compute(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = (a.t() if flip_a else a), (b.t() if flip_b else b)
        if c is not None:
            return torch.addmm(c, a, b, alpha=alpha, beta=beta)
        product = a @ b
        return product if alpha == 1.0 else alpha * product

    return compute


def _einsum(node: ir.Node) -> Compute:
    equation = node.attributes.get_string("equation", "")
    return lambda *parts: torch.einsum(equation, *parts)


OPS: Family = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": plain(torch.matmul)}
