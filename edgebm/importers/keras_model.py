"""Live Keras 3 models as ONNX graphs, through Keras' own export.

This file alone, with `keras_saved_model.py`, imports keras and tensorflow.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers.keras_names import settle_names
from edgebm.importers.keras_proof import answers, prove, random_feeds
from edgebm.importers.keras_quiet import quiet
from edgebm.importers.onnx_file import read_onnx
from edgebm.ir.model import Model

_TF_OPSET = 18  # the newest that tf2onnx writes; its default, 15, is older
_BACKENDS = ("tensorflow", "torch")
_MADE_UP = re.compile(r"keras_tensor(_\d+)?")
_FIXED = (
    "the torch backend fixes the number of steps: save the model as .keras and run with "
    "KERAS_BACKEND=tensorflow"
)


def from_keras(model: Any, example_inputs: Any = None) -> Model:
    """Export a `keras.Model` and prove the graph on random numbers.

    Args:
        model: Sequential, functional, or subclassed; the last must have been called once, or come
            with `example_inputs`.
        example_inputs: positional inputs that a subclassed model is called with.

    Raises:
        UnsupportedModel: layers that have no equal in ONNX, or a backend that cannot export.
        ModelError: Keras cannot export it, or the graph computes something else.
    """
    label = f"keras {type(model).__name__} '{model.name}'"
    backend = keras.backend.backend()
    if backend not in _BACKENDS:
        raise UnsupportedModel(
            f"{label}: Keras runs on {backend}, from which edgebm does not import",
            hint="save it as .keras and run with KERAS_BACKEND=tensorflow",
        )
    _refuse_states(model, label)
    if example_inputs is not None:
        model(*example_inputs)
    signature = _signature(model, label)
    with tempfile.TemporaryDirectory(prefix="edgebm-keras-") as folder:
        path = Path(folder) / "model.onnx"
        _export(model, path, signature, label)
        exported = read_onnx(path)
    exported = Model(exported.graph, label)
    settle_names(exported, _names(model))
    _prove(model, exported, label)
    return exported


def _signature(model: Any, label: str) -> Any:
    """What the inputs look like; None for a subclassed model, which Keras remembers itself.

    Without it Keras refuses a model that was built and never called.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return [_spec(tensor) for tensor in model.inputs]
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return [keras.tree.map_structure(_spec, structure)]
    if not model.built or not getattr(model, "_called", True):
        raise ModelError(
            f"{label} was never called, so the shapes of its inputs are not known",
            hint="call it once on an example, or give (model, (x,))",
        )
    return None


def _spec(tensor: Any) -> Any:
    shape = (None, *tensor.shape[1:])
    return keras.InputSpec(dtype=tensor.dtype, shape=shape, name=tensor.name)


def _export(model: Any, path: Path, signature: Any, label: str) -> None:
    chosen = {"opset_version": _TF_OPSET} if keras.backend.backend() == "tensorflow" else {}
    try:
        with quiet():
            model.export(
                str(path), format="onnx", verbose=False, input_signature=signature, **chosen
            )
    except ImportError as cause:
        raise ModelError(
            f"{label}: Keras {keras.__version__} needs another package to export it: {cause}",
            hint="pip install 'edgebm[keras]'",
        ) from cause
    except Exception as cause:
        first = str(cause).strip().partition("\n")[0]
        raise ModelError(
            f"Keras {keras.__version__} on {keras.backend.backend()} cannot export {label}: "
            f"{type(cause).__name__}: {first}",
            hint="check that model.export('model.onnx', format='onnx') works on its own",
        ) from cause
    if not path.is_file():
        raise ModelError(f"Keras {keras.__version__} wrote no file for {label}")


def _names(model: Any) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs in order of the graph, where the user gave any.

    Keras counts those it makes up over the whole process, so they differ from run to run.
    """
    inputs = [t.name for t in keras.tree.flatten(getattr(model, "inputs", None) or [])]
    inputs = ["" if _MADE_UP.fullmatch(label) else label for label in inputs]
    outputs = list(getattr(model, "output_names", None) or [])
    if isinstance(model, keras.Sequential) and model.layers:
        outputs = [model.layers[-1].name]
    return inputs, outputs


def _refuse_states(model: Any, label: str) -> None:
    stateful = [layer.name for layer in _layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise UnsupportedModel(
            f"{label} has layers that keep their state between calls: {', '.join(stateful)}",
            hint="build it with stateful=False and compress with --streaming: the bundle's "
            "stream() then keeps the states",
        )


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _layers(layer)


def _prove(model: Any, exported: Model, label: str) -> None:
    """Both compute the same for sizes of the free axes that the export has not seen."""
    feeds = random_feeds(exported)
    got = answers(exported, feeds, label)
    structure = getattr(model, "_inputs_struct", None)
    arrays: Any = list(feeds.values())
    with quiet():
        if structure is not None:
            found = model(keras.tree.pack_sequence_as(structure, arrays), training=False)
        else:
            found = model(*arrays)
    wanted = [np.asarray(keras.ops.convert_to_numpy(t)) for t in keras.tree.flatten(found)]
    backend = keras.backend.backend()
    hint = _FIXED if backend == "torch" else ""
    prove(got, wanted, f"{label}: the graph that Keras {keras.__version__} on {backend}", hint)
