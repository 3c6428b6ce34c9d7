"""What reads removed units learns to do with those that stay: least squares, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.exec.collect import Feeds, collect
from edgebm.ir.edit import name
from edgebm.ir.model import Model
from edgebm.pruning.group import Group
from edgebm.pruning.products import F64, Product, products_of
from edgebm.quant.gptq import Hessian

_ROWS = 256  # of each product and sample
_DAMPING = 1e-3


def refit(
    model: Model,
    groups: Sequence[Group],
    removed: Mapping[str, NDArray[np.int64]],
    samples: Sequence[Feeds],
    advance: Callable[[], None] = lambda: None,
) -> int:
    """Change the weights that read units, in place, so that little is lost when some go.

    Each removed unit is predicted from those that stay, and its weights are added to theirs in
    these proportions; the constant part goes to the bias. To be followed by `cut` with the same
    units. Left as they are: grouped convolutions, and weights that several layers read.

    Args:
        model: canonical, float, whole.
        groups: of `find_groups`.
        removed: numbers of units by group, as for `cut`.
        samples: what the inputs of layers are seen on.
        advance: called after each sample.

    Returns:
        The number of products that were fitted.

    Raises:
        DataError: an input of a layer has NaN or infinite values.

    Source:
        He et al. 2017, "Channel pruning for accelerating very deep neural networks",
        arXiv:1707.06168, section 3.1 (reconstruction by least squares).
    """
    gone = _gone(groups, removed)
    products = (product for node in model.nodes() for product in products_of(node))
    seen = [_Seen(product) for product in products if _place(product) in gone]
    if not seen:
        return 0
    sinks: dict[str, list[_Seen]] = {}
    for each in seen:
        sinks.setdefault(each.product.read, []).append(each)

    def sink(readers: list[_Seen]) -> Callable[[NDArray[Any]], None]:
        def update(value: NDArray[Any]) -> None:
            for reader in readers:
                reader.update(value)

        return update

    collect(model, samples, {label: sink(readers) for label, readers in sinks.items()}, advance)
    for each in seen:
        product = each.product
        positions = np.zeros(product.weight.shape[product.axis], np.bool_)
        positions[gone[_place(product)]] = True
        _fit(product, each.moments, product.columns(positions))
    return len(seen)


class _Seen:
    """Second moments of the rows of a product, with a column of ones behind."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._sum, self._number = Hessian(), 0

    def update(self, value: NDArray[Any]) -> None:
        rows = self.product.rows(value, _ROWS, self._number)
        self._sum.update(np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1))
        self._number += 1

    @property
    def moments(self) -> F64:
        return self._sum.result


def predicted(moments: F64, gone: NDArray[np.bool_], *, constant: bool) -> F64:
    """How the columns that go follow from those that stay: [columns + 1, columns that go].

    Args:
        moments: second moments [columns + 1, columns + 1], the last column being ones.
        gone: which columns go.
        constant: whether ones may be used.

    Returns:
        Factors; rows of columns that go are zero.
    """
    kept = np.append(~gone, constant)
    inner = moments[np.ix_(kept, kept)].copy()
    diagonal = np.diag(inner)
    inner[np.diag_indices_from(inner)] += _DAMPING * diagonal + 1e-8 * max(diagonal.mean(), 1e-30)
    found = np.zeros((len(kept), int(gone.sum())))
    found[kept] = np.linalg.solve(inner, moments[np.ix_(kept, np.append(gone, False))])
    return found


def _fit(product: Product, moments: F64, gone: NDArray[np.bool_]) -> None:
    constant = not product.why_no_shift()
    matrix = product.matrix()
    added = predicted(moments, gone, constant=constant) @ matrix[gone]
    added[:, product.fixed()] = 0
    product.write(matrix + added[:-1], added[-1] if constant else None)


def _gone(
    groups: Sequence[Group], removed: Mapping[str, NDArray[np.int64]]
) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Positions on the axes of weights that take removed units in."""
    found: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    for group in groups:
        units = removed.get(group.name)
        if units is not None and len(units):
            for place in group.reads:
                found.setdefault((place.name, place.axis), []).append(place.index[units].ravel())
    return {key: np.unique(np.concatenate(parts)) for key, parts in found.items()}


def _place(product: Product) -> tuple[str, int]:
    value = product.node.inputs[product.index]
    assert value is not None
    return name(value), product.axis
