"""Recipes and targets: YAML in, a frozen checked value out, every fault with its line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from edgebm.errors import RecipeError, TargetError

T = TypeVar("T")
Fault = tuple[int, str, str]
Location = Sequence[int | str]
_MOST_BYTES = 1 << 20
_PLAIN = {
    "unexpected_keyword_argument": "there is no such key",
    "missing_argument": "this key is missing",
    "missing": "this key is missing",
    "union_tag_not_found": "the key 'kind' is missing",
    "too_short": "must list at least one value",
}


@dataclass(frozen=True, slots=True)
class YamlKind(Generic[T]):
    """One kind of file: what it is called, where those that come along lie, how it is checked."""

    word: str
    packaged: str
    folder: str
    adapter: TypeAdapter[T]
    error: type[RecipeError] | type[TargetError]

    def names(self) -> list[str]:
        """Names of those that come along, sorted."""
        return sorted(path.stem for path in self._home().glob("*.yaml"))

    def find(self, name_or_path: str | Path) -> Path:
        """The file that is meant: a path when it ends in .yaml or has a slash, else a name.

        Raises:
            RecipeError, TargetError: there is none; the nearest name is suggested.
        """
        text = str(name_or_path)
        if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
            path = Path(name_or_path)
            if path.is_file():
                return path
            what = "is a folder" if path.is_dir() else "there is no such file"
            raise self.error(text, [(0, self.word, what)], hint=self._offer(path.stem))
        if text in self.names():
            return self._home() / f"{text}.yaml"
        what = f"there is no {self.word} of this name"
        raise self.error(text or "''", [(0, self.word, what)], hint=self._offer(text))

    def load(self, path: Path) -> T:
        """Read and check a file.

        Raises:
            RecipeError, TargetError: with all faults at once, each with line and key.
        """
        tree, raw = self.parse(path)
        return self.check(path, tree, raw)

    def parse(self, path: Path) -> tuple[yaml.Node, dict[str, Any]]:
        """The YAML tree, which knows lines, and the plain values."""
        text = self._text(path)
        try:
            # Aliases first: a few lines of them can stand for gigabytes.
            faults = list(_aliases(text))
            tree = None if faults else yaml.compose(text, Loader=yaml.SafeLoader)
            faults += _repeated(tree) if tree is not None else []
            raw = None if faults else yaml.safe_load(text)
        except yaml.MarkedYAMLError as cause:
            mark = cause.problem_mark or cause.context_mark
            fault = (mark.line + 1 if mark else 1, "yaml", cause.problem or "not YAML")
            raise self.error(str(path), [fault], hint=self._example()) from cause
        except (yaml.YAMLError, ValueError, RecursionError) as cause:
            fault = (1, "yaml", f"not YAML: {cause}")
            raise self.error(str(path), [fault], hint=self._example()) from cause
        if not faults and not isinstance(raw, dict):
            faults = [(1, self.word, "must be keys and values, one `key: value` a line")]
        if faults or tree is None or not isinstance(raw, dict):
            raise self.error(str(path), sorted(faults), hint=self._example())
        return tree, raw

    def _text(self, path: Path) -> str:
        try:
            data = path.read_bytes()
            if len(data) <= _MOST_BYTES:
                return data.decode("utf-8")
            what = f"{len(data)} bytes is too large"
        except OSError as cause:
            what = cause.strerror or "cannot be read"
        except UnicodeDecodeError:
            what = "not UTF-8 text"
        raise self.error(str(path), [(1, self.word, what)], hint=self._example())

    def check(self, path: Path, tree: yaml.Node, raw: Mapping[str, Any]) -> T:
        """Validate parsed values; `tree` gives the lines for what is wrong."""
        try:
            # JSON mode: a YAML list is a tuple here, while strictness about types stays.
            return self.adapter.validate_json(json.dumps(raw, default=str))
        except ValidationError as cause:
            schema = self.adapter.json_schema()
            errors = cause.errors(include_url=False)
            faults = [
                _fault(tree, schema, e["type"], e["loc"], e["msg"])
                for e in errors
                if not _follows(e["type"], e["loc"], [other["loc"] for other in errors])
            ]
            raise self.error(str(path), sorted(faults), hint=self._example()) from None

    def _example(self) -> str:
        return f"`edgebm {self.word}s {self.names()[-1]}` shows one with every key"

    def _home(self) -> Path:
        """Package data in an installed wheel; in a source tree the folder beside the package."""
        package = Path(__file__).parent
        packaged = package / self.packaged
        return packaged if packaged.is_dir() else package.parent / self.folder

    def _offer(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), 1)
        known = f"there are {', '.join(self.names())}; or give a .yaml file"
        return f"did you mean '{near[0]}'? {known}" if near else known


def _repeated(node: yaml.Node, where: str = "") -> Iterator[Fault]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            at, line = f"{where}.{key.value}".lstrip("."), key.start_mark.line + 1
            if key.value in seen:
                yield line, at, f"stands already in line {seen[key.value]}"
            seen.setdefault(key.value, line)
            yield from _repeated(value, at)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _repeated(value, f"{where}[{index}]")


def _aliases(text: str) -> Iterator[Fault]:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            mark = event.start_mark
            yield mark.line + 1 if mark else 1, f"*{event.anchor}", "write the value out here"


def _fault(
    tree: yaml.Node, schema: Mapping[str, Any], kind: str, loc: Location, what: str
) -> Fault:
    """Walk the YAML tree as far as `loc` goes; the last node reached has the line."""
    node, line = tree, tree.start_mark.line + 1
    where = ""
    for key in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            where += f"[{key}]"
        elif isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == key]
            if found:
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            # A key that is not in the file is the missing one, or the tag of a union.
            if found or (kind.startswith("missing") and key == loc[-1]):
                where = f"{where}.{key}".lstrip(".")
    what = _PLAIN.get(kind, what.removeprefix("Value error, "))
    if kind == "unexpected_keyword_argument":
        what += _nearest(schema, loc)
    return line, where or "file", what[:1].lower() + what[1:]


def _follows(kind: str, loc: Location, others: Sequence[Location]) -> bool:
    """A list counts as too short once its bad items are out; only those are worth a line."""
    inside = (other for other in others if len(other) > len(loc))
    return kind == "too_short" and any(tuple(other[: len(loc)]) == tuple(loc) for other in inside)


def _nearest(schema: Mapping[str, Any], loc: Location) -> str:
    allowed = _keys(schema, loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), allowed, 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; keys are {', '.join(allowed)}" if allowed else ""


def _keys(schema: Mapping[str, Any], loc: Location) -> list[str]:
    """The keys that the JSON schema allows at `loc`."""
    here = _resolved(schema, schema)
    for key in loc:
        if isinstance(key, int):
            here = _resolved(schema, here.get("items", {}))
        elif "discriminator" in here:
            here = _resolved(schema, {"$ref": here["discriminator"]["mapping"].get(key, "")})
        else:
            here = _resolved(schema, here.get("properties", {}).get(key, {}))
    return list(here.get("properties", {}))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow `$ref`, and `anyOf` to its first object (an optional block)."""
    while True:
        if "$ref" in node:
            node = schema.get("$defs", {}).get(str(node["$ref"]).rpartition("/")[2], {})
        elif "anyOf" in node and "properties" not in node:
            options = [_resolved(schema, option) for option in node["anyOf"]]
            return next((option for option in options if "properties" in option), {})
        else:
            return node
