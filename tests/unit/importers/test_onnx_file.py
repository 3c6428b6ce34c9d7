from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgebm.errors import ModelError
from edgebm.importers import import_model
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.runtime.container import pack
from edgebm.runtime.npy import npz_bytes

TEXT = """<ir_version: 8, opset_import: ["" : 13]>
g (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv(x, w) }"""
W = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def good() -> bytes:
    return Model.parse(TEXT, w=W).to_bytes()


def external(folder: Path, **changed: str) -> Path:
    """A model whose weight is in `w.bin`; keywords overwrite what it says about that file."""
    path = folder / "model.onnx"
    ir.save(Model.parse(TEXT, w=W).graph, path, external_data="w.bin", size_threshold_bytes=0)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changed.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def weight(model: Model) -> np.ndarray:  # type: ignore[type-arg]
    found = const(model.graph.graph.initializers["w"])
    assert found is not None
    return found


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good())
    model = import_model(path)
    assert model.source == str(path)
    np.testing.assert_array_equal(weight(model), W)
    assert import_model(str(path)).to_bytes() == model.to_bytes()


def test_live_models_are_taken(tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(good())
    for source in (proto, ir.from_proto(proto), Model.parse(TEXT, w=W)):
        np.testing.assert_array_equal(weight(import_model(source)), W)


def test_external_data_is_loaded_into_memory(tmp_path: Path) -> None:
    model = import_model(external(tmp_path))
    (tmp_path / "w.bin").unlink()
    np.testing.assert_array_equal(weight(model), W)


@pytest.mark.row(10)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"location": "other.bin"}, "weight 'w' is stored in 'other.bin', which is not there"),
        ({"location": "../w.bin"}, "outside the model's own folder"),
        ({"location": "/etc/hosts"}, "outside the model's own folder"),
        ({"location": "link"}, "outside the model's own folder"),
        ({"location": "pipe"}, "which is not there"),
        ({"offset": "100000"}, "bytes 100000 to 100432, but that file has 432"),
        ({"offset": "-4"}, "offset must be non-negative"),
        ({"length": str(2**50)}, "but its shape takes 432"),
    ],
)
def test_external_data_that_is_wrong(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    (folder / "link").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match=message):
        import_model(external(folder, **changed))


@pytest.mark.row(10)
def test_a_live_model_with_data_elsewhere_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match=r"stored in 'w\.bin'"):
        import_model(proto)


@pytest.mark.row(22)
@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "the file is empty", "copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "web page", "download"),
        (gzip.compress(b"x", mtime=0), "gzip", "gunzip"),
        (b"\x80\x04\x95.", "pickle", ".pt2"),
        (b"\x89HDF\r\n\x1a\n", "HDF5", "SavedModel"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite", "ONNX"),
        (pack({"manifest.json": b"{}"}), "edgebm bundle", "made from"),
        (npz_bytes({"x": np.zeros(3)}), "NumPy .npz file", "-d"),
        (b"plain text", "not an ONNX model, or is truncated", "size"),
        (b"\x08\x08", "has no graph", "truncated"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        import_model(path)
    assert str(path) in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.row(22)
def test_a_torch_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(ModelError, match="zip archive") as caught:
        import_model(path)
    assert "torch.export" in caught.value.hint


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data, path = good(), tmp_path / "model.onnx"
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError):
            import_model(path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        import_model(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="no such model file"):
        import_model(tmp_path / "nothing.pt2")
    with pytest.raises(ModelError, match="is a folder"):
        import_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no configuration of transformers"):
        import_model(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="SavedModel"):
        import_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        import_model(tmp_path / "pipe")


@pytest.mark.row(19)
def test_faults_of_the_graph_are_listed_together() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2] x) => (float[2] y, float[2] z) {
          [n1] y = Add(x, ghost)
          y = Relu(x)
        }"""
    )
    with pytest.raises(ModelError) as caught:
        import_model(proto)
    assert caught.value.details["faults"] == [
        "two nodes write 'y'",
        "Add 'n1' reads 'ghost', which nothing provides",
        "nothing computes the output 'z'",
    ]


@pytest.mark.row(18, partly=True)
def test_deep_nesting_is_refused() -> None:
    last = "e () => (float[2] t) { t = Neg(x) }"
    body = "t = Relu(x)"
    for level in range(12):
        inner = f"g{level} () => (float[2] t) {{ {body} }}"
        body = f"t = If (c) <then_branch = {inner}, else_branch = {last}>"
    header = '<ir_version: 8, opset_import: ["" : 13]>\n'
    text = f"{header}g (float[2] x, bool c) => (float[2] t) {{ {body} }}"
    with pytest.raises(ModelError, match="nested more than 8 deep"):
        import_model(onnx.parser.parse_model(text))


def test_things_that_are_no_model() -> None:
    with pytest.raises(ModelError, match="cannot import a dict"):
        import_model({})
    with pytest.raises(ModelError, match="a tuple must be"):
        import_model((1, 2))


def test_an_onnx_file_is_imported_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good())
    code = (
        "import sys; from edgebm.importers import import_model; import_model(sys.argv[1]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "onnx_ir" in loaded
    assert not loaded & {"torch", "onnxscript"}
    assert done.stderr == ""


def test_a_python_file_without_its_function(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("import torch\n")
    with pytest.raises(ModelError, match="is a Python file") as caught:
        import_model(path)
    assert f"{path}:NAME" in caught.value.hint
