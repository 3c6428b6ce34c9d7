"""What makes a student unlike its teacher, as numbers to be made small.

Each loss is a mean over samples of something that one sample has by itself: of a batch that is
split over processes, or done a part at a time, the mean of the parts is the loss of the whole.
What a loss is relative to, a power, is measured once over the data for that reason. The exception
is `relative_mse` without a power, which is for whole batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax

Loss = Callable[[Tensor, Tensor], Tensor]
"""From what a value is and what it shall be to one number, to be made small."""
Tensors = Mapping[str, Tensor]

_TINY = 1e-12


class Objective(nn.Module):
    """From the values of a student and those wanted to one number.

    `fetch` names the values of the student that it reads. Its own parameters, such as projections
    from narrow features to wide ones, are trained along, and are no part of the model.
    """

    fetch: tuple[str, ...]

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        raise NotImplementedError


class Each(Objective):
    """The sum of one loss for each value."""

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.fetch = tuple(losses)
        self._losses = dict(losses)

    def forward(self, got: Tensors, want: Tensors) -> Tensor:
        return torch.stack([loss(got[k], want[k]) for k, loss in self._losses.items()]).sum()


def relative_mse(got: Tensor, want: Tensor, power: Tensor | float | None = None) -> Tensor:
    """Mean square error relative to a power, that of `want` itself where it is None.

    Without `power`: noise over signal, sum (got - want)^2 / sum want^2: 10^(-dB / 10).

    Args:
        got: any shape.
        want: the same.
        power: the mean square of such values over all data.
    """
    if power is None:
        signal = want.square().sum()
        return (got - want).square().sum() / torch.where(signal > 0, signal, 1.0)
    return (got - want).square().mean() / power


def kl_divergence(got: Tensor, want: Tensor, temperature: float = 1.0, axis: int = -1) -> Tensor:
    """T^2 KL(softmax(want / T) || softmax(got / T)) over `axis`, the mean over all others.

    The factor keeps the size of the gradients, whatever the temperature T.

    Source:
        Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531,
        section 2.1.
    """
    log_got, log_want = (log_softmax(each / temperature, axis) for each in (got, want))
    # Rounding alone makes it negative.
    each = (log_want.exp() * (log_want - log_got)).sum(axis).clamp_min(0.0)
    return temperature**2 * each.mean()


def cosine_distance(got: Tensor, want: Tensor) -> Tensor:
    """1 - cosine of the angle between vectors along the last axis, the mean over all others."""
    return 1 - cosine_similarity(got, want, dim=-1, eps=1e-8).mean()


def logs(probabilities: Tensor) -> Tensor:
    """Logits of which `probabilities` are the softmax."""
    return probabilities.clamp_min(1e-9).log()


def classification(got: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits with the numbers of classes, the mean over all of them.

    Args:
        got: [N, C], [N, C, ...] where labels are [N, ...], or [N, ..., C].
        labels: whole numbers; those below 0 do not count.
    """
    if got.ndim > 2 and got.shape[:-1] == labels.shape:
        got = got.movedim(-1, 1)
    labels = labels.long()
    each = cross_entropy(got, labels.clamp_min(0), reduction="none")
    return torch.where(labels >= 0, each, 0.0).mean()


def attention_divergence(got: Tensor, want: Tensor, inside: Tensor | None = None) -> Tensor:
    """KL(want || got) of attention maps [N, heads, T, T], the mean over heads and queries.

    Where the numbers of heads differ, their means over heads are compared.

    Args:
        got: the student's probabilities.
        want: the teacher's.
        inside: which queries count, [N, T] of 0 and 1.

    Source:
        Wang et al. 2020, "MiniLM", arXiv:2002.10957, section 3.1.
    """
    if got.shape[1] != want.shape[1]:
        got, want = got.mean(1, keepdim=True), want.mean(1, keepdim=True)
    log_got, log_want = got.clamp_min(1e-9).log(), want.clamp_min(1e-9).log()
    each = (want * (log_want - log_got)).sum(-1).clamp_min(0.0).mean(1)  # [N, T]
    return each.mean() if inside is None else sample_mean(each, inside)


def relations(values: Tensor, heads: int) -> Tensor:
    """How alike the values of positions are, as probabilities [N, heads, T, T].

    Args:
        values: [N, any number of heads that `heads` divides, T, width of one].
        heads: how many to make of them: students with fewer heads have relations as many.

    Source:
        Wang et al. 2020, "MiniLM", arXiv:2002.10957, section 3.2; Wang et al. 2021, "MiniLMv2",
        arXiv:2012.15828, section 3.1 (relation heads).
    """
    n, _, t, _ = values.shape
    split = values.transpose(1, 2).reshape(n, t, heads, -1).transpose(1, 2)
    return torch.softmax(split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5, -1)


def sample_mean(each: Tensor, inside: Tensor) -> Tensor:
    """The mean over samples of the mean over the positions that count.

    Args:
        each: [N, T, ...].
        inside: [N, T] of 0 and 1; a sample without any counts as 0.
    """
    flat = each.reshape(*each.shape[:2], -1).mean(-1)
    inside = inside.to(flat.dtype)
    return ((flat * inside).sum(1) / inside.sum(1).clamp_min(_TINY)).mean()
