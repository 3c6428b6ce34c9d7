from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgebm.cli.recipes import command as recipes
from edgebm.cli.targets import command as targets
from edgebm.errors import TargetError
from edgebm.recipe import list_recipes, load_recipe


def test_targets_are_listed_with_a_line_each() -> None:
    result = CliRunner().invoke(targets, [])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("host ")
    assert any(line.startswith("raspberry-pi-5 ") and "Cortex-A76" in line for line in lines)


def test_one_target_and_its_json() -> None:
    text = CliRunner().invoke(targets, ["jetson-agx-orin"]).stdout
    assert "runtimes: tensorrt\n" in text
    assert "- jetpack: 6.2, tensorrt: 10.3" in text
    facts = json.loads(CliRunner().invoke(targets, ["jetson-agx-orin", "--json"]).stdout)
    assert facts["gpu"]["sm"] == ["8.7"]
    everything = json.loads(CliRunner().invoke(targets, ["--json"]).stdout)
    assert facts in everything


def test_unknown_target_is_an_edgebm_error() -> None:
    with pytest.raises(TargetError):
        CliRunner().invoke(targets, ["nope"], catch_exceptions=False)


def test_recipes(tmp_path: Path) -> None:
    assert "int8" in CliRunner().invoke(recipes, []).stdout
    text = CliRunner().invoke(recipes, ["int8"]).stdout
    assert "- kind: quantize_activations\n  observer: mse\n" in text
    assert "subset_size: 300" in text
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    assert load_recipe(mine) == load_recipe("int8")
    plain = json.loads(CliRunner().invoke(recipes, ["fp32", "--json"]).stdout)
    assert plain["steps"] == []
    assert len(json.loads(CliRunner().invoke(recipes, ["--json"]).stdout)) == len(list_recipes())
