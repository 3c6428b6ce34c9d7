"""The verb `as_module`: a model as a torch module, for a training loop of the user's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgebm.errors import BackendUnavailable
from edgebm.importers import import_model

if TYPE_CHECKING:
    from edgebm.grad.module import GraphModule


def as_module(model: object, *, trainable: Callable[[str], bool] | None = None) -> GraphModule:
    """Turn a model from any framework into a `torch.nn.Module` that computes the same.

    It is called with inputs by name and gives outputs by name: `module({"image": x})["scores"]`.
    It begins in eval mode and on the CPU. `module.to_model()` is the way back.

    Args:
        model: as for `compress`.
        trainable: which constants are parameters, by their names in the graph; None: the weights
            of layers, and not what is a setting or follows by itself (`edgebm.ir.learned`).

    Raises:
        BackendUnavailable: torch is not installed.
        UnsupportedModel: ops without a gradient here, all of them listed; or as `compress`.
        ModelError: it cannot be read.
    """
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable("as_module needs torch", hint="pip install 'edgebm[train]'")
    from edgebm.grad.module import GraphModule

    return GraphModule(import_model(model), trainable)
