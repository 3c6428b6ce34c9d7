"""Damaged, foreign and hostile files in place of a bundle: each is refused before it is used."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault_bundles import (
    SOURCE,
    by_zipfile,
    canonical,
    directory_of,
    members,
    renamed,
    sealed,
)

import edgebm
from edgebm.errors import BundleCorrupt, BundleError, BundleFormat, UsageError
from edgebm.runtime import bundle as reader
from edgebm.runtime import container
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import pack


def test_the_file_under_test_is_good_and_its_digest_is_the_hash_of_the_file(good: bytes) -> None:
    assert read_bundle(SOURCE).digest == hashlib.sha256(good).hexdigest()
    assert pack(members()) == good


@pytest.mark.row(2, 3)
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


@pytest.mark.row(1)
def test_every_truncation_is_found_and_long_ones_say_how_much_is_there(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    for length in (*range(200), *range(200, len(good), 97), len(good) - 1):
        with pytest.raises(BundleError):
            read_bundle(write(good[:length]))
    with pytest.raises(BundleCorrupt, match=rf"it has 9000 bytes of {len(good)}") as caught:
        read_bundle(write(good[:9000]))
    assert caught.value.details == {"actual_bytes": 9000, "expected_bytes": len(good)}


@pytest.mark.row(4, 5)
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
    "checkpoint": (by_zipfile([("archive/data.pkl", b"x")])[:-64], "a zip archive, but not"),
    "engine": (b"ftrt\0\0\0\0" + bytes(64), "a TensorRT engine"),
    "pickle": (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94.", "pickle"),
    "empty": (b"", "is empty"),
    "ONNX": (b"\x08\x0a\x12\x07pytorch", "ONNX"),
    "XML": (b"<?xml version='1.0'?><net/>", "OpenVINO IR"),
    "text": (b"hello world, this is no bundle", "is not a bundle"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(20), "TFLite"),
}


@pytest.mark.row(6, 22)
@pytest.mark.parametrize(("data", "words"), KINDS.values(), ids=KINDS)
def test_another_file_is_called_what_it_is(
    data: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(data))


@pytest.mark.row(6, 22)
def test_a_zip_of_something_else_is_no_damaged_bundle(write: Callable[[bytes], Path]) -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones(3))
    with pytest.raises(BundleFormat, match="a zip archive, but not a bundle"):
        read_bundle(write(stream.getvalue()))


@pytest.mark.row(6)
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


@pytest.mark.row(9)
def test_an_archive_by_another_writer_is_refused_though_its_content_is_right(
    write: Callable[[bytes], Path],
) -> None:
    parts = list(members().items())
    with pytest.raises(BundleFormat, match="not as edgebm writes it"):
        read_bundle(write(by_zipfile(parts)))
    with pytest.raises(BundleFormat, match="beyond the end|not as edgebm writes it"):
        read_bundle(write(by_zipfile(parts, zipfile.ZIP_DEFLATED)))


@pytest.mark.row(9)
def test_members_of_one_name_or_out_of_order_are_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleFormat, match="two members are named 'golden/0/inputs/0.npy'"):
        read_bundle(write(renamed("golden/1/inputs/0.npy", "golden/0/inputs/0.npy")))
    parts = [(name.encode(), data) for name, data in members().items()]
    assert canonical(parts) == pack(members())
    with pytest.raises(BundleFormat, match="not in order"):
        read_bundle(write(canonical([parts[0], *reversed(parts[1:])])))


@pytest.mark.row(7)
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


@pytest.mark.row(9)
def test_a_member_that_claims_more_than_the_file_has_is_refused(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    at = good.rfind(b"PK\x01\x02")
    body = bytearray(good[:-64])
    body[at + 20 : at + 28] = b"\xf0\xff\xff\xff\xf0\xff\xff\xff"
    with pytest.raises(BundleFormat, match="beyond the end"):
        read_bundle(write(sealed(bytes(body))))


@pytest.mark.row(13, partly=True)
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


@pytest.mark.row(30)
def test_a_bundle_replaced_after_reading_changes_nothing(
    good: bytes, write: Callable[[bytes], Path]
) -> None:
    path = write(good)
    bundle = read_bundle(path)
    path.write_bytes(b"")
    inputs, _ = bundle.golden(0)
    assert inputs[0].shape == (1, 3, 4, 5)


@pytest.mark.row(9)
def test_members_that_share_bytes_are_refused(write: Callable[[bytes], Path]) -> None:
    body, entries = directory_of([(name.encode(), data) for name, data in members().items()])
    for twin in (
        replace(entries[2], offset=entries[1].offset),
        replace(entries[2], size=entries[2].size + 8),
        replace(entries[2], size=0),
    ):
        changed = [*entries[:2], twin, *entries[3:]]
        with pytest.raises(BundleFormat, match="not as edgebm writes it"):
            read_bundle(write(sealed(body + container._directory(changed, len(body)))))


@pytest.mark.row(9)
def test_more_members_than_a_bundle_has_are_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleFormat, match="5000 members, of 1 to 4096 allowed"):
        read_bundle(write(canonical([(b"%d" % k, b"") for k in range(5000)])))


@pytest.mark.row(8)
def test_a_member_that_is_a_link_is_refused(good: bytes, write: Callable[[bytes], Path]) -> None:
    body = bytearray(good[:-64])
    at = body.rfind(b"PK\x01\x02")
    body[at + 38 : at + 42] = (0o120777 << 16).to_bytes(4, "little")
    with pytest.raises(BundleFormat, match="not as edgebm writes it"):
        read_bundle(write(sealed(bytes(body))))


@pytest.mark.row(8)
def test_a_link_that_is_turned_while_its_file_is_read_changes_nothing(
    tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are followed, since slots of an update are often links, but only once."""
    slot, other = tmp_path / "slot", tmp_path / "other"
    other.write_text("not a bundle")
    slot.symlink_to(SOURCE)
    real, opened = os.open, []

    def open_and_turn(path: str, flags: int) -> int:
        opened.append(path)
        handle = real(path, flags)
        slot.unlink()
        slot.symlink_to(other)
        return handle

    monkeypatch.setattr(reader.os, "open", open_and_turn)
    read = read_bundle(slot)
    monkeypatch.undo()
    assert opened == [str(slot)]
    assert read.digest == hashlib.sha256(good).hexdigest()
    (tmp_path / "b.edgebm").write_bytes(good)
    os.link(tmp_path / "b.edgebm", tmp_path / "twin.edgebm")
    assert read_bundle(tmp_path / "twin.edgebm").digest == read.digest
    with pytest.raises(BundleFormat, match="is not a bundle"):
        read_bundle(slot)


@pytest.mark.row(30)
def test_a_bundle_replaced_while_it_is_in_use_changes_nothing(
    runtime: str, good: bytes, write: Callable[[bytes], Path]
) -> None:
    path = write(good)
    image = np.ones((1, 3, 4, 5), np.float32)
    with edgebm.load(path, target=runtime) as session:
        expected = session.run(image)["scores"]
        os.truncate(path, 100)
        np.testing.assert_array_equal(session.run(image)["scores"], expected)
        path.write_bytes(bytes(len(good)))
        np.testing.assert_array_equal(session.run(image)["scores"], expected)
        path.unlink()
        np.testing.assert_array_equal(session.run(image * 1)["scores"], expected)
