"""The file of a compiled model: it is read whole and unchanged, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgebm.errors import EngineStale
from edgebm.runtime.cache_entry import read_body, read_head, write_entry

SECRET, KEY = bytes(range(32)), b"k" * 32
BLOBS = (b"first blob", b"", bytes(range(256)))
HEADER = {"options": [{"A": "1"}, {}, {}], "label": "x"}


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[int]:
    file = os.open(tmp_path / "entry", os.O_RDWR | os.O_CREAT)
    write_entry(file, SECRET, KEY, HEADER, BLOBS)
    yield file
    os.close(file)


def read(file: int, secret: bytes = SECRET) -> tuple[bytes, ...]:
    os.lseek(file, 0, os.SEEK_SET)
    head = read_head(file, secret)
    assert head.key == KEY
    return read_body(file, secret, head)


def test_what_was_written_is_read(entry: int) -> None:
    assert read(entry) == BLOBS
    os.lseek(entry, 0, os.SEEK_SET)
    head = read_head(entry, SECRET)
    assert head.sizes == tuple(map(len, BLOBS))
    assert {name: head.header[name] for name in HEADER} == HEADER


@pytest.mark.row(24)
def test_every_flipped_bit_is_seen(entry: int) -> None:
    size = os.fstat(entry).st_size
    for place in range(size):
        (good,) = os.pread(entry, 1, place)
        for bit in range(8):
            os.pwrite(entry, bytes([good ^ 1 << bit]), place)
            with pytest.raises(EngineStale):
                read(entry)
        os.pwrite(entry, bytes([good]), place)
    assert read(entry) == BLOBS


@pytest.mark.row(24)
def test_every_truncation_and_every_tail_is_seen(entry: int) -> None:
    data = os.pread(entry, 1 << 20, 0)
    for size in range(len(data)):
        os.ftruncate(entry, size)
        with pytest.raises(EngineStale):
            read(entry)
        os.pwrite(entry, data, 0)
    os.pwrite(entry, b"\0", len(data))
    with pytest.raises(EngineStale, match=f"has {len(data) + 1} bytes"):
        read(entry)


@pytest.mark.row(24)
def test_another_device_has_another_key(entry: int) -> None:
    with pytest.raises(EngineStale, match="this device"):
        read(entry, bytes(32))


def test_a_head_that_promises_gigabytes_costs_none(entry: int) -> None:
    os.pwrite(entry, (1 << 40).to_bytes(8, "little"), 16)
    with pytest.raises(EngineStale, match="its own head says"):
        read(entry)
    os.pwrite(entry, b"\xff\xff\xff\xff", 12)
    with pytest.raises(EngineStale, match="its own head says"):
        read(entry)
