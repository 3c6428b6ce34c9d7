from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_models import save_pooling

from edgebm.cli.arguments import model_faults, model_name
from edgebm.data.model_folder import hub_hint, is_model_folder, split_part
from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers import import_model
from edgebm.importers.huggingface_folder import Pooling, read_folder

BERT = {"model_type": "bert", "architectures": ["BertModel"]}


def folder(path: Path, config: Any = BERT, weights: bytes | None = b"x") -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (path / "model.safetensors").write_bytes(weights)
    return path


def fault(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(path)
    return caught.value


def test_what_a_good_folder_says(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path))
    assert (found.architecture, found.part, found.pooling) == ("BertModel", "", None)
    save_pooling(tmp_path, mode="cls")
    assert read_folder(tmp_path).pooling == Pooling("cls", normalize=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["BertModel"]}, "names no model_type"),
        ({"model_type": "bert"}, "names 0 architectures"),
        ([], "no JSON of the right form"),
        (BERT | {"auto_map": {"AutoModel": "mine.Model"}}, "needs Python code of its own"),
        (BERT | {"quantization_config": {"quant_method": "gptq"}}, r"quantized already \(gptq\)"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, config: Any, words: str) -> None:
    error = fault(folder(tmp_path, config))
    assert error.hint
    with pytest.raises(ModelError, match=words):
        raise error


def test_a_folder_that_lacks_something(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert "has no config.json" in str(fault(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "tf_model.h5")
    folder(tmp_path, weights=None)
    error = fault(tmp_path)
    assert "has no weights" in str(error)
    assert "tf_model.h5 is for another framework" in str(error)
    assert "save_pretrained" in error.hint
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in str(fault(tmp_path))


def test_weights_in_parts_and_pointers(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "../b.safetensors"}}
    folder(tmp_path, weights=None)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_bytes(b"x")
    (tmp_path.parent / "b.safetensors").write_bytes(b"x")
    assert "which is not in the folder" in str(fault(tmp_path))
    folder(tmp_path, weights=b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in fault(tmp_path).hint


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    error = fault(tmp_path)
    assert isinstance(error, UnsupportedModel)
    assert "merge_and_unload" in error.hint


@pytest.mark.parametrize(
    ("mode", "kinds", "words"),
    [
        ("last", "Pooling", "pooling_mode_lasttoken"),
        ("mean", "Pooling Dense", "Transformer, Pooling, Dense"),
        ("none", "Pooling", "no pooling"),
    ],
)
def test_sentence_embeddings_that_are_made_otherwise(
    tmp_path: Path, mode: str, kinds: str, words: str
) -> None:
    folder(tmp_path)
    save_pooling(tmp_path, mode=mode, kinds=kinds)
    error = fault(tmp_path)
    assert words in str(error)
    assert "file.py:function" in error.hint


def test_a_name_of_a_hub_is_told_from_a_file(tmp_path: Path) -> None:
    error = fault(Path("someone/tiny-bert"))
    assert "hf download someone/tiny-bert --local-dir tiny-bert" in error.hint
    assert "hf download bert-base-uncased" in model_faults("MODEL", "bert-base-uncased")[0]
    assert hub_hint("model.onnx") == hub_hint("a/b/c") == hub_hint("../x") == ""
    assert "hf download" not in model_faults("MODEL", str(tmp_path / "no.onnx"))[0]


def test_folders_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder(tmp_path / "t5-v1.1")
    assert is_model_folder(place)
    assert not is_model_folder(tmp_path)
    assert split_part(f"{place}#decoder") == (place, "decoder")
    assert split_part(f"{tmp_path}/no#decoder") == (tmp_path / "no#decoder", "")
    assert model_name(f"{place}#decoder") == "t5-v1.1-decoder"
    monkeypatch.chdir(place)
    assert model_name(".") == "t5-v1.1"
    assert model_faults("MODEL", f"{place}#decoder") == []
    assert "is a folder" in model_faults("MODEL", str(tmp_path))[0]
