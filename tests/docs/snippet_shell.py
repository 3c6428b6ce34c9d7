"""Shell blocks: run line by line, or held against the real commands and programs."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import tomllib
from snippet_blocks import ROOT, Block

from edgebm.cli.main import COMMANDS, cli, main

_META = re.compile(r"[|;&<>$`~*]")
_ENVIRONMENT = re.compile(r"[A-Z_]+=.*")
_EXTRA = re.compile(r"^(?:edgebm|\.)\[(?P<extras>[\w,]+)\]$")


def commands(block: Block) -> list[str]:
    """The lines to type: prompts and comments taken off, continued lines joined."""
    lines = block.text.replace("\\\n", " ").split("\n")
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [typed for line in lines if (typed := _without_comment(line).strip())]


def _without_comment(line: str) -> str:
    """A shell's comment begins a word; shlex would cut `t5#encoder`, too."""
    quote = ""
    for place, letter in enumerate(line):
        if letter in {"'", '"'} and quote in {"", letter}:
            quote = "" if quote else letter
        elif letter == "#" and not quote and line[place - 1 : place].strip() == "":
            return line[:place]
    return line


def run(block: Block, folder: Path) -> None:
    """Every line of the block in the folder, which is the working directory."""
    for line in commands(block):
        words = shlex.split(line)
        if words == ["set", "-e"]:
            continue
        if words[0] == "edgebm" and not _META.search(_unquoted(line)):
            code = main(words[1:])
        else:
            code = _bash(line, folder)
        assert code == block.exit_code, f"{block.where}: exit code {code} of: {line}"


def _unquoted(line: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"$]*\"", " ", line)


def _bash(line: str, folder: Path) -> int:
    """In a shell of its own, with this tree's `edgebm` and this Python on the PATH."""
    bin_folder = folder.parent / "bin"
    if not bin_folder.is_dir():
        bin_folder.mkdir()
        for name, arguments in (("edgebm", " -m edgebm"), ("python", "")):
            (bin_folder / name).write_text(
                f"#!/bin/sh\nexec '{sys.executable}'{arguments} \"$@\"\n"
            )
            (bin_folder / name).chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(
        shell, env=environment, cwd=folder, stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode


def check(block: Block) -> None:
    """What can be known without running: the shell's grammar, and all that is asked of edgebm."""
    grammar = subprocess.run(
        ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert block.language == "console" or grammar.returncode == 0, (
        f"{block.where}: {grammar.stderr}"
    )
    for line in commands(block):
        for words in _simple_commands(line):
            _check_command(words, f"{block.where}: {line}", block.page)


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line as words, split at pipes and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    parts = iter(lexer)
    for word in parts:
        if word and set(word) <= set("|;&"):
            yield words
            words = []
        elif word and set(word) <= set("<>"):
            next(parts)  # the file
        else:
            words.append(word)
    yield words


def _check_command(words: Sequence[str], where: str, page: str) -> None:
    while words and (_ENVIRONMENT.fullmatch(words[0]) or words[0] == "export"):
        words = words[1:]
    if not words:
        return
    program = words[0].rpartition("/")[2]
    if program == "edgebm":
        check_edgebm(words[1:], where)
    elif "-m" in words and words[words.index("-m") + 1] == "edgebm":
        check_edgebm(words[words.index("-m") + 2 :], where)
    elif program == "pip":
        _check_extras(words, where)
    elif program == "python" and len(words) > 1 and words[1].endswith(".py"):
        _check_program(words[1:], where, page)
    elif program == "sh":
        _check_script(words[1:], where, page)


def check_edgebm(words: Sequence[str], where: str) -> None:
    """Every option, choice and number of arguments, as click itself reads them."""
    name, *rest = words or [""]
    if name in {"--version", "--help", "-h"}:
        return
    assert name in COMMANDS, f"{where}: there is no command {name}"
    context = click.Context(cli, info_name="edgebm")
    command = cli.get_command(context, name)
    assert command is not None
    own = click.Context(command, info_name=name, parent=context)
    try:
        given, left, _ = command.make_parser(own).parse_args(list(rest))
    except click.UsageError as error:
        raise AssertionError(f"{where}: {error.format_message()}") from None
    assert not left, f"{where}: too much: {left}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        missing = parameter.required and parameter.value_is_missing(value)
        assert not missing, f"{where}: {parameter.name} is missing"
        if isinstance(parameter.type, click.Choice) and value:
            choices = [value] if isinstance(value, str) else value
            assert set(choices) <= set(parameter.type.choices), f"{where}: {value}"


def check_options(words: Sequence[str], where: str) -> None:
    """Options of a command that a sentence mentions, with or without its arguments."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    asked = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert asked <= known, f"{where}: no option {asked - known}"


def _check_extras(words: Sequence[str], where: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        asked = _EXTRA.match(word)
        unknown = set(asked["extras"].split(",") if asked else []) - {
            *project["optional-dependencies"]
        }
        assert not unknown, f"{where}: no such extra: {unknown}"


def _place(name: str, page: str) -> Path:
    """A program of the repository, named from its root or from beside the page."""
    near = (ROOT / page).parent / name
    return near.resolve() if near.is_file() else ROOT / name


class _ReadArguments(Exception):
    """A program has read its arguments, which is as far as it shall go."""


def _check_program(words: Sequence[str], where: str, page: str) -> None:
    """An example takes these arguments; other programs are there and compile."""
    path = _place(words[0], page)
    assert path.is_file(), f"{where}: there is no {words[0]}"
    compile(path.read_text(), str(path), "exec")
    if ROOT / "examples" not in path.parents:
        return
    read, argv, modules = argparse.ArgumentParser.parse_args, sys.argv, set(sys.modules)
    # What lies beside the program comes before modules of the tests with the same names.
    beside = {each.stem for each in path.parent.glob("*.py")} & modules
    aside = {name: sys.modules.pop(name) for name in beside}
    modules -= beside

    def only_read(parser: argparse.ArgumentParser, *args: object, **keywords: object) -> None:
        read(parser, *args, **keywords)  # type: ignore[call-overload]
        raise _ReadArguments

    argparse.ArgumentParser.parse_args = only_read  # type: ignore[method-assign, assignment]
    sys.argv = [str(path), *words[1:]]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except _ReadArguments:
        return
    except SystemExit as ended:
        raise AssertionError(f"{where}: not the program's arguments ({ended})") from None
    finally:
        argparse.ArgumentParser.parse_args = read  # type: ignore[method-assign]
        sys.argv = argv
        sys.path.remove(str(path.parent))
        # Other examples have modules of the same names.
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{ROOT}/examples"):
                del sys.modules[name]
        sys.modules.update(aside)
    raise AssertionError(f"{where}: the program does not read its arguments with argparse")


def _check_script(words: Sequence[str], where: str, page: str) -> None:
    """A script of an example: what is given behind its name goes to its edgebm commands."""
    path = _place(words[0], page)
    assert path.is_file(), f"{where}: there is no {words[0]}"
    more = words[2:]
    lines = path.read_text().replace("\\\n", " ").split("\n")
    asked = [line for line in lines if re.match(r"\s*(edgebm|python -m edgebm) ", line)]
    assert asked, f"{where}: the script runs no edgebm"
    for line in asked:
        given = line.partition(" #")[0].replace('"$@"', shlex.join(more))
        for command in _simple_commands(given):
            _check_command(command, f"{where}: {path.name}", page)
