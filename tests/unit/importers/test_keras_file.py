"""What is said about Keras files before Keras is asked. None of it needs Keras."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from pathlib import Path

import pytest

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers import import_model
from edgebm.importers.keras_file import is_keras_model, is_keras_source

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 2}}
LAMBDA = {
    "module": "keras.layers", "class_name": "Lambda",
    "config": {"name": "twice", "function": {"class_name": "__lambda__", "config": {}}},
}  # fmt: skip
CUSTOM = {
    "module": "shop", "class_name": "Norm", "registered_name": "shop>Norm",
    "config": {"name": "norm_1"},
}  # fmt: skip


def keras_file(
    path: Path,
    layers: list[object],
    *,
    version: str | None = "3.15.1",
    weights: bool = True,
    config: bytes | None = None,
) -> Path:
    model = {
        "module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        metadata = {} if version is None else {"keras_version": version}
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", config or json.dumps(model))
        if weights:
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return path


@pytest.mark.parametrize(
    ("layers", "options", "says", "hint"),
    [
        ([DENSE], {"version": "2.12.0"}, "written by Keras 2.12.0", "SavedModel"),
        ([DENSE], {"version": "4.0.0"}, "newer than what edgebm knows", r"\.onnx"),
        ([DENSE], {"version": None}, "does not say which Keras", "SavedModel"),
        ([DENSE], {"weights": False}, "no weights", r"model\.save"),
        ([DENSE], {"config": b"{"}, "no JSON", ""),
    ],
)
def test_files_that_cannot_be_read(tmp_path, layers, options, says, hint):
    path = keras_file(tmp_path / "m.keras", layers, **options)
    with pytest.raises(ModelError, match=says) as caught:
        import_model(path)
    assert (hint.replace("\\", "")) in caught.value.hint


def test_code_in_a_file_is_never_run(tmp_path):
    path = keras_file(tmp_path / "m.keras", [DENSE, LAMBDA])
    with pytest.raises(UnsupportedModel, match="Lambda layers, which hold Python code: twice"):
        import_model(path)


def test_custom_layers_are_named_wherever_they_lie(tmp_path):
    inside = {
        "module": "keras.layers", "class_name": "TimeDistributed",
        "config": {"name": "t", "layer": CUSTOM},
    }  # fmt: skip
    path = keras_file(tmp_path / "m.keras", [inside])
    with pytest.raises(UnsupportedModel, match="custom layers.*Norm 'norm_1'") as caught:
        import_model(path)
    assert "file.py:function" in caught.value.hint


def test_old_and_broken_files(tmp_path):
    old = tmp_path / "m.h5"
    old.write_bytes(b"\x89HDF\r\n\x1a\nrest")
    with pytest.raises(ModelError, match="HDF5") as caught:
        import_model(old)
    assert "save('new.keras')" in caught.value.hint
    whole = keras_file(tmp_path / "whole.keras", [DENSE]).read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a zip archive, or is truncated"):
        import_model(cut)
    other = tmp_path / "other.keras"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        import_model(other)


def test_what_counts_as_one(tmp_path):
    named = keras_file(tmp_path / "unusual.bin", [DENSE])
    assert is_keras_source(named)
    plain = tmp_path / "plain.zip"
    plain.write_bytes(_zip({"a": b""}))
    assert not is_keras_source(plain)
    assert not is_keras_source(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert is_keras_source(tmp_path)
    assert not is_keras_source(tmp_path / "nothing.keras")


def test_a_model_of_keras_2_is_told_apart():
    old = type("Model", (), {"__module__": "tf_keras.src.engine.training"})
    with pytest.raises(UnsupportedModel, match="Keras 2") as caught:
        is_keras_model(type("Net", (old,), {})())
    assert "SavedModel" in caught.value.hint
    assert not is_keras_model(object())


@pytest.mark.skipif(importlib.util.find_spec("keras") is not None, reason="Keras is installed")
def test_without_keras_the_hint_has_the_two_commands(tmp_path):
    with pytest.raises(ModelError, match="needs Keras") as caught:
        import_model(keras_file(tmp_path / "m.keras", [DENSE]))
    assert "edgebm[keras]" in caught.value.hint
    assert "keras-env/bin/pip install keras tensorflow tf2onnx" in caught.value.hint
    assert "edgebm compress model.onnx" in caught.value.hint
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="SavedModel .* needs TensorFlow") as caught:
        import_model(tmp_path)
    assert "tf2onnx.convert --saved-model" in caught.value.hint


def _zip(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for label, data in members.items():
            archive.writestr(label, data)
    return packed.getvalue()
