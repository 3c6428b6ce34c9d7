"""Hugging Face model folders by name: told from files and from names of a hub, nothing loaded."""

from __future__ import annotations

import re
from pathlib import Path

PARTS = ("encoder", "decoder")
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
# A folder with one of these was meant as a model, whatever else is missing.
_MARKS = (
    CONFIG, TOKENIZER, "tokenizer_config.json", "modules.json", "adapter_config.json",
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack",
)  # fmt: skip
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")
_FILES = frozenset({".onnx", ".pt2", ".pt", ".pth", ".py", ".h5", ".keras", ".tflite", ".edgebm"})


def split_part(text: str) -> tuple[Path, str]:
    """`t5#decoder` as the folder `t5` and the part of it; "" where none is named."""
    folder, mark, part = text.rpartition("#")
    if mark and not Path(text).exists() and Path(folder).is_dir():
        return Path(folder), part
    return Path(text), ""


def is_model_folder(path: Path) -> bool:
    """Whether it is a folder that `save_pretrained` may have written."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def hub_hint(text: str) -> str:
    """How to get the folder that a hub knows as `text`; "" where it reads as no such name."""
    if Path(text).suffix in _FILES or not _HUB_NAME.fullmatch(text):
        return ""
    place = text.rpartition("/")[2]
    return (
        f"edgebm fetches nothing: if {text} is the name of a model on a hub, download it with "
        f"'hf download {text} --local-dir {place}' and give the folder {place}"
    )
