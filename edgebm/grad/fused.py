"""Attention as one kernel, where the graph has it as products, a mask and a softmax."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from edgebm.grad.plan import Node

FUSED = "ScaledDotProductAttention"
SCALARS_FROM = 4
"""Where the reads of such a node that are scalars begin."""


@dataclass(slots=True)
class _Found:
    """A match: what is read, the nodes that go, and what the scores are multiplied by."""

    gone: list[Node] = field(default_factory=list)
    scalars: list[tuple[str, str]] = field(default_factory=list)


def fused(
    nodes: Sequence[Node], kept: Collection[str], scalars: Mapping[str, float]
) -> Sequence[Node]:
    """`nodes` with every attention in one, where nobody wants what lies between.

    Matched is softmax(q k' * scale + mask) v with scalar constants before or behind the first
    product and with or without a mask that is added. A row whose keys are all masked with minus
    infinity is zero, as the guard against NaN makes it that torch's exporter writes; in a graph
    without that guard it would be NaN.

    Args:
        nodes: in order.
        kept: values that must be computed as they are.
        scalars: constants of one element that are not trained.

    Source:
        Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762, section 3.2.1; Dao et
        al. 2022, "FlashAttention", arXiv:2205.14135.
    """
    if not any(node.op == "Softmax" for node in nodes):
        return nodes
    search = _Search(nodes, kept, scalars)
    by_last: dict[int, Node] = {}
    gone: set[int] = set()
    for node in nodes:
        match = search.attention(node) if node.op == "MatMul" else None
        if match is not None:
            by_last[id(node)], parts = match
            gone.update(id(part) for part in parts)
    return [by_last.get(id(node), node) for node in nodes if id(node) not in gone]


class _Search:
    """Who makes and who reads a value."""

    def __init__(
        self, nodes: Sequence[Node], kept: Collection[str], scalars: Mapping[str, float]
    ) -> None:
        self._makers = {label: node for node in nodes for label in node.writes if label}
        self._readers = Counter(label for node in nodes for label in node.reads if label)
        self._kept, self._scalars = kept, scalars

    def attention(self, last: Node) -> tuple[Node, list[Node]] | None:
        """The node for all that ends in the product `last`, and the nodes it stands for."""
        found = _Found()
        softmax = self._softmax(last.reads[0], found)
        value = last.reads[1]
        if softmax is None or value is None:
            return None
        mask = None
        scores = softmax.reads[0]
        added = self._inner(scores, "Add")
        if added is not None:
            sides = [(added.reads[i], added.reads[1 - i]) for i in (0, 1)]
            pair = next((p for p in sides if self._product(p[0]) is not None), None)
            if pair is None:
                return None
            scores, mask = pair
            found.gone.append(added)
        scores = self._unscaled(scores, found)
        product = self._inner(scores, "MatMul")
        if product is None or None in product.reads:
            return None
        found.gone.append(product)
        query, key = (self._unscaled(read, found) for read in product.reads)
        reads = (query, key, value, mask, *(label for _, label in found.scalars))
        compute = _attention([op for op, _ in found.scalars])
        return Node(FUSED, compute, reads, last.writes), found.gone

    def _inner(self, label: str | None, op: str, readers: int = 1) -> Node | None:
        """The node of this type that makes a value which nobody else wants."""
        node = None if label is None else self._makers.get(label)
        if node is None or label is None or node.op != op or label in self._kept:
            return None
        return node if self._readers[label] == readers else None

    def _softmax(self, label: str | None, found: _Found) -> Node | None:
        guard = self._inner(label, "Where")
        readers = 1
        if guard is not None:
            condition = self._inner(guard.reads[0], "IsNaN")
            label = guard.reads[2]
            if condition is None or condition.reads[0] != label:
                return None
            if self._scalars.get(guard.reads[1] or "") != 0:
                return None
            found.gone += [guard, condition]
            readers = 2
        softmax = self._inner(label, "Softmax", readers)
        if softmax is None or softmax.axis != -1:
            return None
        found.gone.append(softmax)
        return softmax

    def _product(self, label: str | None) -> Node | None:
        return self._inner(self._unscaled(label, _Found()), "MatMul")

    def _unscaled(self, label: str | None, found: _Found) -> str | None:
        """What is multiplied by scalar constants to give a value, which are noted."""
        while True:
            node = self._inner(label, "Mul") or self._inner(label, "Div")
            if node is None:
                return label
            first, second = node.reads
            if node.op == "Mul" and first in self._scalars:
                first, second = second, first
            if second not in self._scalars or second is None:
                return label
            found.gone.append(node)
            found.scalars.append((node.op, second))
            label = first


def _attention(ops: Sequence[str]) -> Callable[..., Tensor]:
    """Computes softmax(q k * scale + mask) v from q, k transposed, v, the mask and scalars."""

    def compute(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *scalars: Tensor) -> Tensor:
        scale = math.prod(
            1 / s.item() if op == "Div" else s.item() for op, s in zip(ops, scalars, strict=True)
        )
        rank = q.ndim
        if rank not in (3, 4) or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
            return _plain(q, k, v, mask, scale)
        if rank == 3:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
        if mask is not None:
            if mask.ndim > rank:
                return _plain(q, k, v, mask, scale)
            mask = mask[(None,) * (4 - mask.ndim)]
        found = functional.scaled_dot_product_attention(
            q, k.transpose(-1, -2), v, attn_mask=mask, scale=scale
        )
        return found.squeeze(0) if rank == 3 else found

    return compute


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = q @ k * scale
    return torch.softmax(scores if mask is None else scores + mask, -1) @ v
