"""Every command and every snippet of the documentation works as it is shown."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import snippet_data
import snippet_python
import snippet_shell
from snippet_blocks import OUTPUT, RUN, Block, blocks, inline_code, pages
from snippet_files import lay
from snippet_names import names

import edgebm
from edgebm.cli.main import COMMANDS, cli
from edgebm.verbs.compress import compress

# Defaults of options that a command on a page does not give; what it gives counts as it is.
SHORT = {
    "compress": {"measure_seconds": 1.0, "threads": 1},
    "bench": {"seconds": 0.5},
}


@pytest.fixture
def short_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.context_settings, "default_map", SHORT)
    monkeypatch.setitem(compress.__kwdefaults__, "measure_s", 1.0)
    monkeypatch.setitem(compress.__kwdefaults__, "threads", 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to type the commands of a page in."""
    place = tmp_path / "page"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("EDGEBM_DATA", str(place))  # programs of examples ask for it
    monkeypatch.setenv("EDGEBM_CACHE", str(tmp_path / "cache"))
    yield place
    gc.unfreeze()  # what edgebm.realtime.prepare froze


@pytest.mark.usefixtures("short_defaults")
@pytest.mark.parametrize("page", pages())
def test_a_page_works_as_it_is_shown(page: str, folder: Path) -> None:
    given = blocks(page)
    if any(block.language in RUN and not block.parse_only for block in given):
        lay(page, folder)
    # A module, as decorators of the page's classes look theirs up.
    module = sys.modules["page"] = ModuleType("page")
    vars(module)["edgebm"] = edgebm
    try:
        for block in given:
            if block.language in RUN:
                _try(block, folder, vars(module))
    finally:
        del sys.modules["page"]


def _try(block: Block, folder: Path, named: dict[str, Any]) -> None:
    if block.file:
        (folder / block.file).write_text(block.text)
    if block.language in {"yaml", "json"}:
        snippet_data.check(block, folder)
    elif block.language == "python":
        if block.parse_only or block.file:
            snippet_python.check(block)
        else:
            for name, value in names(block.page, folder).items():
                named.setdefault(name, value)
            snippet_python.run(block, named)
    elif block.parse_only:
        snippet_shell.check(block)
    else:
        snippet_shell.run(block, folder)


@pytest.mark.parametrize("page", pages())
def test_every_block_has_a_language_and_every_mark_a_reason(page: str) -> None:
    for block in blocks(page):
        assert block.language in RUN | OUTPUT, f"{block.where}: {block.language}"
        assert not block.fault, f"{block.where}: {block.fault}"
        typed = re.search(r"^(\$ |edgebm \w|pip |python )", block.text, re.MULTILINE)
        assert block.language not in OUTPUT or not typed, (
            f"{block.where}: commands among output: a block for `console`"
        )


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_examples_under_help_are_what_the_command_takes(name: str) -> None:
    command = cli.get_command(click.Context(cli), name) if name else cli
    assert command is not None
    parts = (command.epilog or "").split("\b\n")[1:]
    typed = "\n".join(part.partition("\n")[2] for part in parts)
    assert "edgebm" in typed, f"edgebm {name} --help shows no example"
    snippet_shell.check(Block(f"edgebm {name} --help", 1, "sh", typed))


@pytest.mark.parametrize("page", pages())
def test_commands_and_names_within_sentences_are_real(page: str) -> None:
    for line, code in inline_code(page):
        if code.startswith("edgebm ") and code.split()[1] in COMMANDS:
            snippet_shell.check_options(code.split()[1:], f"{page}:{line}: {code}")
        elif code.startswith("edgebm "):
            other = code.startswith(("edgebm -", "edgebm bundle signature"))
            assert other, f"{page}:{line}: {code}"
        elif named := re.match(r"edgebm(\.[A-Za-z_]\w+)+", code):
            snippet_python.check_name(named[0], f"{page}:{line}: {code}")
