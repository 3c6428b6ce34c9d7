"""`.keras` files, opened by Keras in safe mode."""

from __future__ import annotations

from pathlib import Path

import keras

from edgebm.errors import ModelError
from edgebm.importers.keras_model import from_keras
from edgebm.importers.keras_quiet import quiet
from edgebm.ir.model import Model


def from_keras_file(path: Path) -> Model:
    """Load a file that `keras_file` has found nothing against, and export it.

    Raises:
        ModelError: Keras cannot read it, or not export it.
    """
    try:
        with quiet():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as cause:
        first = str(cause).strip().partition("\n")[0]
        raise ModelError(
            f"Keras {keras.__version__} cannot read {path}: {type(cause).__name__}: {first}",
            hint="update Keras to the version that wrote it, or save it again with "
            f"{keras.__version__}",
        ) from cause
    return Model(from_keras(model).graph, str(path))
