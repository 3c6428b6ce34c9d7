"""`edgebm recipes`: the recipes that come along."""

from __future__ import annotations

import click
import yaml

from edgebm.cli.output import emit_json, json_option
from edgebm.recipe import list_recipes, load_recipe


@click.command(epilog="\b\nExample:\n  edgebm recipes\n  edgebm recipes int8")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the recipes that come along, or show one with every default written out.

    NAME is a recipe of the list, or a YAML file of your own.
    """
    if name is not None:
        values = load_recipe(name).to_dict()
        if as_json:
            emit_json(values)
        else:
            known = {key: value for key, value in values.items() if value is not None}
            click.echo(yaml.safe_dump(known, sort_keys=False, width=1000), nl=False)
        return
    found = {each: load_recipe(each) for each in list_recipes()}
    if as_json:
        emit_json([recipe.to_dict() for recipe in found.values()])
        return
    width = max(map(len, found))
    for each, recipe in found.items():
        click.echo(f"{each:<{width}}  {recipe.description}")
