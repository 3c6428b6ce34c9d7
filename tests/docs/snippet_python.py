"""Python blocks: run in the page's own namespace, or compiled and held against signatures."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from snippet_blocks import Block

import edgebm
from edgebm.runtime.pipeline import Pipeline
from edgebm.runtime.stream import Stream

# What these names are on a page where nothing that can be seen has made them.
_USUAL: dict[str, Any] = {"session": edgebm.Session}
_GIVEN: dict[Any, Any] = {
    edgebm.Session.pipeline: Pipeline, edgebm.Session.stream: Stream, Pipeline.__enter__: Pipeline,
}  # fmt: skip


def run(block: Block, names: dict[str, Any]) -> None:
    """Executes the block; a warning is an error, and a traceback has the lines of the page."""
    code = compile("\n" * block.line + block.text, block.page, "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, names)


def check(block: Block) -> None:
    """The block compiles, and what it names of edgebm takes the keywords that it gives."""
    tree = ast.parse("\n" * block.line + block.text, block.page)
    known = dict(_USUAL)
    for node in ast.walk(tree):
        for target, value in _bindings(node):
            if isinstance(target, ast.Name) and (given := _given(value, known)) is not None:
                known[target.id] = given
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _check_import(node, block)
        elif isinstance(node, ast.Call):
            _check_call(node, known, block)
        elif isinstance(node, ast.Attribute):
            _resolve(node, known, block)


def check_name(dotted: str, where: str) -> None:
    """`edgebm.x.y` is a module, or something in one."""
    found: Any = edgebm
    path = "edgebm"
    for part in dotted.split(".")[1:]:
        path = f"{path}.{part}"
        if inspect.ismodule(found) and not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError:
                raise AssertionError(f"{where}: there is no {path}") from None
        found = getattr(found, part)


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.With):
        yield from ((item.optional_vars, item.context_expr) for item in node.items)


def _given(value: ast.expr, known: dict[str, Any]) -> Any:
    """The class of what a call returns, where annotations tell."""
    if not isinstance(value, ast.Call):
        return None
    called = _resolve(value.func, known, None)
    if called in _GIVEN:
        return _GIVEN[called]
    if inspect.isclass(called):
        return called
    kind = getattr(called, "__annotations__", {}).get("return")
    if isinstance(kind, str):  # some are imported for type checkers only
        module = sys.modules[called.__module__]
        kind = getattr(module, kind, getattr(edgebm, kind, None))
    return kind if inspect.isclass(kind) and kind.__module__.startswith("edgebm") else None


def _resolve(node: ast.expr, known: dict[str, Any], block: Block | None) -> Any:
    """The object behind `edgebm.x.y` or behind a name whose class is known; None if neither."""
    if isinstance(node, ast.Name):
        return edgebm if node.id == "edgebm" else known.get(node.id)
    if isinstance(node, ast.Call):
        return _given(node, known)
    if not isinstance(node, ast.Attribute):
        return None
    owner = _resolve(node.value, known, block)
    edge = inspect.ismodule(owner) or inspect.isclass(owner) or inspect.isfunction(owner)
    if owner is None or not edge or not _ours(owner):
        return None
    found = inspect.getattr_static(owner, node.attr, None) if inspect.isclass(owner) else None
    if found is None:
        found = getattr(owner, node.attr, None)
    if found is None and inspect.isclass(owner):
        annotated = node.attr in {
            n for c in owner.__mro__ for n in getattr(c, "__annotations__", ())
        }
        assert block is None or annotated or _set_in_init(owner, node.attr), (
            f"{block.page}:{node.lineno}: {owner.__name__} has no {node.attr}"
        )
        return None
    assert block is None or found is not None, (
        f"{block.page}:{node.lineno}: {owner.__name__} has no {node.attr}"
    )
    return found


def _ours(owner: Any) -> bool:
    name = owner.__name__ if inspect.ismodule(owner) else owner.__module__
    return str(name).partition(".")[0] == "edgebm"


def _set_in_init(owner: type, name: str) -> bool:
    made = [vars(kind)["__init__"] for kind in owner.__mro__ if "__init__" in vars(kind)]
    return any(
        re.search(rf"self\.{name}\b", inspect.getsource(init))
        for init in made
        if inspect.isfunction(init)
    )


def _check_import(node: ast.Import | ast.ImportFrom, block: Block) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "edgebm":
                importlib.import_module(alias.name)
    elif node.module and node.module.partition(".")[0] == "edgebm":
        module = importlib.import_module(node.module)
        for alias in node.names:
            where = f"{block.page}:{node.lineno}"
            assert hasattr(module, alias.name), f"{where}: {node.module} has no {alias.name}"


def _check_call(node: ast.Call, known: dict[str, Any], block: Block) -> None:
    called = _resolve(node.func, known, block)
    if called is None or not callable(called):
        return
    taken = inspect.signature(called).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    unknown = {k.arg for k in node.keywords if k.arg} - set(taken)
    assert not unknown, f"{block.page}:{node.lineno}: {ast.unparse(node.func)} takes no {unknown}"
