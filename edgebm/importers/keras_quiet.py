"""Notes of TensorFlow, tf2onnx and Keras on themselves, kept off the user's screen."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence logs, warnings and prints; faults come as exceptions."""
    before, kept = logging.root.manager.disable, {key: os.environ.get(key) for key in _QUIET}
    logging.disable(logging.ERROR)
    os.environ.update({key: text for key, text in _QUIET.items() if kept[key] is None})
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        for key, text in kept.items():
            if text is None:
                os.environ.pop(key, None)
