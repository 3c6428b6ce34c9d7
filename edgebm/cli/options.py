"""Options that several commands have, with one help text each: click and errors only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

ignored_option = click.option(
    "--ignored",
    multiple=True,
    metavar="NODE|PATTERN|OP",
    help="Nodes that are left as they are; may repeat.",
)
recipe_option = click.option(
    "-r",
    "--recipe",
    default="int8",
    show_default=True,
    metavar="NAME|FILE",
    help="What to do to the model.",
)
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of every random choice."
)
# The command gets a tuple of paths, or None where nobody gave one: nothing is checked then.
trust_option = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    callback=lambda _context, _option, keys: keys or None,
    help="Public key: refuse BUNDLE unless one of these keys has signed it. May repeat.",
)


def data_option(text: str, *, required: bool = False) -> Callable[[F], F]:
    """`--data`; `text` says what the samples are for."""
    return click.option(
        "-d",
        "--data",
        required=required,
        metavar="SAMPLES",
        help=f".npz or text file, folder or module:function with {text}",
    )


def target_option(text: str) -> Callable[[F], F]:
    """`--target`, one of them; `text` says what it is for."""
    return click.option(
        "-t", "--target", default="host", show_default=True, metavar="NAME|FILE", help=text
    )


def out_option(text: str) -> Callable[[F], F]:
    """`--out`; `text` says what is written."""
    return click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help=text)


def state_options(command: F) -> F:
    """Adds `--state` and `--streaming`, which a model with memory needs."""
    streaming = click.option(
        "--streaming",
        is_flag=True,
        help="Make a model of single steps, with its states as inputs and outputs, of MODEL, "
        "which takes sequences.",
    )
    state = click.option(
        "--state",
        multiple=True,
        metavar="INPUT:OUTPUT",
        help="A state before and after a call, in place of those that are found; may repeat. "
        "'none': there is no state.",
    )
    return state(streaming(command))
