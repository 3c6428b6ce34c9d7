"""Models of Hugging Face transformers: a local folder, or a live object.

Nothing is fetched, and no code from a folder is run: weights are safetensors, or a
`pytorch_model.bin` that holds tensors only.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers

from edgebm.data.model_folder import PARTS
from edgebm.errors import ModelError, UnsupportedModel
from edgebm.exec.collect import float_run
from edgebm.importers.huggingface_encoder import HEADS, EncoderExport
from edgebm.importers.huggingface_export import Export, agree
from edgebm.importers.huggingface_folder import ModelFolder, Pooling
from edgebm.importers.huggingface_seq2seq import DecoderExport, SourceExport
from edgebm.importers.torch_module import eval_mode, from_torch, quiet
from edgebm.ir.cleanup import fix_names
from edgebm.ir.model import Model

_WRAPPED = "model."
_WRITES = ("ForConditionalGeneration", "MTModel")
_FUNCTION = "write a function that returns (module, example inputs), and give file.py:function"


def from_folder(folder: ModelFolder) -> Model:
    """Load the weights and export the model.

    Raises:
        ModelError: the weights are damaged, or do not fit the configuration.
        UnsupportedModel: the architecture is not handled.
    """
    return from_pretrained_model(_loaded(folder), folder.part, folder.pooling, str(folder.path))


def from_pretrained_model(
    model: Any, part: str = "", pooling: Pooling | None = None, label: str = ""
) -> Model:
    """Export a live model; it is left as it was.

    Args:
        model: `transformers.PreTrainedModel` of the package itself.
        part: "encoder" or "decoder" of a model that has both; "" for the others.
        pooling: makes a sentence embedding of the last hidden states.
        label: where it came from.

    Raises:
        UnsupportedModel: the architecture is not handled.
        ModelError: a part is missing or not there; torch cannot export it.
    """
    label = label or f"transformers {type(model).__name__}"
    if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in model.parameters()):
        model = copy.deepcopy(model).to("cpu", torch.float32)
    with _plain_attention(model), eval_mode(model), torch.no_grad(), quiet():
        export = _export_of(model, part, pooling, label)
        examples, axes = export.examples()
        made = from_torch(export.module(), examples, axes)
        _name(made.graph.graph, export)
        fix_names(made)
        _prove(made, export, label)
    return Model(made.graph, label)


def _loaded(folder: ModelFolder) -> Any:
    settings = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet(), _no_progress_bars():
            config = transformers.AutoConfig.from_pretrained(folder.path, **settings)
            kind = _class_of(folder, config)
            model, told = kind.from_pretrained(
                folder.path,
                config=config,
                local_files_only=True,
                weights_only=True,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
    except UnsupportedModel:
        raise
    except Exception as cause:
        first = str(cause).strip().partition("\n")[0]
        raise ModelError(
            f"transformers {transformers.__version__} cannot load {folder.path}: "
            f"{type(cause).__name__}: {first}",
            hint=_load_hint(cause),
        ) from cause
    _check_fit(folder, model, told)
    return model


def _load_hint(cause: Exception) -> str:
    if "weights_only" in str(cause) or type(cause).__name__ == "UnpicklingError":
        return (
            "the weights hold more than tensors, which could run code: save the model as "
            "safetensors where it is trusted, with model.save_pretrained(FOLDER)"
        )
    return "compare the folder with the original; copy or download it again"


def _class_of(folder: ModelFolder, config: Any) -> Any:
    """The class that is named in config.json, if transformers has it for this kind of model."""
    if not folder.architecture:
        return transformers.AutoModel
    kind = getattr(transformers, folder.architecture, None)
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known or not isinstance(config, kind.config_class):  # type: ignore[union-attr]
        what = "does not know" if not known else f"knows no {config.model_type} model of"
        raise UnsupportedModel(
            f"transformers {transformers.__version__} {what} the architecture "
            f"{folder.architecture} that {folder.path}/config.json names",
            hint=f"update transformers; or {_FUNCTION}",
        )
    return kind


def _check_fit(folder: ModelFolder, model: Any, told: Any) -> None:
    """Refuse weights of another model: parameters without values, or layers too many.

    What is left over otherwise, such as the head that a model was trained with, is no fault.
    """
    names = model.state_dict().keys()
    kinds = {re.sub(r"\d+", "N", name) for name in names}
    faults = [f"no values for {name}" for name in sorted(told["missing_keys"])]
    faults += [f"another shape for {key[0]}" for key in sorted(told["mismatched_keys"])]
    faults += [
        f"no place for {name}"
        for name in sorted(told["unexpected_keys"])
        if re.search(r"\d", name) and re.sub(r"\d+", "N", name) in kinds
    ]
    if faults:
        shown = [*faults[:5], *([f"and {len(faults) - 5} more"] if len(faults) > 5 else [])]
        raise ModelError(
            f"the weights in {folder.path} do not fit its config.json: {'; '.join(shown)}",
            hint="the files belong to different models, or the head was never trained: save the "
            "trained model again with save_pretrained",
            details={"faults": faults},
        )


def _export_of(model: Any, part: str, pooling: Pooling | None, label: str) -> Export:
    """How this model is exported, by its class and its configuration."""
    name = type(model).__name__
    if not type(model).__module__.startswith("transformers."):
        raise UnsupportedModel(
            f"{name} is a class of your own, and what it takes is not known",
            hint="give (model, example inputs) as for any torch module",
        )
    if model.main_input_name != "input_ids":
        raise UnsupportedModel(
            f"{label}: {name} reads {model.main_input_name}, and text models are handled",
            hint=_FUNCTION,
        )
    if model.config.is_encoder_decoder and pooling is None:
        return _part_of(model, part, label)
    if part:
        raise ModelError(
            f"{label}: {name} is one model, and has no part '{part}'",
            hint="give it without a part",
        )
    answers = next((HEADS[end] for end in HEADS if name.endswith(end)), None)
    if answers is None:
        raise UnsupportedModel(f"{label}: {name} is not handled", hint=_handled())
    return EncoderExport(model, answers, pooling)


def _part_of(model: Any, part: str, label: str) -> Export:
    name = type(model).__name__
    if not name.endswith(_WRITES):
        raise UnsupportedModel(f"{label}: {name} is not handled", hint=_handled())
    if part == "encoder":
        return SourceExport(model)
    if part == "decoder":
        return DecoderExport(model)
    folder = Path(label).is_dir()
    pair = " and ".join(f"{label}#{each}" if folder else f'(model, "{each}")' for each in PARTS)
    raise ModelError(
        f"{label}: {name} is an encoder and a decoder, which become a bundle each",
        hint=f"compress them one by one: {pair}",
    )


def _handled() -> str:
    ends = ", ".join(f"*{end}" for end in (*HEADS, *_WRITES))
    return f"handled are {ends} of text; for others {_FUNCTION}"


def _name(graph: ir.Graph, export: Export) -> None:
    """The user's names: of inputs, outputs, parameters, and the nodes of each module."""
    for value in list(graph.initializers.values()):
        if value.name and value.name.startswith(_WRAPPED):
            value.name = value.name.removeprefix(_WRAPPED)
    for node in graph:
        node.name = (node.name or "").removeprefix(_WRAPPED)
    for values, names in ((graph.inputs, export.inputs), (graph.outputs, export.outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name


def _prove(made: Model, export: Export, label: str) -> None:
    """Compare the graph with the model, in the shapes of the trace and in others."""
    run = float_run(made)
    for feeds, expected in export.cases():
        told = agree(expected, run(feeds))
        if told:
            shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in feeds.items())
            raise ModelError(
                f"{label}: the exported graph answers otherwise than the model: {told} "
                f"({shapes[:200]})",
                hint=f"torch {torch.__version__} and transformers {transformers.__version__} do "
                f"not go together for this model; try other versions, or {_FUNCTION}",
            )


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    bars = transformers.utils.logging
    before = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            bars.enable_progress_bar()


@contextlib.contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Attention as products and a softmax, which is what can be quantized."""
    before = model.config._attn_implementation  # noqa: SLF001 - there is no public name
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
