"""Everything edgebm raises on purpose.

EdgebmError                 .code  .hint  .details  .exit_code
├── UsageError              an argument is wrong                          2
├── RecipeError             a line of a recipe                            2
├── TargetError             a line of a target, or no such target         2
├── ModelError              the model file cannot be read                 2
│   └── UnsupportedModel    it can be read, but not compressed            2
├── DataError               samples, labels or a metric                   2
├── InputError              what `Session.run` was given                  2
│   ├── InputPort           a name is missing, extra or misspelt
│   ├── InputType           not an array
│   ├── InputDType          another dtype or byte order
│   ├── InputShape          another rank or size
│   ├── InputRange          an index outside its table
│   └── InputNonFinite      NaN or infinity
├── PassError               a compression pass failed                     1
├── TrainingDiverged        its loss is no number any more                2
├── WorkerLost              a process that trained along is gone          1
├── ConstraintMissed        best candidate is over a limit                3
├── GateFailed              a quality gate failed; no bundle              3
├── BundleError             the bundle itself                             4
│   ├── BundleFormat        not a bundle at all
│   ├── BundleCorrupt       bytes differ from what was written
│   ├── BundleUntrusted     signature missing or wrong
│   ├── BundleRollback      older than the one accepted before
│   ├── BundleIncompatible  for another edgebm or another device
│   └── SelfTestFailed      golden samples give other answers here
├── BackendError            the vendor runtime                            5
│   ├── BackendUnavailable  not installed or does not load
│   ├── BackendFailed       it raised
│   ├── BackendLost         the device went away
│   ├── BackendCrashed      its process died
│   ├── Stalled             it stopped answering
│   ├── EngineStale         no compiled engine that fits this device
│   ├── CompileTimeout      compiling took too long
│   └── ResourceError       memory, threads or file handles
└── SessionError            use of a session                              2
    ├── DeadlineExceeded    the answer would come too late
    ├── Busy                every request is in use
    ├── StateError          recurrent state of another model
    ├── ForkedUse           used in a forked child
    └── Closed              used after close()

This module imports nothing from edgebm, and the package root is never
imported from inside the package: `from edgebm.errors import UsageError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


class EdgebmError(Exception):
    """Base class. `str(error)` says what and where; `hint` says what to do next.

    `code` is stable text for programs (`input_shape` for InputShape); `details` holds the
    figures behind the sentence.
    """

    exit_code = 1
    code = "edgebm_error"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        words = re.findall(r"DType|[A-Z][a-z]+|[A-Z]+(?=[A-Z]|$)", cls.__name__)
        cls.code = "_".join(word.lower() for word in words)

    def __init__(
        self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = dict(details or {})


class UsageError(EdgebmError, ValueError):
    exit_code = 2


class _FileFaults(EdgebmError, ValueError):
    """One or more faults in a YAML file, each with its own line; 0 where no file is meant."""

    exit_code = 2

    def __init__(
        self, path: str, faults: Sequence[tuple[int, str, str]], *, hint: str = ""
    ) -> None:
        lines = [
            f"{path}:{line}: {where}: {what}" if line else f"{where} {path}: {what}"
            for line, where, what in faults
        ]
        super().__init__("\n".join(lines), hint=hint)
        self.faults = tuple(faults)


class RecipeError(_FileFaults): ...


class TargetError(_FileFaults): ...


class ModelError(EdgebmError, ValueError):
    exit_code = 2


class UnsupportedModel(ModelError): ...


class DataError(EdgebmError, ValueError):
    exit_code = 2


class InputError(EdgebmError, ValueError):
    exit_code = 2


class InputPort(InputError): ...


class InputType(InputError): ...


class InputDType(InputError): ...


class InputShape(InputError): ...


class InputRange(InputError): ...


class InputNonFinite(InputError): ...


class PassError(EdgebmError):
    """Names the pass and the node, never only the numpy message underneath."""

    def __init__(self, message: str, *, step: str, node: str = "", hint: str = "") -> None:
        at = f" at node '{node}'" if node else ""
        super().__init__(f"{step}{at}: {message}", hint=hint)
        self.step, self.node = step, node


class TrainingDiverged(EdgebmError):
    exit_code = 2


class WorkerLost(EdgebmError): ...


class ConstraintMissed(EdgebmError):
    exit_code = 3


class GateFailed(EdgebmError):
    exit_code = 3


class BundleError(EdgebmError):
    exit_code = 4


class BundleFormat(BundleError): ...


class BundleCorrupt(BundleError): ...


class BundleUntrusted(BundleError): ...


class BundleRollback(BundleError): ...


class BundleIncompatible(BundleError): ...


class SelfTestFailed(BundleError): ...


class BackendError(EdgebmError):
    exit_code = 5


class BackendUnavailable(BackendError): ...


class BackendFailed(BackendError): ...


class BackendLost(BackendError): ...


class BackendCrashed(BackendError): ...


class Stalled(BackendError): ...


class EngineStale(BackendError): ...


class CompileTimeout(BackendError): ...


class ResourceError(BackendError): ...


class SessionError(EdgebmError):
    exit_code = 2


class DeadlineExceeded(SessionError): ...


class Busy(SessionError): ...


class StateError(SessionError): ...


class ForkedUse(SessionError): ...


class Closed(SessionError): ...
