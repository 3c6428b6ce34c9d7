"""`module:function` and `file.py:function`: Python that the user names on the command line."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgebm.errors import DataError


def is_reference(text: str) -> bool:
    """Whether `text` reads as `module:function` or `file.py:function`."""
    module, _, function = text.rpartition(":")
    return bool(module) and function.isidentifier() and not Path(text).exists()


def load_callable(reference: str) -> Callable[..., Any]:
    """The function that `module:function` or `path/file.py:function` names.

    Modules in the working directory are found too, after every installed one.

    Raises:
        DataError: no such module, file or function, or importing it failed.
    """
    module_name, _, name = reference.rpartition(":")
    if not module_name or not name.isidentifier():
        raise DataError(
            f"'{reference}' is not of the form module:function",
            hint="write package.module:function or path/file.py:function",
        )
    module = _module(module_name, reference)
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    near = difflib.get_close_matches(name, known, 1)
    what = "has no function" if function is None else "has something else than a function called"
    raise DataError(
        f"{module_name} {what} '{name}'",
        hint=f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(known) or 'none'}",
    )


def _module(name: str, reference: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        return _from_file(Path(name))
    except DataError:
        raise
    except ModuleNotFoundError as cause:
        raise DataError(
            f"'{reference}': {cause}",
            hint="run from the folder of that module, or write path/file.py:function",
        ) from cause
    except Exception as cause:
        raise DataError(
            f"importing {name} for '{reference}' failed: {type(cause).__name__}: {cause}",
            hint="the fault lies in that file: import it in Python to see where",
        ) from cause


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise DataError(f"{path} does not exist", hint="check the path before the colon")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is not a Python file", hint="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared(spec: object, function: Callable[..., Any]) -> tuple[str, str, bool]:
    """Name, unit and direction of a user's metric, from its attributes."""
    name = spec if isinstance(spec, str) else getattr(function, "__name__", "metric")
    unit = str(getattr(function, "unit", ""))
    return name, unit, bool(getattr(function, "higher_is_better", True))


def call_user(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run the user's own code; what it raises becomes a DataError that names it."""
    try:
        return function(*arguments)
    except DataError:
        raise
    except Exception as cause:
        raise DataError(
            f"{name} raised {type(cause).__name__}: {cause}",
            hint="the fault lies in that function: call it in Python to see where",
        ) from cause


def finite_number(value: Any, name: str) -> float:
    """What a user's function returned, as a float. Raises DataError when it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError) as cause:
        raise DataError(
            f"{name} returned a {type(value).__name__}, not a number", hint="return a float"
        ) from cause
    if not math.isfinite(number):
        raise DataError(f"{name} returned {number}", hint="return a finite number")
    return number
