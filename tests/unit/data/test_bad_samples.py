from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.data.samples import open_samples
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

IMAGE = [TensorSpec("image", "float32", (1, 3, 8, 8))]
TEXT = [
    TensorSpec("input_ids", "int64", ("batch", "seq")),
    TensorSpec("attention_mask", "int64", ("batch", "seq")),
]
GOOD = np.zeros((4, 3, 8, 8), np.float32)


def fault(source: Any, inputs: list[TensorSpec] = IMAGE, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        open_samples(source, inputs, **options).scan()
    assert caught.value.hint
    return caught.value


def test_all_faults_are_told_at_once() -> None:
    error = fault(
        {
            "input_id": np.zeros((4, 8), np.int64),
            "attention_mask": np.zeros((5, 8), np.float32),
            "extra": np.zeros((4, 1)),
        },
        TEXT,
    )
    text = str(error)
    assert "'input_id' is not an input of the model; did you mean 'input_ids'?" in text
    assert "'extra' is not an input" in text
    assert "input 'input_ids' has no array" in text
    assert "attention_mask has 5" in text
    assert "input 'attention_mask' is int64, the array is float32" in text
    assert len(error.details["faults"]) == 5


@pytest.mark.row(66)
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "NHWC, the model NCHW: use x.transpose(0, 3, 1, 2)"),
        (np.zeros((4, 3, 9, 8), np.float32), "[samples, 3, 8, 8], the array has [4, 3, 9, 8]"),
        (np.zeros((3, 8, 8), np.float32), "the array has [3, 8, 8]"),
        (np.zeros((4, 3, 8, 8), np.uint8), "raw pixels?"),
        (np.zeros((4, 3, 8, 8), np.int64), "is float32, the array is int64"),
        (np.zeros((4, 3, 8, 8), np.complex64), "the array is complex64"),
        (np.zeros((0, 3, 8, 8), np.float32), "no samples"),
    ],
)
def test_dtype_and_shape(array: Any, words: str) -> None:
    assert words in str(fault({"image": array}))


def test_fixed_batch_needs_whole_samples() -> None:
    spec = [TensorSpec("x", "float32", (8, 4))]
    assert "[samples, 8, 4], the array has [16, 4]" in str(
        fault(np.ones((16, 4), np.float32), spec)
    )


def test_inputs_that_share_an_axis_must_agree() -> None:
    source = {
        "input_ids": np.zeros((4, 8), np.int64),
        "attention_mask": np.zeros((4, 9), np.int64),
    }
    assert "axis 'seq' is 8 in input 'input_ids' and 9" in str(fault(source, TEXT))


@pytest.mark.row(66)
def test_nan_and_infinity_name_the_samples() -> None:
    bad = GOOD.copy()
    bad[1, 0, 0, 0], bad[3, 0, 0, 0] = np.nan, np.inf
    text = str(fault(bad))
    assert "sample 1: input 'image' holds NaN" in text
    assert "sample 3: input 'image' holds infinity" in text
    with pytest.raises(DataError, match="sample 1"):
        list(open_samples(bad, IMAGE).feeds())
    assert len(list(open_samples(bad, IMAGE).feeds(2, 3))) == 1, "what is not used does no harm"


@pytest.mark.parametrize("count", [3, 5])
def test_labels_of_another_length(tmp_path: Path, count: int) -> None:
    np.savez(tmp_path / "s.npz", image=GOOD, labels=np.zeros(count))
    assert f"labels has {count}" in str(fault(tmp_path / "s.npz"))
    np.save(tmp_path / "l.npy", np.zeros(count))
    assert f"{count} labels for the 4 samples" in str(fault(GOOD, labels=tmp_path / "l.npy"))
    assert "labels" in str(fault([(GOOD, np.zeros(count))]))


def test_labels_on_some_samples_only() -> None:
    assert "some without" in str(fault([(GOOD[0], 1), GOOD[1]]))


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez(whole, image=GOOD)
    data = whole.read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "cut.npz": (data[: len(data) // 2], "not a readable npz"),
        "text.npz": (b"hello", "not a readable npz"),
        "empty.npz": (b"", "is empty"),
        "lfs.npz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "text.npy": (b"hello, this is no array", "not an npy array"),
        "model.onnx": (b"\x08\x07", "no kind of samples"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        error = fault(tmp_path / name)
        assert words in f"{error} {error.hint}", name
        assert name in str(error)
    np.save(tmp_path / "short.npy", GOOD)
    short = (tmp_path / "short.npy").read_bytes()[:-5]
    (tmp_path / "short.npy").write_bytes(short)
    assert "cut short" in str(fault(tmp_path / "short.npy"))
    assert "does not exist" in str(fault(tmp_path / "none.npz"))
    assert "does not exist" in str(fault(tmp_path / "none"))


def test_damage_inside_a_compressed_member(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez_compressed(path, image=np.random.default_rng(0).normal(size=GOOD.shape).astype("f4"))
    data = bytearray(path.read_bytes())
    data[1500] ^= 0xFF
    path.write_bytes(data)
    assert "s.npz" in str(fault(path))


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(3), np.zeros(4)]
    np.savez(tmp_path / "s.npz", image=ragged)
    assert "Python objects" in str(fault(tmp_path / "s.npz"))
    assert "no numeric array" in str(fault({"image": ragged}))


def test_folders(tmp_path: Path) -> None:
    assert "empty folder" in str(fault(tmp_path))
    np.save(tmp_path / "0.npy", GOOD[0])
    (tmp_path / "notes.txt").write_text("x")
    assert ".npy, .txt" in str(fault(tmp_path))
    (tmp_path / "0.npy").unlink()
    assert "which tokenizer" in str(fault(tmp_path))
    (tmp_path / "notes.txt").rename(tmp_path / "a.csv")
    assert "does not read text files" in str(fault(tmp_path))
    (tmp_path / "a.csv").rename(tmp_path / "a.wav")
    assert "at which rate" in str(fault(tmp_path))
    (tmp_path / "a.wav").rename(tmp_path / "a.png")
    error = fault(tmp_path)
    assert "preprocess" in error.hint


def test_one_bad_file_in_a_folder_is_named(tmp_path: Path) -> None:
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", GOOD[index] if index != 1 else GOOD[index, :, :4])
    assert "1.npy: input 'image' wants" in str(fault(tmp_path))


@pytest.mark.row(66)
def test_live_sources_of_the_wrong_kind(tmp_path: Path) -> None:
    assert "not samples" in str(fault(42))
    assert "not samples" in str(fault(b"bytes"))
    assert "tuple of 3" in str(fault((GOOD, GOOD, GOOD)))
    assert "no samples" in str(fault([]))
    assert "no samples" in str(fault(iter([])))
    assert "the array is str" in str(fault({"image": "text"}))
    assert "no module" in str(fault("nosuchmodule_x:f")).lower()
    assert "holds one array" in str(_two_inputs_from_npy(tmp_path))


def _two_inputs_from_npy(folder: Path) -> DataError:
    np.save(folder / "x.npy", np.zeros((2, 3), np.int64))
    return fault(folder / "x.npy", TEXT)


def test_labels_that_are_no_numbers() -> None:
    labels = np.array([0.0, np.nan, 1.0, 2.0])
    samples = open_samples({"image": GOOD}, IMAGE, labels=labels)
    with pytest.raises(DataError, match="labels hold NaN") as caught:
        _ = samples.labels
    assert caught.value.hint
