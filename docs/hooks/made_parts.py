"""What the reference shows of commands, recipes, targets, steps and errors, as Markdown."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from annotated_types import Ge, Gt, Le, Lt, MinLen

from edgebm import errors
from edgebm.cli.main import COMMANDS, DEVICE, cli
from edgebm.errors import EdgebmError
from edgebm.passes.catalog import AnyStep
from edgebm.recipe import Recipe, list_recipes, load_recipe
from edgebm.target import Target, list_targets, load_target

ROOT = Path(__file__).parents[2]
_TYPES = {
    float: "a number",
    int: "a whole number",
    bool: "`true` or `false`",
    str: "a text",
    type(None): "none",
}
_STEPS = "a list of [steps](steps.md), each with its `kind`"
_BOUNDS: dict[type, Callable[[Any], str]] = {
    Ge: lambda bound: f"at least {bound.ge}",
    Gt: lambda bound: f"above {bound.gt}",
    Le: lambda bound: f"at most {bound.le}",
    Lt: lambda bound: f"below {bound.lt}",
    MinLen: lambda bound: "not empty",
}


def commands() -> str:
    """Every command with its arguments, options and examples, from click itself."""
    context = click.Context(cli, info_name="edgebm")
    parts = ["## edgebm", _help_text(cli), _options(cli, context)]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is None:
            raise LookupError(f"edgebm {name} is listed and not there")
        half = "Device half." if name in DEVICE else "Host half."
        own = click.Context(command, info_name=name, parent=context)
        usage = " ".join(["edgebm", name, *command.collect_usage_pieces(own)])
        parts += [f"## edgebm {name}", f"`{usage}`", f"{_help_text(command)}\n\n{half}"]
        parts += [_options(command, own), *_examples(command)]
    return "\n\n".join(part for part in parts if part)


def _help_text(command: click.Command) -> str:
    return inspect.cleandoc((command.help or "").replace("\b\n", ""))


def _options(command: click.Command, context: click.Context) -> str:
    """A table of the options as `--help` writes them."""
    found = [option.get_help_record(context) for option in command.get_params(context)]
    rows = [f"| {_code(names)} | {_cell(text)} |" for names, text in filter(None, found) if text]
    return "\n".join(["| option | |", "| --- | --- |", *rows])


def _examples(command: click.Command) -> Iterator[str]:
    """The examples under `--help`, block by block: a heading and what to type."""
    for block in (command.epilog or "").split("\b\n"):
        title, _, lines = block.strip("\n").partition("\n")
        if lines:
            yield f"{title}\n\n```sh\n{inspect.cleandoc(lines)}\n```"


def recipes() -> str:
    """The recipes that come along, as their files are."""
    known = {name: load_recipe(name).description for name in list_recipes()}
    table = [f"| [`{name}`](#{name}) | {text} |" for name, text in known.items()]
    files = [
        f"### {name}\n\n```yaml\n{(ROOT / 'recipes' / f'{name}.yaml').read_text()}```"
        for name in known
    ]
    return "\n\n".join(["\n".join(["| recipe | |", "| --- | --- |", *table]), *files])


def recipe_keys() -> str:
    """The keys of a recipe, and of the blocks in it."""
    return _keys_and_blocks(Recipe)


def targets() -> str:
    """The targets that come along; `host` is detected where it is used and has no facts here."""
    head = ["| target | device | arch | runtimes | threads | precisions | CPU features |"]
    rows = ["| `host` | this machine, as detected | | | | | |"]
    for name in list_targets():
        if name != "host":
            t = load_target(name)
            lists = (t.runtimes, map(str, t.threads), t.precisions, t.features)
            cells = [f"`{t.name}`", t.description, t.arch, *(", ".join(each) for each in lists)]
            rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*head, "| --- " * 7 + "|", *rows])


def target_keys() -> str:
    """The keys of a target, and of the blocks in it."""
    return _keys_and_blocks(Target)


def steps() -> str:
    """Every step: what it does, from its docstring, and its keys."""
    union, _ = get_args(AnyStep)
    made = {get_args(get_type_hints(cls)["kind"])[0]: cls for cls in get_args(union)}
    parts = []
    for kind, cls in sorted(made.items()):
        own = f"::: {cls.__module__}.{cls.__name__}\n    options: {{members: false, "
        parts += [
            f"## {kind}",
            own + "show_root_heading: false, show_root_toc_entry: false}",
            _keys(cls),
        ]
    return "\n\n".join(parts)


def error_tree() -> str:
    """The tree of errors, from the docstring that is its documentation."""
    doc = inspect.cleandoc(errors.__doc__ or "")
    tree = doc[doc.index("EdgebmError") :].partition("\n\n")[0]
    return f"```text\n{tree}\n```"


def error_codes() -> str:
    """`code` and exit code of every error."""
    rows = [
        f"| `{kind.__name__}` | `{kind.code}` | {kind.exit_code} |"
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, EdgebmError) and kind.__name__[0] != "_"
    ]
    return "\n".join(["| class | `code` | exit code |", "| --- | --- | ---: |", *rows])


def _keys_and_blocks(cls: type) -> str:
    """The keys of a validated dataclass, and below a heading those of each that it holds."""
    parts = [_keys(cls)]
    for key, hint in get_type_hints(cls).items():
        inner = [each for each in (hint, *get_args(hint)) if is_dataclass(each)]
        if inner and key != "steps":
            parts += [f"### {key}", _keys_and_blocks(inner[0])]
    return "\n\n".join(parts)


def _keys(cls: type) -> str:
    """A table of the fields of a validated dataclass: YAML keys, what they may be, defaults."""
    hints = get_type_hints(cls, include_extras=True)
    rows = []
    for field in fields(cls):
        if field.name != "kind":
            shown = _plain(field.default) if field.default is not MISSING else "required"
            if field.default_factory is not MISSING:
                shown = ""
            values = _STEPS if field.name == "steps" else _values(hints[field.name])
            rows.append(f"| `{field.name}` | {_cell(values)} | {shown} |")
    if not rows:
        return "It has no keys."
    return "\n".join(["| key | values | default |", "| --- | --- | --- |", *rows])


def _values(hint: Any) -> str:
    """What a key may be, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ", ".join([_values(arguments[0]), *_bounds(arguments[1:])])
    if origin is Literal:
        return " or ".join(_plain(value) for value in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(_values(each) for each in arguments)
    if origin is tuple:
        many = len(arguments) == 2 and arguments[1] is ...
        inner = _values(arguments[0]) if many else ", ".join(map(_values, arguments))
        return f"a list: {inner}" if many else f"[{inner}]"
    return "keys, see below" if is_dataclass(hint) else _TYPES[hint]


def _bounds(marks: tuple[Any, ...]) -> Iterator[str]:
    for mark in marks:
        for bound in getattr(mark, "metadata", [mark]):
            if type(bound) in _BOUNDS:
                yield _BOUNDS[type(bound)](bound)


def _plain(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value is None else f"`{value}`" if value != "" else ""


def _code(text: str) -> str:
    """As code in a table, where a bar cannot be escaped between backquotes."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "recipes": recipes,
    "recipe-keys": recipe_keys,
    "targets": targets,
    "target-keys": target_keys,
    "steps": steps,
    "error-tree": error_tree,
    "error-codes": error_codes,
}
