from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgebm import bundle_writer
from edgebm.bundle_writer import check_destination, golden_members, write_bundle
from edgebm.errors import BundleFormat, UsageError
from edgebm.runtime.bundle import read_bundle
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

FACE = (TensorSpec("x", "float32", (1, "n")),)
MODEL = "variants/host/onnxruntime/model.onnx"
MANIFEST = Manifest(
    "tiny",
    "0.1.0",
    FACE,
    FACE,
    (
        Variant(
            "host",
            "onnxruntime",
            "int8",
            {"model.onnx": MODEL},
            EngineConfig(threads=2, static_shapes=({"x": (1, 4)},), settings={"a": "b"}),
            "1.32",
            ("avx2",),
            {"x": 0.01},
            {"int8": 3},
        ),
    ),
    axes={"n": (1, 8)},
    ranges={"x": (-1.5, 2.0)},
    golden=1,
    provenance={"recipe": "int8", "seed": 0, "nested": {"ö": [1, 2.5, None, True]}},
)
ARRAY = np.arange(4, dtype=np.float32).reshape(1, 4)
MEMBERS = {MODEL: b"onnx", "report.json": b"{}", **golden_members([[ARRAY]], [[-ARRAY]])}


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.edgebm", MANIFEST, MEMBERS)
    bundle = read_bundle(path)
    assert bundle.manifest == replace(MANIFEST, members=bundle.manifest.members)
    assert bundle.manifest.members[MODEL].size == 4
    assert bundle.files(bundle.manifest.variants[0]) == {"model.onnx": b"onnx"}
    inputs, outputs = bundle.golden(0)
    np.testing.assert_array_equal(inputs[0], ARRAY)
    np.testing.assert_array_equal(outputs[0], -ARRAY)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a.edgebm", MANIFEST, MEMBERS)
    second = write_bundle(tmp_path / "b.edgebm", MANIFEST, dict(reversed(MEMBERS.items())))
    assert first.read_bytes() == second.read_bytes()


def test_candidates_come_back_and_are_checked_like_variants(tmp_path: Path) -> None:
    (chosen,) = MANIFEST.variants
    other = replace(chosen, precision="f32", files={"model.onnx": "candidates/1/model.onnx"})
    both = replace(MANIFEST, candidates=(chosen, other))
    members = {
        **MEMBERS,
        "candidates/1/model.onnx": b"float",
        "candidates/sample/0.npy": MEMBERS["golden/0/inputs/0.npy"],
    }
    bundle = read_bundle(write_bundle(tmp_path / "m.edgebm", both, members))
    assert bundle.manifest.candidates == both.candidates
    assert bundle.files(other) == {"model.onnx": b"float"}
    np.testing.assert_array_equal(bundle.sample()["x"], ARRAY)
    with pytest.raises(BundleFormat, match=r"candidates/1/model.onnx'\] are not members"):
        write_bundle(tmp_path / "n.edgebm", both, MEMBERS)
    with pytest.raises(BundleFormat, match="two candidates are called host/onnxruntime/int8/t2"):
        write_bundle(tmp_path / "n.edgebm", replace(MANIFEST, candidates=(chosen,) * 2), MEMBERS)


def test_a_bundle_without_candidates_has_no_sample(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "m.edgebm", MANIFEST, MEMBERS))
    with pytest.raises(BundleFormat, match="candidates/sample/0.npy is missing"):
        bundle.sample()


@pytest.mark.row(70)
def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists") as caught:
        write_bundle(path, MANIFEST, MEMBERS)
    assert "--force" in caught.value.hint
    assert path.read_bytes() == b"old"
    write_bundle(path, MANIFEST, MEMBERS, force=True)
    assert read_bundle(path).manifest.name == "tiny"


@pytest.mark.row(70)
def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        check_destination(tmp_path, force=True)
    with pytest.raises(UsageError, match="does not exist"):
        check_destination(tmp_path / "no" / "m.edgebm")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="not writable"):
        check_destination(tmp_path / "m.edgebm")


@pytest.mark.row(26)
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "m.edgebm"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise failure

    monkeypatch.setattr(bundle_writer.os, "fsync", fail)
    expected = UsageError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_bundle(path, MANIFEST, MEMBERS, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.edgebm"]
    assert path.read_bytes() == b"old"


def test_a_bundle_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    path = write_bundle(tmp_path / "m.edgebm", MANIFEST, MEMBERS)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_the_reader_would_refuse_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    with pytest.raises(BundleFormat, match="are not members"):
        write_bundle(path, MANIFEST, golden_members([[ARRAY]], [[ARRAY]]))
    with pytest.raises(BundleFormat, match="no range"):
        write_bundle(path, replace(MANIFEST, axes={}), MEMBERS)
    with pytest.raises(UsageError, match="container's own"):
        write_bundle(path, MANIFEST, {**MEMBERS, "SIGNATURE": b""})
    with pytest.raises(UsageError, match="cannot be bundle members"):
        write_bundle(path, MANIFEST, {**MEMBERS, "../x": b""})
    assert list(tmp_path.iterdir()) == []
