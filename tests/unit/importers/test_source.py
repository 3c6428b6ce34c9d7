from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgebm.errors import ModelError
from edgebm.importers import import_model
from edgebm.importers.source import call_function, is_function_source
from edgebm.ir.model import Model

MODULE = """
import neighbour
from edgebm.ir.model import Model

TEXT = '<ir_version: 8, opset_import: ["" : 13]> g (float[2] x) => (float[2] y) { y = Relu(x) }'

def model():
    return Model.parse(TEXT)

def path():
    return neighbour.PATH

def again():
    return "source_again:model"

def broken():
    raise KeyError("weights")

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made.py").write_text(MODULE)
    (tmp_path / "neighbour.py").write_text(f"PATH = {str(tmp_path / 'm.onnx')!r}\n")
    text = '<ir_version: 8, opset_import: ["" : 13]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    (tmp_path / "m.onnx").write_bytes(Model.parse(text).to_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_counts_as_a_function(folder: Path) -> None:
    assert is_function_source("package.module:function")
    assert is_function_source("some/file.py:function")
    assert not is_function_source("model.onnx")
    assert not is_function_source("C:\\models\\net.onnx")
    (folder / "odd:name").write_bytes(b"")
    assert not is_function_source("odd:name")


def test_a_function_in_a_file_or_module_gives_the_model(folder: Path) -> None:
    for source in (f"{folder}/made.py:model", "made.py:model", "made:model"):
        model = import_model(source)
        assert [node.op_type for node in model.nodes()] == ["Relu"]
        assert model.source == source


def test_a_function_may_return_a_path(folder: Path) -> None:
    assert [node.op_type for node in import_model("made.py:path").nodes()] == ["Neg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("made.py:missing", "has no function 'missing'"),
        ("made.py:number", "has no function 'number'"),
        ("made.py:broken", "raised KeyError: 'weights'"),
        ("made.py:again", "returned another function"),
        ("nowhere.py:model", "no such file"),
        ("no_such_module_at_all:model", "No module named"),
    ],
)
def test_faults_are_named(folder: Path, source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        import_model(source)


def test_the_call_returns_what_the_function_returns() -> None:
    assert call_function("numpy:geterr") == np.geterr()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("raise ModuleNotFoundError('no torch', name='torch')", "edgebm[train]"),
        ("import nothing_like_it", "run from the folder"),
        ("1 / 0", "import it in Python"),
    ],
)
def test_a_module_that_cannot_be_imported_comes_with_the_way_out(
    line: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "cannot.py").write_text(f"{line}\n")
    with pytest.raises(ModelError, match="cannot be imported") as caught:
        call_function(f"{tmp_path / 'cannot.py'}:model")
    assert hint in caught.value.hint
