"""A model of transformers as it is exported: plain tensors in, plain tensors out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]
Case = tuple[Arrays, Arrays]
_BATCH, _TOKENS = 2, 12


class Export(Protocol):
    """What is exported, how its inputs and outputs are called, and answers to compare with."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def module(self) -> torch.nn.Module:
        """Takes `examples` by keyword; the model lies in it as `model`."""
        ...

    def examples(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keyword arguments that are traced, and the names of their free axes in the same form."""
        ...

    def cases(self) -> Iterator[Case]:
        """Feeds by input name, and what the model itself answers, by output name."""
        ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Ids that the model knows. `padding` is none of those that `ids` gives."""

    size: int
    padding: int

    @classmethod
    def of(cls, config: Any) -> Vocabulary:
        padding = getattr(config, "pad_token_id", None)
        return cls(int(config.vocab_size), 0 if padding is None else int(padding))

    def ids(self, *shape: int, seed: int = 0) -> Tensor:
        """Random ids, the same for every call with this seed."""
        made = torch.randint(
            0, self.size - 1, shape, generator=torch.Generator().manual_seed(seed)
        )
        return made + (made >= self.padding).to(made.dtype)

    def padded(self, batch: int = _BATCH, tokens: int = _TOKENS) -> tuple[Tensor, Tensor]:
        """Ids and mask [batch, tokens]; the last row ends in padding."""
        ids, mask = self.ids(batch, tokens), torch.ones(batch, tokens, dtype=torch.int64)
        ids[-1, tokens * 2 // 3 :], mask[-1, tokens * 2 // 3 :] = self.padding, 0
        return ids, mask


def additive(mask: Tensor) -> Tensor:
    """A mask [batch, tokens] as what is added to attention scores, [batch, 1, 1, tokens].

    Models of transformers take a mask of four axes as it is. Their own way from two axes to four
    is made for every kind of attention, and is a dozen operators in a graph.
    """
    scores = 1.0 - mask[:, None, None, :].to(torch.float32)
    return scores * torch.finfo(torch.float32).min


def arrays(names: tuple[str, ...], values: Any) -> Arrays:
    """Tensors as arrays by name."""
    return {
        name: np.ascontiguousarray(value.detach().numpy())
        for name, value in zip(names, values, strict=True)
    }


def agree(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> str:
    """Where answers differ by more than two runtimes may; "" if nowhere."""
    for name, expected in left.items():
        got = right[name]
        if got.shape != expected.shape:
            return f"'{name}' has shape {list(got.shape)} and not {list(expected.shape)}"
        scale = float(np.abs(expected).max(initial=0.0))
        error = float(np.abs(got - expected).max(initial=0.0))
        if not error <= 1e-3 * max(scale, 1e-3):
            return f"'{name}' differs by {error:.3g} in numbers up to {scale:.3g}"
    return ""
