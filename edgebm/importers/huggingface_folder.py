"""What a Hugging Face model folder says, read and checked before torch is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebm.data.model_folder import CONFIG, PARTS
from edgebm.errors import ModelError, UnsupportedModel

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FOREIGN = ("tf_model.h5", "flax_model.msgpack")
_LFS = b"version https://git-lfs"
_SAVE = "write it with model.save_pretrained(FOLDER)"
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How one vector is made of a vector a token: `mode` is mean, cls or max."""

    mode: str
    normalize: bool


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that can be loaded. `part` is "", "encoder" or "decoder".

    `architecture` is the class that wrote it, "" where only the kind of model matters.
    """

    path: Path
    part: str
    architecture: str
    pooling: Pooling | None


def read_folder(path: Path, part: str = "") -> ModelFolder:
    """Read the JSON files and look at the weights; nothing is loaded.

    Raises:
        ModelError: something is missing or damaged.
        UnsupportedModel: it needs code of its own, is an adapter, is quantized already, or its
            sentence embedding is made in a way that is not known.
    """
    if part not in ("", *PARTS):
        raise ModelError(f"{path} has no part '{part}'", hint=f"the parts are {', '.join(PARTS)}")
    if (path / "adapter_config.json").is_file():
        raise UnsupportedModel(
            f"{path} holds an adapter, not a whole model",
            hint="merge it first: model.merge_and_unload().save_pretrained(FOLDER)",
        )
    config = _json(path / CONFIG, Mapping)
    _check_config(path, config)
    _check_weights(path)
    pooling = _pooling(path)
    if pooling is not None:
        return ModelFolder(path, part, "", pooling)
    named = config.get("architectures") or []
    if len(named) != 1:
        raise ModelError(
            f"{path}/{CONFIG} names {len(named)} architectures, and one tells the task",
            hint=f'{_SAVE}, or add "architectures": ["BertModel"] as it was trained',
        )
    return ModelFolder(path, part, str(named[0]), None)


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    if "model_type" not in config:
        raise ModelError(
            f"{path}/{CONFIG} names no model_type: it is no configuration of transformers",
            hint=_SAVE,
        )
    if config.get("auto_map"):
        raise UnsupportedModel(
            f"{path} needs Python code of its own ({', '.join(map(str, config['auto_map']))} in "
            f"{CONFIG}), and code from a model folder is never run",
            hint="write a function that builds the model, and give file.py:function that returns "
            "(module, example inputs)",
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "quantized")
        raise UnsupportedModel(
            f"{path} is quantized already ({method})", hint="give the model that it was made from"
        )


def _check_weights(path: Path) -> None:
    found = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if found is None:
        others = [
            name for name in ("tf_model.h5", "flax_model.msgpack") if (path / name).is_file()
        ]
        what = f"; {others[0]} is for another framework" if others else ""
        raise ModelError(
            f"{path} has no weights: neither {_WEIGHTS[0]} nor {_WEIGHTS[2]}{what}",
            hint=f"download the whole folder, or {_SAVE}",
        )
    files = [found]
    if found.suffix == ".json":
        index = _json(found, Mapping)
        files = [path / name for name in sorted(set(index.get("weight_map", {}).values()))]
    for file in files:
        if file.parent != path or not file.is_file():
            raise ModelError(
                f"{found} names {file.name}, which is not in the folder",
                hint="download the whole folder",
            )
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise ModelError(f"{file} is a Git-LFS pointer", hint="run: git lfs pull")


def _pooling(path: Path) -> Pooling | None:
    """What the modules of a sentence-transformers folder do to the vectors of tokens."""
    if not (path / "modules.json").is_file():
        return None
    modules = _json(path / "modules.json", list)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise UnsupportedModel(
            f"{path}/modules.json lists {', '.join(kinds)}, and what is known is Transformer, "
            "Pooling and Normalize",
            hint="write a function that builds the module, and give file.py:function",
        )
    if modules[0]["path"]:
        raise UnsupportedModel(
            f"{path}: the weights lie in {modules[0]['path']}",
            hint=f"give {path / modules[0]['path']} for its outputs without pooling, or save the "
            "model again with a newer sentence-transformers",
        )
    place = path / modules[1]["path"] / CONFIG
    settings = _json(place, Mapping)
    asked = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]
    modes = [_POOLINGS.get(key, "") for key in asked] or [str(settings.get("pooling_mode", ""))]
    if len(modes) != 1 or modes[0] not in _POOLINGS.values():
        raise UnsupportedModel(
            f"{place} asks for {', '.join(asked) or modes[0] or 'no pooling'}, and one of mean, "
            "cls and max is known",
            hint="write a function that builds the module, and give file.py:function",
        )
    return Pooling(modes[0], "Normalize" in kinds)


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise ModelError(
            f"{path.parent} has no {path.name}", hint=f"download the whole folder, or {_SAVE}"
        ) from cause
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
        raise ModelError(f"{path} cannot be read: {cause}", hint="copy it again") from cause
    if not isinstance(value, kind):
        raise ModelError(f"{path} is no JSON of the right form", hint="copy it again")
    return value
