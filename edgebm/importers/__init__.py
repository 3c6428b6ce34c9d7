"""From what people have to one canonical graph.

`import_model` takes an ONNX file, a `.pt2` program, a Hugging Face folder, a `.keras` file, a
SavedModel folder, `module:function`, or a live object of onnx, onnx_ir, torch, transformers or
Keras. torch, transformers, Keras and TensorFlow are loaded only for sources of theirs.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnx_ir as ir

from edgebm.data.model_folder import PARTS, hub_hint, is_model_folder, split_part
from edgebm.errors import ModelError
from edgebm.importers.huggingface_folder import read_folder
from edgebm.importers.keras_file import from_live, is_keras_model, is_keras_source, read_keras
from edgebm.importers.onnx_file import from_proto, read_onnx
from edgebm.importers.source import call_function, is_function_source
from edgebm.ir.canonical import canonicalize
from edgebm.ir.model import Model

__all__ = ["import_model", "read_model"]


def import_model(
    source: object, example_inputs: Sequence[Any] | None = None, dynamic_shapes: Any = None
) -> Model:
    """Read a model and bring it into canonical form.

    Args:
        source: path of an `.onnx`, `.pt2` or `.keras` file, of a SavedModel folder, or of a
            Hugging Face folder (with `#encoder` or `#decoder` behind it where it has both);
            `module:function` or `file.py:function` that returns any of these, or a tuple (torch
            module, example inputs[, dynamic shapes]); or a live torch module or program, model of
            transformers (or a tuple of it and "encoder" or "decoder"), `keras.Model`,
            `onnx.ModelProto`, `onnx_ir.Model` or `Model`.
        example_inputs: positional inputs a torch module is traced with.
        dynamic_shapes: which axes stay free, as `torch.export.export` takes it.

    Raises:
        ModelError: it cannot be read; the message says what the file looks like.
        UnsupportedModel: it can be read but not compressed; every reason is listed.
    """
    return canonicalize(_load(source, example_inputs, dynamic_shapes))


def read_model(source: object) -> Model:
    """Read a model as it is, sources as for `import_model`; it need not be canonical.

    Raises:
        ModelError: it cannot be read; the message says what the file looks like.
    """
    return _load(source, None, None)


def _load(source: object, example_inputs: Sequence[Any] | None, dynamic_shapes: Any) -> Model:
    if isinstance(source, str | Path):
        return _load_path(str(source), example_inputs, dynamic_shapes)
    if isinstance(source, Model):
        return source
    if isinstance(source, ir.Model):
        return Model(source, source="onnx_ir.Model")
    if isinstance(source, onnx.ModelProto):
        return from_proto(source, label="onnx.ModelProto")
    if isinstance(source, tuple):
        return _load_tuple(source)
    return _load_framework(source, example_inputs, dynamic_shapes)


def _load_framework(
    source: object, example_inputs: Sequence[Any] | None, dynamic_shapes: Any
) -> Model:
    if is_keras_model(source):  # before torch: on that backend it is a torch module too
        return from_live(source, example_inputs)
    if _is_torch(source):
        return _load_torch(source, example_inputs, dynamic_shapes)
    raise ModelError(
        f"cannot import a {type(source).__name__}",
        hint="give a path, module:function, a torch module, a keras.Model, or an ONNX model",
    )


def _load_torch(
    source: object, example_inputs: Sequence[Any] | None, dynamic_shapes: Any
) -> Model:
    exported: Model
    if _is_transformers(source) and example_inputs is None:
        exported = _huggingface().from_pretrained_model(source)
    else:
        exported = _torch_importer().from_torch(source, example_inputs, dynamic_shapes)
    return exported


def _load_path(text: str, example_inputs: Sequence[Any] | None, dynamic_shapes: Any) -> Model:
    path = Path(text)
    if is_function_source(text):
        made = call_function(text)
        if isinstance(made, str | Path) and is_function_source(str(made)):
            raise ModelError(f"{text} returned another function, {made}")
        model = _load(made, example_inputs, dynamic_shapes)
        return Model(model.graph, text)
    if path.suffix == ".pt2" and path.is_file():
        program: Model = _torch_importer().from_program_file(path)
        return program
    if is_keras_source(path):
        return read_keras(path)
    folder, part = split_part(text)
    if part or is_model_folder(folder):
        checked = read_folder(folder, part)
        found: Model = _huggingface().from_folder(checked)
        return found
    if not path.exists() and (hint := hub_hint(text)):
        raise ModelError(f"no such model file or folder: {path}", hint=hint)
    return read_onnx(path)


def _load_tuple(source: tuple[Any, ...]) -> Model:
    if len(source) == 2 and is_keras_model(source[0]):
        return from_live(*source)
    named = len(source) == 2 and isinstance(source[1], str) and source[1] in PARTS
    if named and _is_transformers(source[0]):
        part: Model = _huggingface().from_pretrained_model(*source)
        return part
    if len(source) not in (2, 3) or not _is_torch(source[0]):
        raise ModelError(
            "a tuple must be (torch module, example inputs) or (torch module, example inputs, "
            f"dynamic shapes), not {tuple(type(item).__name__ for item in source)}"
        )
    exported: Model = _torch_importer().from_torch(*source)
    return exported


def _torch_importer() -> ModuleType:
    try:
        return importlib.import_module("edgebm.importers.torch_module")
    except ImportError as cause:
        raise ModelError(
            f"torch models need torch: {cause}", hint="pip install 'edgebm[train]'"
        ) from cause


def _huggingface() -> ModuleType:
    try:
        return importlib.import_module("edgebm.importers.huggingface")
    except ImportError as cause:
        raise ModelError(
            f"Hugging Face models need torch and transformers: {cause}",
            hint="pip install 'edgebm[huggingface]'",
        ) from cause


def _is_transformers(source: object) -> bool:
    """Whether it is a model of transformers, asked without importing it."""
    return "transformers.modeling_utils.PreTrainedModel" in _bases(source)


def _is_torch(source: object) -> bool:
    """Whether it is a torch module or program, asked without importing torch."""
    return bool(
        _bases(source)
        & {
            "torch.nn.modules.module.Module",
            "torch.export.exported_program.ExportedProgram",
        }
    )


def _bases(source: object) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in type(source).__mro__}
