"""`.keras`, `.h5` and SavedModel: what they are, told without Keras, and where they go."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers.keras_quiet import quiet
from edgebm.ir.model import Model

_CONFIG, _METADATA = "config.json", "metadata.json"
_WEIGHTS = ("model.weights.h5", "model.weights.npz", "model.weights.json")
_MAX_CONFIG_BYTES = 2**26
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ENVIRONMENT = (
    "pip install 'edgebm[keras]'; or, where the versions clash, export it in an environment of "
    "its own: python3 -m venv keras-env && keras-env/bin/pip install keras tensorflow tf2onnx && "
    "keras-env/bin/{command}; then: edgebm compress model.onnx"
)
_OF_KERAS = (
    "python -c \"import keras; m = keras.saving.load_model('{path}'); "
    "m(keras.ops.zeros([d or 1 for d in m.input_shape])); "
    "m.export('model.onnx', format='onnx', opset_version=18)\""
)
_OF_SAVED_MODEL = "python -m tf2onnx.convert --saved-model {path} --opset 18 --output model.onnx"
_KERAS2 = (
    "save it anew with Keras 3: keras.saving.load_model('old.h5', compile=False)"
    ".save('new.keras'); where that cannot read it, load it with the TensorFlow that wrote it, "
    "model.export('folder'), and give that folder, a SavedModel"
)


def is_keras_source(path: Path) -> bool:
    """Whether it is one of Keras' or TensorFlow's formats, by name or by what is inside."""
    if path.is_dir():
        return (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()
    if not path.is_file():
        return False
    if path.suffix.lower() in (".keras", ".h5", ".hdf5"):
        return True
    try:
        return _start(path) == _HDF5 or (zipfile.is_zipfile(path) and _is_keras_zip(path))
    except OSError:
        return False  # whoever reads it says why it cannot be read


def read_keras(path: Path) -> Model:
    """Read a `.keras` file of Keras 3 or a SavedModel folder.

    A `.keras` file is opened in Keras' safe mode: no code in it is run.

    Raises:
        UnsupportedModel: custom or Lambda layers (all named).
        ModelError: another version of Keras wrote it, weights are missing, it is damaged, Keras or
            TensorFlow is not installed, or it cannot be exported.
    """
    if path.is_dir():
        found: Model = _importer("keras_saved_model", path).from_saved_model(path)
        return found
    _check_file(path)
    loaded: Model = _importer("keras_load", path).from_keras_file(path)
    return loaded


def is_keras_model(source: object) -> bool:
    """Whether it is a live `keras.Model`, asked without importing Keras."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(source).__mro__}
    old = {n for n in names if n.endswith("engine.training.Model") and "keras" in n}
    if old:
        raise UnsupportedModel(
            f"{type(source).__name__} is a model of Keras 2 ({sorted(old)[0]})",
            hint="save it as a SavedModel, model.export('folder'), and give that folder",
        )
    return "keras.src.models.model.Model" in names


def from_live(source: object, example_inputs: Any = None) -> Model:
    """Import a live `keras.Model`.

    Raises:
        ModelError: as `read_keras`.
    """
    found: Model = _importer("keras_model", None).from_keras(source, example_inputs)
    return found


def _importer(module: str, path: Path | None) -> ModuleType:
    """The file that imports Keras or TensorFlow, loaded now and not before."""
    try:
        with quiet():
            return importlib.import_module(f"edgebm.importers.{module}")
    except ImportError as cause:
        folder = path is not None and path.is_dir()
        what = (
            f"the SavedModel {path} needs TensorFlow" if folder else f"{path or 'it'} needs Keras"
        )
        command = _OF_SAVED_MODEL if folder else _OF_KERAS
        raise ModelError(
            f"{what} and tf2onnx: {cause}",
            hint=_ENVIRONMENT.format(command=command.format(path=path or "model.keras")),
        ) from cause


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HDF5))


def _check_file(path: Path) -> None:
    try:
        start = _start(path)
    except OSError as cause:
        raise ModelError(
            f"{path} cannot be read: {cause.strerror or cause}", hint="check its permissions"
        ) from cause
    if start == _HDF5:
        raise ModelError(f"{path} is an HDF5 file, the older format of Keras", hint=_KERAS2)
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is no .keras file: it is not a zip archive, or is truncated",
            hint="copy it again; model.save('model.keras') writes one",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            config, metadata = (_json(archive, key, path) for key in (_CONFIG, _METADATA))
    except (zipfile.BadZipFile, OSError) as cause:
        raise ModelError(f"{path} is damaged: {cause}", hint="copy it again") from cause
    _check_version(path, metadata)
    if not members & set(_WEIGHTS):
        raise ModelError(
            f"{path} has no weights ({_WEIGHTS[0]})", hint="write it with model.save(path)"
        )
    _check_layers(path, config)


def _json(archive: zipfile.ZipFile, member: str, path: Path) -> Any:
    if member not in archive.namelist():
        raise ModelError(
            f"{path} is no .keras file: it has no {member}", hint="write it with model.save(path)"
        )
    if archive.getinfo(member).file_size > _MAX_CONFIG_BYTES:
        raise ModelError(f"{path}: its {member} is over {_MAX_CONFIG_BYTES // 2**20} MiB")
    try:
        return json.loads(archive.read(member))
    except ValueError as cause:
        raise ModelError(f"{path}: its {member} is no JSON: {cause}") from cause


def _check_version(path: Path, metadata: Any) -> None:
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    major = str(version or "").partition(".")[0]
    if not major.isdecimal():
        raise ModelError(f"{path} does not say which Keras wrote it", hint=_KERAS2)
    if int(major) < 3:
        raise ModelError(f"{path} was written by Keras {version}; Keras 3 reads 3", hint=_KERAS2)
    if int(major) > 3:
        raise ModelError(
            f"{path} was written by Keras {version}, which is newer than what edgebm knows (3)",
            hint="export it to ONNX with that Keras and give the .onnx file",
        )


def _check_layers(path: Path, config: Any) -> None:
    layers = list(_objects(config))
    functions = [label for kind, _, label in layers if kind == "Lambda"]
    if functions:
        raise UnsupportedModel(
            f"{path} has Lambda layers, which hold Python code: {', '.join(sorted(functions))}; "
            "no code from a file is run",
            hint="replace them by layers or keras.ops in the model and save it again, or give "
            "file.py:function that builds the model and loads its weights",
        )
    custom = {f"{kind} '{label}'" for kind, owner, label in layers if owner}
    if custom:
        raise UnsupportedModel(
            f"{path} has custom layers, whose code is not in the file: "
            f"{', '.join(sorted(custom))}",
            hint="give file.py:function that defines them and returns the loaded keras.Model",
        )


def _objects(node: Any) -> Iterator[tuple[str, str, str]]:
    """Class, package it is registered in if it is the user's own, and name of every object."""
    if isinstance(node, list):
        for item in node:
            yield from _objects(item)
    if not isinstance(node, dict):
        return
    kind, module = node.get("class_name"), node.get("module")
    if isinstance(kind, str) and "config" in node:
        inner = node["config"] if isinstance(node["config"], dict) else {}
        own = "" if _is_builtin(kind, module) else str(node.get("registered_name") or kind)
        yield kind, own, str(inner.get("name") or node.get("name") or "?")
    for value in node.values():
        yield from _objects(value)


def _is_builtin(kind: str, module: object) -> bool:
    if isinstance(module, str):
        return module.partition(".")[0] in ("keras", "builtins")
    return kind.startswith("__")  # tensors, tuples and other plain values


def _is_keras_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {_CONFIG, _METADATA} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
