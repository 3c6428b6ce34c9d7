"""torch modules and exported programs, through torch's own ONNX exporter.

The exporter runs without its optimizer: that one folds and renames most parameters, and the
way back to the user's names is lost. The canonical form does the folding instead.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgebm.errors import ModelError
from edgebm.importers.torch_recurrent import finish, free_steps, translations
from edgebm.ir.model import Model
from edgebm.ir.opset import INTERNAL_OPSET


def from_torch(
    source: Any,
    example_inputs: Sequence[Any] | Mapping[str, Any] | torch.Tensor | None = None,
    dynamic_shapes: Any = None,
) -> Model:
    """Export a module (in eval mode; its mode is restored) or a program.

    Args:
        source: `torch.nn.Module` or `torch.export.ExportedProgram`.
        example_inputs: positional inputs, one tensor, or keyword inputs; for modules only.
        dynamic_shapes: axes that stay free, as `torch.export.export` takes it.

    Raises:
        ModelError: example inputs are missing, or torch cannot export it.
    """
    if isinstance(source, torch.export.ExportedProgram):
        return _export(source, (), {}, None)
    if example_inputs is None:
        raise ModelError(
            f"the torch module {type(source).__name__} needs example inputs",
            hint="give module:function that returns (module, (x,)), or example_inputs=(x,)",
        )
    args, kwargs = _arguments(example_inputs)
    with eval_mode(source):
        return _export(source, args, kwargs, dynamic_shapes)


def from_program_file(path: Path) -> Model:
    """Read a program written by `torch.export.save`.

    Raises:
        ModelError: torch cannot read it.
    """
    try:
        with quiet():
            program = torch.export.load(path)
    except Exception as cause:
        raise ModelError(
            f"{path} is not a readable torch.export program: {cause}",
            hint=f"write it with torch.export.save (this is torch {torch.__version__})",
        ) from cause
    model = from_torch(program)
    return Model(model.graph, str(path))


def _arguments(examples: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(examples, Mapping):
        return (), dict(examples)
    if isinstance(examples, torch.Tensor):
        return (examples,), {}
    return tuple(examples), {}


def _export(
    source: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
) -> Model:
    label = f"torch {type(source).__name__}"
    try:
        with quiet(), torch.no_grad(), free_steps():
            program = torch.onnx.export(
                source,
                args,
                kwargs=kwargs,
                dynamo=True,
                optimize=False,
                opset_version=INTERNAL_OPSET,
                dynamic_shapes=dynamic_shapes,
                custom_translation_table=translations(),
                verbose=False,
            )
    except Exception as cause:
        root = cause.__cause__ or cause  # the exporter wraps the reason in advice
        first = str(root).strip().partition("\n")[0]
        raise ModelError(
            f"torch {torch.__version__} cannot export {label}: {type(root).__name__}: {first}",
            hint=_way_out(root),
        ) from cause
    assert program is not None
    graph = program.model
    finish(graph)
    _name_nodes(graph)
    return Model(graph, label)


def _way_out(error: BaseException) -> str:
    """What to do about a module that torch cannot export."""
    packed = torch.nn.utils.rnn.PackedSequence
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(isinstance(found, packed) for frame in frames for found in frame.f_locals.values()):
        return (
            "packed sequences have sizes that depend on the data: write the file with "
            "torch.onnx.export(module, args, path, dynamo=False, opset_version=17), which keeps "
            "the lengths as an input of the LSTM, and give that; or leave the packing out"
        )
    return "check that torch.export.export(module, example_inputs) works on its own"


def _name_nodes(model: Any) -> None:
    """Name nodes after the module they come from: `layer1.0.conv/Conv`."""
    for node in model.graph:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
        if not scopes:
            continue
        names = [str(name) for name in ast.literal_eval(scopes)]
        # The last scope is the operation itself; a leading underscore marks the exporter's own.
        owner = next((name for name in reversed(names[:-1]) if name and name[0] != "_"), "")
        node.name = f"{owner}/{node.op_type}" if owner else node.op_type


@contextlib.contextmanager
def eval_mode(module: torch.nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's notes on itself off the user's screen; faults come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
