"""Damaged, foreign and hostile files in place of a bundle: each is refused before it is used."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.errors import (
    BundleCorrupt,
    BundleError,
    BundleFormat,
    BundleIncompatible,
    UsageError,
)
from edgebm.runtime import container
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, pack

SOURCE = Path(__file__).parents[1] / "device" / "data" / "image.edgebm"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def good() -> bytes:
    return SOURCE.read_bytes()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def put(data: bytes) -> Path:
        path = tmp_path / "b.edgebm"
        path.write_bytes(data)
        return path

    return put


def members() -> dict[str, bytes]:
    return {name: bytes(data) for name, data in read_bundle(SOURCE).members.items()}


def with_manifest(edit: Edit) -> bytes:
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    edit(manifest)
    return pack({**parts, MANIFEST: json.dumps(manifest).encode()})


def sealed(body: bytes) -> bytes:
    """`body` and the digest that belongs to it: only the structure can give it away."""
    return body + hashlib.sha256(body).hexdigest().encode()


def by_zipfile(parts: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in parts:
            info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            info.filename, info.compress_type = name, method
            archive.writestr(info, data)
        archive.comment = b"0" * 64
    return sealed(stream.getvalue()[:-64])


def test_the_file_under_test_is_good_and_its_digest_is_the_hash_of_the_file(good: bytes) -> None:
    assert read_bundle(SOURCE).digest == hashlib.sha256(good).hexdigest()
    assert pack(members()) == good


def test_one_flipped_bit_is_found_at_every_byte(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    path = write(good)
    with path.open("r+b", buffering=0) as file:
        for position in range(0, len(good), 3):
            flipped = bytes([good[position] ^ 1 << position % 8])
            os.pwrite(file.fileno(), flipped, position)
            with pytest.raises(BundleCorrupt):
                read_bundle(path)
            os.pwrite(file.fileno(), good[position : position + 1], position)
    assert read_bundle(path).size == len(good)


def test_every_truncation_is_found_and_long_ones_say_how_much_is_there(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    for length in (*range(200), *range(200, len(good), 97), len(good) - 1):
        with pytest.raises(BundleError):
            read_bundle(write(good[:length]))
    with pytest.raises(BundleCorrupt, match=rf"it has 9000 bytes of {len(good)}") as caught:
        read_bundle(write(good[:9000]))
    assert caught.value.details == {"actual_bytes": 9000, "expected_bytes": len(good)}


def test_zeroed_spliced_and_appended_blocks_are_found(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    middle = len(good) // 2
    for bad in (
        good[:4096] + bytes(4096) + good[8192:],
        good[:middle] + good[100:612] + good[middle + 512 :],
        good + b"\0",
        b"\0" + good,
        good + good,
    ):
        with pytest.raises(BundleError):
            read_bundle(write(bad))


KINDS = {
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
    "HTML": (b"\n<!DOCTYPE html><html>Sign in</html>", "HTML page"),
    "gzip": (gzip.compress(b"x"), "gzip"),
    "pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94.", "pickle"),
    "empty": (b"", "is empty"),
    "ONNX": (b"\x08\x0a\x12\x07pytorch", "ONNX"),
    "XML": (b"<?xml version='1.0'?><net/>", "OpenVINO IR"),
    "text": (b"hello world, this is no bundle", "is not a bundle"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(20), "TFLite"),
}


@pytest.mark.parametrize(("data", "words"), KINDS.values(), ids=KINDS)
def test_another_file_is_called_what_it_is(
    data: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(data))


def test_a_zip_of_something_else_is_no_damaged_bundle(write: Callable[[bytes], Path]) -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones(3))
    with pytest.raises(BundleFormat, match="a zip archive, but not a bundle"):
        read_bundle(write(stream.getvalue()))


def test_a_directory_a_fifo_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleFormat, match="a directory"):
        read_bundle(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BundleFormat, match="not a regular file"):
        read_bundle(tmp_path / "fifo")
    with pytest.raises(UsageError, match="no such file"):
        read_bundle(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be opened"):
        read_bundle("with\0null")


def test_an_archive_by_another_writer_is_refused_though_its_content_is_right(
    write: Callable[[bytes], Path],
) -> None:
    parts = list(members().items())
    with pytest.raises(BundleFormat, match="not as edgebm writes it"):
        read_bundle(write(by_zipfile(parts)))
    with pytest.raises(BundleFormat, match="beyond the end|not as edgebm writes it"):
        read_bundle(write(by_zipfile(parts, zipfile.ZIP_DEFLATED)))


def canonical(parts: list[tuple[bytes, bytes]]) -> bytes:
    """As edgebm writes it, but with any names in any order."""
    body, entries = b"", []
    for name, data in parts:
        entries.append(container._Entry(name, zlib.crc32(data), len(data), len(body)))
        body += entries[-1].local() + data
    return sealed(body + container._directory(entries, len(body)))


def renamed(old: str, new: str) -> bytes:
    parts = [(new if name == old else name, data) for name, data in members().items()]
    return canonical([(name.encode(), data) for name, data in parts])


def test_members_of_one_name_or_out_of_order_are_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleFormat, match="two members are named 'golden/0/inputs/0.npy'"):
        read_bundle(write(renamed("golden/1/inputs/0.npy", "golden/0/inputs/0.npy")))
    parts = [(name.encode(), data) for name, data in members().items()]
    assert canonical(parts) == pack(members())
    with pytest.raises(BundleFormat, match="not in order"):
        read_bundle(write(canonical([parts[0], *reversed(parts[1:])])))


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../etc/x.",
        "/golden/1/inputs/0.np",
        "golden\\1\\inputs\\0.npy",
        "C:olden/1/inputs/0.npy",
        "golden/1//nputs/0.npy",
        "golden/1/./puts/0.npy",
        "golden/1/inputs/0.np\0",
        "golden/1/inputs/0.n\n ",
    ],
)
def test_a_member_name_that_could_leave_a_folder_is_refused(
    name: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match="member name"):
        read_bundle(write(renamed("golden/1/inputs/0.npy", name)))
    with pytest.raises(UsageError, match="cannot be bundle members"):
        pack({**members(), name: b""})


def test_a_member_that_claims_more_than_the_file_has_is_refused(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    at = good.rfind(b"PK\x01\x02")
    body = bytearray(good[:-64])
    body[at + 20 : at + 28] = b"\xf0\xff\xff\xff\xf0\xff\xff\xff"
    with pytest.raises(BundleFormat, match="beyond the end"):
        read_bundle(write(sealed(bytes(body))))


def test_members_and_manifest_must_agree(write: Callable[[bytes], Path]) -> None:
    parts = members()
    name = "golden/0/inputs/0.npy"
    with pytest.raises(BundleCorrupt, match="extra is not in the manifest"):
        read_bundle(write(pack({**parts, "extra": b"1"})))
    with pytest.raises(BundleCorrupt, match=f"{name} is missing"):
        read_bundle(write(pack({key: data for key, data in parts.items() if key != name})))
    with pytest.raises(BundleCorrupt, match=f"{name} has another hash"):
        read_bundle(write(pack({**parts, name: bytes(len(parts[name]))})))
    with pytest.raises(BundleCorrupt, match=f"{name} has 3 bytes"):
        read_bundle(write(pack({**parts, name: b"123"})))


def test_more_golden_samples_than_there_are_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleCorrupt, match=r"golden/2/inputs/0\.npy is missing"):
        read_bundle(write(with_manifest(lambda m: m.update(golden=10**12))))


MANIFESTS = {
    "huge": (b" " * (8 << 20) + b"{}", "more than 8388608"),
    "deep": (b"[" * 100_000, "nested deeper than 32"),
    "deep objects": (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper"),
    "duplicate key": (b'{"name": 1, "name": 2}', "'name' comes twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a number"),
    "infinity": (b'{"a": -Infinity}', "is not a number"),
    "too large": (b'{"a": 1e999}', "does not fit"),
    "lone surrogate": (b'{"a": "\\ud800"}', "not strict JSON"),
    "long number": (b'{"a": ' + b"1" * 5000 + b"}", "not strict JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not strict JSON"),
    "a list": (b"[]", "not a JSON object"),
    "an empty object": (b"{}", "manifest_version"),
    "version as flag": (b'{"manifest_version": true}', "manifest_version"),
}


@pytest.mark.parametrize(("raw", "words"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_no_strict_json_is_refused(
    raw: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(pack({**members(), MANIFEST: raw})))


def at(*path: str | int, value: Any) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return edit


EDITS: dict[str, tuple[Edit, str]] = {
    "flag for a number": (at("golden", value=True), "'golden' has a wrong type"),
    "text for a number": (at("golden", value="2"), "'golden' has a wrong type"),
    "float for a number": (at("golden", value=2.0), "'golden' has a wrong type"),
    "negative size": (at("members", "x", value={"sha256": "", "size": -1}), "'members'"),
    "number for a flag": (at("constraints_met", value=1), "'constraints_met'"),
    "unknown key": (at("nmae", value="x"), "'nmae' is unknown"),
    "unknown key inside": (at("inputs", 0, "typo", value=1), "'inputs' has a wrong type or field"),
    "negative axis": (at("inputs", 0, "shape", value=[-1]), "'inputs'"),
    "overflowing axes": (at("inputs", 0, "shape", value=[1 << 30, 1 << 30]), "2\\*\\*40"),
    "object dtype": (at("inputs", 0, "dtype", value="object"), "unknown dtype 'object'"),
    "free axis without range": (at("inputs", 0, "shape", value=["n", 3, 4, 5]), "no range"),
    "no variants": (at("variants", value=[]), "no variants"),
    "no threads": (at("variants", 0, "config", "threads", value=0), "threads must be 1"),
    "other file": (at("variants", 0, "files", "model.xml", value="/etc/passwd"), "not members"),
    "file name with a path": (at("variants", 0, "files", "../x", value="golden/0/inputs/0.npy"),
                              "no file names"),
    "negative tolerance": (at("variants", 0, "tolerance", "scores", value=-1), "negative"),
    "state of nothing": (at("states", value=[{"input": "a", "output": "b", "initial": ""}]),
                         "the state 'a'"),
    "range of nothing": (at("ranges", value={"q": [0, 1]}), "range of 'q'"),
    "index limit of a float": (at("index_limits", value={"image": 4}), "index limit of 'image'"),
    "hash that is none": (at("members", "golden/0/inputs/0.npy", "sha256", value="0"), "sha256"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "words"), EDITS.values(), ids=EDITS)
def test_a_manifest_with_a_wrong_field_is_refused(
    edit: Edit, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(with_manifest(edit)))


def test_a_bundle_of_another_format_version_names_both(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleIncompatible, match="manifest_version 99, this edgebm reads 1"):
        read_bundle(write(with_manifest(at("manifest_version", value=99))))


def golden_replaced(raw: bytes) -> bytes:
    name = "golden/0/inputs/0.npy"
    entry = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    manifest["members"][name] = entry
    return pack({**parts, name: raw, MANIFEST: json.dumps(manifest).encode()})


def npy(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


GOLDEN = {
    "pickled objects": (npy(np.array([{}]), allow_pickle=True), "not a plain array"),
    "a claim of 8 TB": (npy(np.ones((1, 3, 4, 5))).replace(b"(1, 3, 4, 5)", b"(1, 3, 4, 10**9)"),
                        "not a .npy file|claims"),
    "a larger shape": (npy(np.ones((1, 3, 4, 5), "f4")).replace(b"4, 5)", b"4, 9)"), "claims"),
    "another dtype": (npy(np.ones((1, 3, 4, 5))), "the manifest says"),
    "another rank": (npy(np.ones((3, 4, 5), "f4")), "the manifest says"),
    "other byte order": (npy(np.ones((1, 3, 4, 5), ">f4")), "the manifest says"),
    "Fortran order": (npy(np.asfortranarray(np.ones((1, 3, 4, 5), "f4"))), "C order"),
    "no array": (b"hello", "not a .npy file"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "words"), GOLDEN.values(), ids=GOLDEN)
def test_a_golden_member_that_is_no_plain_array_is_refused(
    raw: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    bundle = read_bundle(write(golden_replaced(raw)))
    with pytest.raises(BundleFormat, match=words):
        bundle.golden(0)


def test_a_bundle_replaced_after_reading_changes_nothing(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    path = write(good)
    bundle = read_bundle(path)
    path.write_bytes(b"")
    inputs, _ = bundle.golden(0)
    assert inputs[0].shape == (1, 3, 4, 5)
