"""Compress trained models, prove what it cost, and run them on edge devices.

On a device: `session = edgebm.load("model.edgebm")`, then `session.run(x)`. This needs numpy and
one vendor runtime. The names that make bundles are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgebm.errors import EdgebmError
from edgebm.runtime.session import Session, load

if TYPE_CHECKING:
    from edgebm.pipeline import Result, compress, evaluate, quantize

__version__ = "0.1.0"
__all__ = [
    "EdgebmError",
    "Result",
    "Session",
    "__version__",
    "compress",
    "evaluate",
    "load",
    "quantize",
]
_HOST = frozenset({"Result", "compress", "evaluate", "quantize"})


def __getattr__(name: str) -> Any:
    if name in _HOST:
        return getattr(importlib.import_module("edgebm.pipeline"), name)
    raise AttributeError(f"module 'edgebm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOST})
