"""Resize: every axis by itself, as torch's own kernel where it is the same, else as a matrix."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgebm.grad.op import Compute, Family, NotCovered, whole

Reals = NDArray[np.floating[Any]]

_SPATIAL = {1: "linear", 2: "bilinear", 3: "trilinear"}
_ROUND: dict[str, Callable[[Reals], Reals]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to be resized: `scale` is what the node asks for, not `after / before`."""

    before: int
    after: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Filter:
    """How an output element is made of input elements: the node's attributes."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    antialias: bool
    exclude_outside: bool
    outside: float

    def places(self, axis: _Axis) -> Reals:
        """Where each output element lies among the input's, [after].

        The nearest one is looked for with 24 bits, as runtimes do: ties are then the same.
        """
        x: Reals = np.arange(axis.after).astype("f4" if self.mode == "nearest" else "f8")
        n, m = axis.before, axis.after
        if self.coordinates == "align_corners":
            return x * (n - 1) / (m - 1) if m > 1 else np.zeros(1)
        if self.coordinates == "asymmetric":
            return x / axis.scale
        if self.coordinates == "tf_crop_and_resize":
            first, last = (edge * (n - 1) for edge in axis.roi)
            if m == 1:
                return np.full(1, 0.5 * (first + last))
            return first + x * (last - first) / (m - 1)
        if self.coordinates == "pytorch_half_pixel" and m == 1:
            return np.zeros(1)
        half = (x + 0.5) / axis.scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            half += 0.5 * n * (1 - m / (axis.scale * n))
        return half

    def matrix(self, axis: _Axis) -> Reals:
        """The share of each input element in each output element, [after, before]."""
        places = self.places(axis)
        if self.mode == "nearest":
            picked = np.clip(_ROUND[self.nearest](places), 0, axis.before - 1).astype(np.int64)
            return np.eye(axis.before)[picked]
        reach = 1 if self.mode == "linear" else 2
        # A smaller picture: the window grows with the step from one output to the next.
        shrink = min(1.0, axis.scale) if self.antialias else 1.0
        span = math.ceil(reach / shrink)
        first = np.floor(places)[:, None] - span + 1
        taps = first + np.arange(2 * span)
        shares = self._kernel((taps - places[:, None]) * shrink)
        if self.exclude_outside:
            shares = np.where((taps >= 0) & (taps < axis.before), shares, 0.0)
        shares = shares / shares.sum(1, keepdims=True)
        found: Reals = np.zeros((axis.after, axis.before))
        held = np.clip(taps, 0, axis.before - 1).astype(np.int64)  # the edge goes on outside
        np.add.at(found, (np.arange(axis.after)[:, None], held), shares)
        return found

    def _kernel(self, x: Reals) -> Reals:
        """Triangle, or Keys' cubic (1981, IEEE TASSP 29, 6) with the coefficient a."""
        x, a = np.abs(x), self.cubic
        if self.mode == "linear":
            return np.asarray(np.maximum(0.0, 1.0 - x))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0.0)))

    def is_torch_s(self, axes: Sequence[_Axis]) -> bool:
        """Whether torch's kernel gives the same on the last axes of a batch of channels."""
        if self.antialias or self.exclude_outside or self.coordinates == "tf_crop_and_resize":
            return False
        exact = all(axis.before * axis.scale == axis.after for axis in axes)
        if self.mode == "nearest":
            whole_times = all(axis.after % axis.before == 0 for axis in axes)
            floored = self.coordinates == "asymmetric" and self.nearest == "floor"
            # Repeating every element: where between two of them the line is drawn is no matter.
            centred = "half_pixel" in self.coordinates and self.nearest.startswith("round")
            return exact and whole_times and (floored or centred)
        if self.mode == "cubic" and (self.cubic != -0.75 or len(axes) != 2):
            return False
        if self.coordinates == "align_corners":
            return True
        if self.coordinates == "pytorch_half_pixel" and any(axis.after == 1 for axis in axes):
            return False
        return exact and self.coordinates in (
            "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric",
        )  # fmt: skip

    def torch_mode(self, rank: int) -> str:
        """What `torch.nn.functional.interpolate` calls it."""
        return {"nearest": "nearest", "cubic": "bicubic"}.get(self.mode, _SPATIAL[rank])


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Which axes are resized, and to what."""

    axes: tuple[int, ...]
    policy: str

    def read(
        self, x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None
    ) -> list[_Axis]:
        """One entry for each axis of x; scales are used where there are any."""
        along = [axis % x.ndim for axis in self.axes] or list(range(x.ndim))
        edges = [] if roi is None else roi.reshape(-1).tolist()
        found = [_Axis(size, size, 1.0) for size in x.shape]
        if scales is not None and scales.numel():
            factors = scales.reshape(-1).tolist()
            after = None
        else:
            assert sizes is not None
            factors, after = self._factors([x.shape[axis] for axis in along], whole(sizes))
        for i, axis in enumerate(along):
            n, factor = x.shape[axis], factors[i]
            box = (edges[i], edges[i + len(along)]) if len(edges) == 2 * len(along) else (0.0, 1.0)
            m = math.floor(n * factor * (box[1] - box[0])) if after is None else after[i]
            found[axis] = _Axis(n, m, factor, box)
        return found

    def _factors(
        self, before: Sequence[int], wanted: Sequence[int]
    ) -> tuple[list[float], list[int]]:
        factors = [m / n for n, m in zip(before, wanted, strict=True)]
        if self.policy == "stretch":
            return factors, list(wanted)
        factor = min(factors) if self.policy == "not_larger" else max(factors)
        return [factor] * len(before), [math.floor(n * factor + 0.5) for n in before]


def _resize(node: ir.Node) -> Compute:
    attributes = node.attributes
    filter_ = _Filter(
        mode=attributes.get_string("mode", "nearest"),
        coordinates=attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        nearest=attributes.get_string("nearest_mode", "round_prefer_floor"),
        cubic=attributes.get_float("cubic_coeff_a", -0.75),
        antialias=attributes.get_int("antialias", 0) == 1,
        exclude_outside=attributes.get_int("exclude_outside", 0) == 1,
        outside=attributes.get_float("extrapolation_value", 0.0),
    )
    if filter_.mode not in ("nearest", "linear", "cubic"):
        raise NotCovered(f"there is no mode '{filter_.mode}'")
    wanted = _Sizes(
        tuple(attributes.get_ints("axes", ())),
        attributes.get_string("keep_aspect_ratio_policy", "stretch"),
    )

    def compute(
        x: Tensor,
        roi: Tensor | None = None,
        scales: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        return _resized(x, wanted.read(x, roi, scales, sizes), filter_)

    return compute


def _resized(x: Tensor, axes: Sequence[_Axis], filter_: _Filter) -> Tensor:
    cropped = filter_.coordinates == "tf_crop_and_resize"
    moved = [i for i, a in enumerate(axes) if cropped or a.after != a.before or a.scale != 1.0]
    rank = x.ndim - 2
    spatial = list(axes[2:])
    if moved and moved[0] >= 2 and rank in _SPATIAL and filter_.is_torch_s(spatial):
        corners = None if filter_.mode == "nearest" else filter_.coordinates == "align_corners"
        size = [axis.after for axis in spatial]
        mode = filter_.torch_mode(rank)
        return functional.interpolate(x, size=size, mode=mode, align_corners=corners)
    for i in moved:
        x = _along(x, i, filter_, axes[i])
    return x


def _along(x: Tensor, i: int, filter_: _Filter, axis: _Axis) -> Tensor:
    """Axis `i` of x as the rows of a matrix say."""
    if filter_.mode == "nearest" and filter_.coordinates != "tf_crop_and_resize":
        picked = _matrix(filter_, axis).argmax(1)
        return x.index_select(i, torch.from_numpy(picked).to(x.device))
    matrix = torch.from_numpy(_matrix(filter_, axis)).to(x.device, x.dtype)
    found = torch.movedim(torch.movedim(x, i, -1) @ matrix.t(), -1, i)
    if filter_.coordinates != "tf_crop_and_resize":
        return found
    places = filter_.places(axis)
    outside = torch.from_numpy((places < 0) | (places > axis.before - 1)).to(x.device)
    return torch.where(
        outside.reshape(-1, *[1] * (x.ndim - 1 - i)), x.new_tensor(filter_.outside), found
    )


@functools.lru_cache(maxsize=256)
def _matrix(filter_: _Filter, axis: _Axis) -> Reals:
    return filter_.matrix(axis)


OPS: Family = {"Resize": _resize}
