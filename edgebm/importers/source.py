"""Models made by the user's own Python: `module:function` or `file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgebm.errors import ModelError

_FUNCTION = re.compile(r"^(?P<module>.+):(?P<function>[A-Za-z_]\w*)$")


def is_function_source(text: str) -> bool:
    """Whether `text` names a function, not a file. A drive letter is no module."""
    found = _FUNCTION.match(text)
    if found is None or Path(text).exists():
        return False
    module = found["module"]
    return module.endswith(".py") or all(part.isidentifier() for part in module.split("."))


def call_function(text: str) -> Any:
    """Import and call it; what it returns is the model.

    Raises:
        ModelError: no such module or function, or it raised.
    """
    found = _FUNCTION.match(text)
    assert found is not None
    function = _find(found["module"], found["function"])
    try:
        return function()
    except Exception as cause:
        raise ModelError(
            f"{text} raised {type(cause).__name__}: {cause}", hint="call it in Python to debug"
        ) from cause


def _find(module_name: str, function_name: str) -> Callable[[], Any]:
    try:
        module = (
            _load_file(Path(module_name)) if module_name.endswith(".py") else _load(module_name)
        )
    except Exception as cause:
        raise ModelError(
            f"{module_name} cannot be imported: {type(cause).__name__}: {cause}",
            hint=_import_hint(cause),
        ) from cause
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ModelError(
            f"{module_name} has no function '{function_name}'",
            hint="the function takes no arguments and returns (module, example_inputs)",
        )
    return function  # type: ignore[no-any-return]


def _import_hint(cause: Exception) -> str:
    if not isinstance(cause, ModuleNotFoundError):
        return "the fault lies in that file: import it in Python to see where"
    if (cause.name or "").partition(".")[0] == "torch":
        return "pip install 'edgebm[train]'"
    return "run from the folder of that module, or write path/file.py:function"


def _load(module_name: str) -> ModuleType:
    """As `python -m` would find it: the current folder counts."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    finally:
        if added:
            sys.path.remove(here)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # its own neighbours can be imported, as with `python file.py`
    try:
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module
