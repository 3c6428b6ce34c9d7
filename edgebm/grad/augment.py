"""Samples that were changed a little, so that a student sees more than there is.

The teacher answers the changed samples, so no label is needed. What happens to a sample depends
on the step and on its place in the whole batch alone, however the batch is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from edgebm.errors import UsageError

Way = Literal["flip", "shift", "cutout", "mixup", "noise", "gain", "time_shift"]
_IMAGES: tuple[Way, ...] = ("flip", "shift", "cutout")
_SIGNALS: tuple[Way, ...] = ("time_shift", "gain")
_SHIFTED = 1 / 8  # of height and width, at most, either way
_CUT = 1 / 4  # of height and width
_MOVED = 1 / 10  # of all time, at most, either way
_NOISE = 0.1  # of the deviation of a sample
_CHANNELS = (1, 3, 4)
Draws = dict[str, Tensor]


def draw(ways: Sequence[Way], count: int, generator: torch.Generator) -> Draws:
    """All chance of a batch of `count` samples: for each way numbers in [0, 1), [count, 3]."""
    drawn: Draws = {way: torch.rand(count, 3, generator=generator) for way in ways}
    if "mixup" in ways:
        drawn["partners"] = torch.randperm(count, generator=generator)
    return drawn


def changed(
    feeds: Mapping[str, Tensor], axes: Mapping[str, int], drawn: Draws
) -> dict[str, Tensor]:
    """`feeds` after all ways but mixup; `drawn` has a row for each sample of theirs.

    Images are float inputs of rank 4 with samples along axis 0, NCHW, or NHWC where only the last
    axis has 1, 3 or 4. Signals are float inputs; their longest axis is time. Noise goes to every
    float input.
    """
    found = dict(feeds)
    for way, numbers in drawn.items():
        change = _WAYS.get(way)
        if change is None:
            continue
        for label, x in found.items():
            if x.is_floating_point() and (way not in _IMAGES or x.ndim == 4):
                at = axes.get(label, 0)
                found[label] = change(x.movedim(at, 0), numbers.to(x.device)).movedim(0, at)
    return found


def mixed(x: Tensor, other: Tensor, numbers: Tensor, axis: int) -> Tensor:
    """`x` and another sample for each, in shares by chance.

    Source:
        Zhang et al. 2018, "mixup", arXiv:1710.09412; Beyer et al. 2022, "A good teacher is
        patient and consistent", arXiv:2106.05237 (the teacher answers the mixture).
    """
    shape = [1] * x.ndim
    shape[axis] = -1
    share = numbers[:, 0].to(x.device).reshape(shape)
    return share * x + (1 - share) * other


def check(ways: Sequence[Way], feeds: Mapping[str, Tensor], *, labels: bool, alike: bool) -> None:
    """Whether every way has an input it can change.

    Raises:
        UsageError: all of those that have none.
    """
    floats = [x for x in feeds.values() if x.is_floating_point()]
    faults = []
    for way in ways:
        if not floats or (way in _IMAGES and not any(x.ndim == 4 for x in floats)):
            what = "images (float, rank 4)" if way in _IMAGES else "floats"
            faults.append(f"{way}: no input is {what}")
        elif way == "mixup" and labels:
            faults.append("mixup: a mixture has no label; set losses.labels to 0")
        elif way == "mixup" and not alike:
            faults.append("mixup: the samples have different shapes")
        elif way in _SIGNALS and all(x.ndim == 4 for x in floats):
            faults.append(f"{way}: no input is a signal in time")
    if faults:
        raise UsageError("augment: " + "; ".join(faults), hint="leave those ways out")


def _flip(x: Tensor, numbers: Tensor) -> Tensor:
    """Left and right swapped in one half of the images."""
    _, width = _plane(x)
    return torch.where(numbers[:, 0].reshape(-1, 1, 1, 1) < 0.5, x.flip(width), x)


def _shift(x: Tensor, numbers: Tensor) -> Tensor:
    """Moved by up to an eighth; what comes in at the border is the image mirrored there."""
    for place, axis in enumerate(_plane(x)):
        size = x.shape[axis]
        most = int(size * _SHIFTED)
        by = (numbers[:, place] * (2 * most + 1)).long() - most
        at = (torch.arange(size, device=x.device) + by[:, None]).abs()
        at = torch.where(at >= size, 2 * (size - 1) - at, at)  # [N, size]
        shape = [len(x), 1, 1, 1]
        shape[axis] = size
        x = x.gather(axis, at.reshape(shape).expand_as(x))
    return x


def _cutout(x: Tensor, numbers: Tensor) -> Tensor:
    """A square of a quarter of the width set to the sample's mean."""
    inside = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
    for place, axis in enumerate(_plane(x)):
        size = x.shape[axis]
        cut = max(1, int(size * _CUT))
        first = (numbers[:, place] * (size - cut + 1)).long()[:, None]
        at = torch.arange(size, device=x.device)
        shape = [len(x), 1, 1, 1]
        shape[axis] = size
        inside = inside & ((at >= first) & (at < first + cut)).reshape(shape)
    return torch.where(inside, x.mean((1, 2, 3), keepdim=True), x)


def _noise(x: Tensor, numbers: Tensor) -> Tensor:
    """Normal noise of up to a tenth of the sample's deviation."""
    flat = x.flatten(1)
    level = _NOISE * numbers[:, 0] * flat.std(1, correction=0)
    noise = torch.stack(
        [_normal(row, int(n * 2**31)) for row, n in zip(x, numbers[:, 1], strict=True)]
    )
    return x + level.reshape(-1, *[1] * (x.ndim - 1)) * noise


def _normal(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator).to(like)


def _gain(x: Tensor, numbers: Tensor) -> Tensor:
    """Louder or softer by up to 6 dB."""
    return x * (2 ** (2 * numbers[:, 0] - 1)).reshape(-1, *[1] * (x.ndim - 1))


def _time_shift(x: Tensor, numbers: Tensor) -> Tensor:
    """Moved in time by up to a tenth, with silence where nothing is known."""
    axis = 1 + max(range(x.ndim - 1), key=lambda a: x.shape[a + 1])
    size = x.shape[axis]
    most = int(size * _MOVED)
    by = (numbers[:, 0] * (2 * most + 1)).long() - most
    at = torch.arange(size, device=x.device) + by[:, None]
    shape = [len(x), *[1] * (x.ndim - 1)]
    shape[axis] = size
    inside = ((at >= 0) & (at < size)).reshape(shape)
    moved = x.gather(axis, at.clamp(0, size - 1).reshape(shape).expand_as(x))
    return torch.where(inside, moved, torch.zeros_like(x))


def _plane(x: Tensor) -> tuple[int, int]:
    """The axes of height and width."""
    last = x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS
    return (1, 2) if last else (2, 3)


_WAYS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flip": _flip,
    "shift": _shift,
    "cutout": _cutout,
    "noise": _noise,
    "gain": _gain,
    "time_shift": _time_shift,
}
