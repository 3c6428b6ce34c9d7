"""YAML and JSON blocks, read by the product's own parsers."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from snippet_blocks import Block

from edgebm.recipe import load_recipe
from edgebm.target import load_target


def check(block: Block, folder: Path) -> None:
    """A recipe, some keys of one, or a target; or JSON. A file that it names is written."""
    if block.language == "json":
        json.loads(block.text)
        return
    keys = set(yaml.safe_load(block.text))
    text = block.text
    if "arch" not in keys:
        text += "" if "version" in keys else "version: 1\n"
        text += "" if "steps" in keys else "steps: []\n"
    path = folder / (block.file or f"line{block.line}.yaml")
    path.write_text(text)
    if "arch" in keys:
        load_target(path)
    else:
        load_recipe(path)
