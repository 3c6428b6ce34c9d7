"""Measured time of every layer: the runtime's own clock, by the nodes of the source graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.ir.edit import sole_user
from edgebm.ir.model import Model
from edgebm.ir.traits import ACTIVATIONS
from edgebm.runtime.engines import PROFILE
from edgebm.search.candidates import Candidate, Face
from edgebm.search.runner import Runner

_CALLS, _WARM_UP = 40, 5
# What ONNX Runtime appends to the name of a node that it rewrote.
_REWRITTEN = re.compile(r"(_token_\d+|_nchwc|_quant)+$")


def layer_times_us(
    candidate: Candidate, face: Face, feeds: Mapping[str, NDArray[Any]], model: Model
) -> dict[str, float]:
    """Median microseconds of each computing node of `model` as `candidate` runs it.

    A layer that the runtime joined from several nodes counts for the first of them. Nodes that
    the runtime does not name, or that cost nothing of their own, are missing.

    Args:
        candidate: what to time; its thread count and precision are kept.
        face: inputs and outputs of the model.
        feeds: one sample.
        model: the float graph that `candidate` was made from.

    Raises:
        BackendError: the runtime does not open or run it.
    """
    settings = {**candidate.config.settings, **PROFILE}
    timed = replace(candidate, config=replace(candidate.config, settings=settings))
    with Runner(timed, face) as runner:
        request = runner.bound(feeds)
        layers = runner.engine.profile(request, _CALLS + _WARM_UP)
    owners = _owners(model)
    times: dict[str, float] = {}
    for label, spent in layers.items():
        names = (_REWRITTEN.sub("", each) for each in label.split(","))
        owner = next((owners[each] for each in names if each in owners), None)
        if owner is not None:
            times[owner] = times.get(owner, 0.0) + spent
    return times


def _owners(model: Model) -> dict[str, str]:
    """Node names by all that a runtime may call them: node, output, and what is fused behind."""
    owners: dict[str, str] = {}
    for node in model.nodes():
        label = node.name or "?"
        owners[label] = label
        owners.setdefault(node.outputs[0].name or "?", label)
    for node in model.nodes("Conv", "ConvTranspose", "Gemm", "MatMul"):
        behind: ir.Node | None = node
        while behind is not None and (behind is node or behind.op_type in ACTIVATIONS | {"Add"}):
            for alias in (behind.name, behind.outputs[0].name):
                owners[alias or "?"] = node.name or "?"
            behind = sole_user(behind.outputs[0])
    return owners
