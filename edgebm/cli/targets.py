"""`edgebm targets`: the devices that are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from edgebm.cli.output import emit_json, json_option
from edgebm.target import Target, list_targets, load_target


@click.command(epilog="\b\nExample:\n  edgebm targets\n  edgebm targets raspberry-pi-5")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the devices that are known, or show the facts of one.

    NAME is a target of the list, or a YAML file of your own.
    """
    if name is not None:
        facts = plain(load_target(name))
        if as_json:
            emit_json(facts)
        else:
            click.echo(facts_text(facts))
        return
    found = {each: load_target(each) for each in list_targets()}
    if as_json:
        emit_json([plain(target) for target in found.values()])
        return
    width = max(map(len, found))
    for each, target in found.items():
        note = f", for {', '.join(target.runtimes)}" if target.gpu is not None else ""
        click.echo(f"{each:<{width}}  {target.description}{note}")


def plain(target: Target) -> dict[str, Any]:
    """The facts that are known of a target, by key."""
    facts = dataclasses.asdict(target)
    return {key: value for key, value in facts.items() if value not in (None, "", ())}


def facts_text(facts: dict[str, Any], indent: str = "") -> str:
    """Keys and values, one a line; blocks are indented."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", facts_text(value, indent + "  ")]
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}:")
            lines += [f"{indent}  - {_inline(item)}" for item in value]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{indent}{key}: {', '.join(map(str, value)) or 'none'}")
        else:
            lines.append(f"{indent}{key}: {value}")
    return "\n".join(lines)


def _inline(item: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in item.items() if value not in ("", None))
