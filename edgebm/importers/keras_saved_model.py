"""TensorFlow SavedModel folders, through tf2onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers.keras_names import settle_names
from edgebm.importers.keras_proof import answers, prove, random_feeds
from edgebm.importers.keras_quiet import quiet
from edgebm.importers.onnx_file import from_proto
from edgebm.ir.model import Model

_OPSET = 18
_DEFAULT = "serving_default"


def from_saved_model(path: Path) -> Model:
    """Convert the serving signature of a SavedModel.

    Raises:
        UnsupportedModel: it has no signature, several of which none is the default, or operations
            that have no equal in ONNX.
        ModelError: TensorFlow cannot load it.
    """
    label = str(path)
    try:
        with quiet():
            loaded = tf.saved_model.load(label)
    except Exception as cause:
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load the SavedModel {path}: "
            f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}",
            hint="a SavedModel is a folder with saved_model.pb and variables/; export it again",
        ) from cause
    signature = _signature(loaded, path)
    names = list(signature.structured_input_signature[1])
    specs = [signature.structured_input_signature[1][key] for key in names]

    @tf.function  # type: ignore[untyped-decorator]
    def call(*args: Any) -> Any:
        return signature(**dict(zip(names, args, strict=True)))

    outputs = sorted(signature.structured_outputs)
    exported = _converted(call, specs, path)
    settle_names(exported, (names, outputs))
    feeds = random_feeds(exported)
    got = answers(exported, feeds, label)
    with quiet():
        found = signature(**{key: tf.constant(feeds[key]) for key in names})
    wanted = [np.asarray(found[key]) for key in outputs]
    prove(got, wanted, f"{label}: the graph that tf2onnx {tf2onnx.__version__}")
    return exported


def _signature(loaded: Any, path: Path) -> Any:
    found = dict(loaded.signatures)
    if not found:
        raise UnsupportedModel(
            f"{path} has no serving signature: nothing says what its inputs are",
            hint="model.export(folder) of Keras 3 writes one; of a tf.Module: tf.saved_model.save("
            "module, folder, signatures=module.__call__.get_concrete_function(spec))",
        )
    if _DEFAULT in found:
        return found[_DEFAULT]
    if len(found) > 1:
        raise UnsupportedModel(
            f"{path} has several signatures and none is called {_DEFAULT}: "
            f"{', '.join(sorted(found))}",
            hint="save the one that is meant: tf.saved_model.save(loaded, folder, "
            f"signatures={{'{_DEFAULT}': loaded.signatures['NAME']}})",
        )
    return next(iter(found.values()))


def _converted(call: Any, specs: list[Any], path: Path) -> Model:
    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(call, input_signature=specs, opset=_OPSET)
    except Exception as cause:
        raise ModelError(
            f"tf2onnx {tf2onnx.__version__} cannot convert {path}: {type(cause).__name__}: "
            f"{str(cause).strip().partition(chr(10))[0]}",
            hint=f"try it on its own: python -m tf2onnx.convert --saved-model {path} "
            f"--opset {_OPSET} --output model.onnx",
        ) from cause
    return from_proto(proto, label=str(path))
