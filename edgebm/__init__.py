"""Compress trained models, prove what it cost, and run them on edge devices.

On a device: `session = edgebm.load("model.edgebm")`, then `session.run(x)`. This needs numpy and
one vendor runtime. Every name but the errors is imported when first used, so that the command
answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgebm.errors import EdgebmError

if TYPE_CHECKING:
    import edgebm.realtime as realtime  # noqa: PLR0402 - never from the root
    from edgebm.report.comparison import compare
    from edgebm.runtime.session import Session, load
    from edgebm.runtime.trust import Trust
    from edgebm.verbs.analyze import analyze
    from edgebm.verbs.as_module import as_module
    from edgebm.verbs.compress import Result, compress
    from edgebm.verbs.distill import distill
    from edgebm.verbs.evaluate import evaluate
    from edgebm.verbs.lint import Lint, lint
    from edgebm.verbs.plan import plan
    from edgebm.verbs.prune import prune
    from edgebm.verbs.quantize import quantize
    from edgebm.verbs.sign import keygen, sign

__version__ = "0.1.0"
__all__ = [
    "EdgebmError",
    "Lint",
    "Result",
    "Session",
    "Trust",
    "__version__",
    "analyze",
    "as_module",
    "compare",
    "compress",
    "distill",
    "evaluate",
    "keygen",
    "lint",
    "load",
    "plan",
    "prune",
    "quantize",
    "realtime",
    "sign",
]
_VERBS = (
    "analyze", "as_module", "compress", "distill", "evaluate", "lint", "plan", "prune", "quantize",
)  # fmt: skip
_MODULES = {verb: f"edgebm.verbs.{verb}" for verb in _VERBS}
_MODULES |= dict.fromkeys(("keygen", "sign"), "edgebm.verbs.sign")
_MODULES["Result"] = "edgebm.verbs.compress"
_MODULES["Lint"] = "edgebm.verbs.lint"
_MODULES["compare"] = "edgebm.report.comparison"
_MODULES |= dict.fromkeys(("Session", "load"), "edgebm.runtime.session")
_MODULES["Trust"] = "edgebm.runtime.trust"


def __getattr__(name: str) -> Any:
    if name not in {*_MODULES, "realtime"}:
        raise AttributeError(f"module 'edgebm' has no attribute {name!r}")
    if name == "realtime":
        return importlib.import_module("edgebm.realtime")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "realtime"})
