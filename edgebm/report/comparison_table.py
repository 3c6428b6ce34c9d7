"""Two bundles side by side in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from edgebm.report.blame import printable
from edgebm.report.comparison import sameness
from edgebm.report.rows import Report
from edgebm.report.table import print_comparison

_SHOWN = 12


def print_compared(
    first: Report, second: Report, compared: Mapping[str, Any], console: Console
) -> None:
    """The table, what is the same and what is not, and each gate with its figures."""
    print_comparison(first, second, compared["bundles"], console)
    for sentence in [*sameness(compared["same"]), *compared["notes"]]:
        _say(console, sentence)
    _print_layers(compared["layers"], console)
    for each in compared["differences"]:
        _say(console, f"{each['what']}: {each['first']} -> {each['second']}")
    for gate in compared["gates"]:
        style = "green" if gate["passed"] else "bold red"
        _say(console, f"{'passed' if gate['passed'] else 'failed'}: {gate['sentence']}", style)


def _print_layers(layers: Mapping[str, Any], console: Console) -> None:
    changed = layers["changed"]
    if changed:
        count = "1 layer computes" if len(changed) == 1 else f"{len(changed)} layers compute"
        _say(console, f"{count} in another precision:")
    for layer in changed[:_SHOWN]:
        why = f" ({layer['why']})" if layer["why"] else ""
        text = f"  {layer['name']} ({layer['op']}): {layer['first']} -> {layer['second']}{why}"
        _say(console, text)
    if len(changed) > _SHOWN:
        _say(console, f"  and {len(changed) - _SHOWN} more; --json lists all")
    for which in ("first", "second"):
        only = len(layers[f"only_{which}"])
        if only:
            layers_are = "1 layer is" if only == 1 else f"{only} layers are"
            _say(console, f"{layers_are} only in the {which}.")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True)
