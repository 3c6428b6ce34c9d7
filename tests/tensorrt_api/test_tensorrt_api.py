"""The parts of the check that need no wheel, and what the committed tables say."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import plants
import pytest
import stub_package
import wheels
from commands import CheckFailed
from name_table import path_of, render
from surface import Member, Surface
from type_check import product_files
from type_names import parse, translate

CLASSES = ("Dims", "Engine", "Level", "Plan")
METHOD: Member = {
    "kind": "method",
    "settable": False,
    "signatures": [
        "build(self: tensorrt_bindings.tensorrt.Engine, shape: tensorrt_bindings.tensorrt.Dims, "
        "level: tensorrt_bindings.tensorrt.Level = <Level.LOW: 0>, path: str = None) "
        "-> tensorrt_bindings.tensorrt.Plan"
    ],
}
SIZE: Member = {
    "kind": "property",
    "settable": True,
    "get": ["(self: tensorrt_bindings.tensorrt.Engine) -> int"],
    "set": ["(self: tensorrt_bindings.tensorrt.Engine, arg0: typing.SupportsInt) -> None"],
}
SURFACE: Surface = {
    "version": "1.2.3",
    "classes": {
        "Engine": {
            "kind": "class",
            "bases": [],
            "members": {"build": METHOD, "size": SIZE},
            "values": {},
        },
        "Level": {"kind": "enum", "bases": [], "members": {}, "values": {"LOW": 0, "None": 7}},
        "Plan": {"kind": "class", "bases": ["Engine"], "members": {}, "values": {}},
        "Plan.Part": {"kind": "enum", "bases": [], "members": {}, "values": {"HEAD": 3}},
    },
    "functions": {"volume": ["(shape)"]},
    "aliases": {"low": "Level.LOW", "Built": "Plan"},
}


@pytest.mark.parametrize(
    ("text", "taken", "given"),
    [
        ("typing.SupportsInt", "int", "Any"),
        ("typing.SupportsFloat", "float", "Any"),
        ("tensorrt_bindings.tensorrt.Dims", "Union[Dims, Sequence[int]]", "Dims"),
        ("nvinfer1::v_1_0::Level", "Level", "Level"),
        ("List[bool]", "List[_bool]", "List[_bool]"),
        ("typing_extensions.Buffer", "Buffer", "Buffer"),
        ("detail::accessor<str_attr>", "Any", "Any"),
        ("nvinfer1::Unknown", "Any", "Any"),
    ],
)
def test_types_are_what_pybind11_writes(text: str, taken: str, given: str) -> None:
    assert translate(text, CLASSES, parameter=True) == taken
    assert translate(text, CLASSES) == given


def test_a_signature_keeps_defaults_and_their_consequences() -> None:
    signature = parse(METHOD["signatures"][0], CLASSES, bound=True)
    assert [parameter.render() for parameter in signature.parameters] == [
        "shape: Union[Dims, Sequence[int]]",
        "level: Level = ...",
        "path: Optional[str] = ...",
    ]
    assert signature.returns == "Plan"


def test_what_is_no_signature_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a signature: build"):
        parse("build the engine", CLASSES, bound=True)


def test_stubs_declare_everything_once() -> None:
    text = stub_package.render(SURFACE)
    ast.parse(text)
    for line in (
        "class Plan(Engine):",
        "    class Part:",
        "        HEAD: ClassVar[Plan.Part]",
        "    def size(self, value: int) -> None: ...",
        "def volume(shape: Any) -> Any: ...",
        "low: Level",
        "Built = Plan",
    ):
        assert text.count(f"\n{line}\n") == 1, line
    assert "None: ClassVar" not in text


def test_a_table_holds_names_and_numbers_only() -> None:
    text = render({**SURFACE, "classes": {"Builder": SURFACE["classes"]["Engine"], **ENUM}})
    assert json.loads(text) == {
        "version": "1.2.3",
        "classes": {
            "Builder": {
                "kind": "class",
                "bases": [],
                "members": {
                    "build": {"kind": "method", "settable": False},
                    "size": {"kind": "property", "settable": True},
                },
                "values": {},
            },
            "Level": {"kind": "enum", "bases": [], "members": {}, "values": {"LOW": 0, "None": 7}},
        },
        "functions": ["volume"],
        "aliases": {"low": "Level.LOW"},
    }


ENUM = {"Level": SURFACE["classes"]["Level"]}


@pytest.mark.parametrize("version", wheels.VERSIONS)
def test_a_plant_that_is_not_found_fails_the_check(version: str) -> None:
    start = plants.PRELUDE.count("\n") + 1
    right = {
        (number, plant.code)
        for number, plant in enumerate(plants.PLANTS, start)
        if version in plant.versions
    }
    assert plants.missed(right, version) == []
    for finding in right:
        assert len(plants.missed(right - {finding}, version)) == 1
    innocent = start + len(plants.PLANTS) - 1
    assert len(plants.missed({*right, (innocent, "attr-defined")}, version)) == 1
    assert len(plants.missed({*right, (1, "import-not-found")}, version)) == 1


def test_planted_names_are_in_the_tables_where_they_are_said_to_be() -> None:
    tables = {v: json.loads(path_of(v).read_text(encoding="utf-8")) for v in wheels.VERSIONS}

    def having(owner: str, name: str) -> list[str]:
        found = {v: table["classes"][owner] for v, table in tables.items()}
        return [v for v, cls in found.items() if name in {**cls["members"], **cls["values"]}]

    first, *_, last = wheels.VERSIONS
    assert last not in having("BuilderFlag", "FP16")
    assert first in having("BuilderFlag", "FP16")
    assert having("ICudaEngine", "device_memory_size_v2") == list(wheels.VERSIONS)
    assert first not in having("IBuilderConfig", "tiling_optimization_level")
    flag = "NetworkDefinitionCreationFlag"
    numbers = [table["classes"][flag]["values"]["STRONGLY_TYPED"] for table in tables.values()]
    assert numbers == [1, 1, 1, 0]  # why no number of an enum may be stored


def test_files_count_when_they_import_tensorrt_anywhere(tmp_path: Path) -> None:
    package = tmp_path / "edgebm"
    package.mkdir()
    (package / "talks.py").write_text('"""import tensorrt"""\nfrom edgebm import tensorrt\n')
    with pytest.raises(CheckFailed, match="nothing to check"):
        product_files(tmp_path)
    typed = package / "typed.py"
    typed.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorrt\n")
    late = package / "late.py"
    late.write_text("def build():\n    from tensorrt import Builder\n    return Builder\n")
    assert product_files(tmp_path) == [late, typed]


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tensorrt_cu12_bindings-10.3.0-cp311-none-any.whl").write_bytes(b"something")
    with pytest.raises(CheckFailed, match="is not the published file: its sha256 is 3fc9b689"):
        wheels.fetch("10.3.0", "cp311", tmp_path)


def test_a_wheel_that_cannot_be_had_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CheckFailed, match=r"(?s)fetching .* 11\.4\.0\.106 .* failed"):
        wheels.fetch("11.4.0.106", "cp311", tmp_path)


def test_an_interpreter_without_wheels_is_told_which_have_them(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho CPython linux x86_64 cp313\n")
    python.chmod(0o755)
    with pytest.raises(CheckFailed, match=r"x86_64 cp313\) has no binding .* up to 3\.12"):
        wheels.tag_of(str(python))
    with pytest.raises(CheckFailed, match="cannot be started"):
        wheels.tag_of(str(tmp_path / "missing"))
