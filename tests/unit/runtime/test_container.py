from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebm.errors import BundleCorrupt, UsageError
from edgebm.runtime import container
from edgebm.runtime.container import MANIFEST, pack, packed_size, unpack

NAMES = st.lists(
    st.text("abcö_-. 0", min_size=1, max_size=8).filter(lambda n: n not in {".", ".."}),
    min_size=1,
    max_size=3,
).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_what_is_packed_comes_back_in_one_order(members: dict[str, bytes]) -> None:
    members[MANIFEST] = b"{}"
    data = pack(members)
    assert len(data) == packed_size({name: len(value) for name, value in members.items()})
    unpacked = unpack(data, "x")
    assert {name: bytes(value) for name, value in unpacked.items()} == members
    assert list(unpacked) == [MANIFEST, *sorted(members.keys() - {MANIFEST})]
    assert pack(dict(reversed(members.items()))) == data


def test_any_zip_tool_can_read_a_bundle() -> None:
    with zipfile.ZipFile(io.BytesIO(pack({MANIFEST: b"{}", "a/ö": b"12"}))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST, "a/ö"]
        assert archive.read("a/ö") == b"12"
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.row(1)
def test_the_shortest_files_do_not_break_the_reader() -> None:
    for length in range(100):
        with pytest.raises(BundleCorrupt):
            unpack(bytes(length), "x")


def test_a_manifest_and_sane_sizes_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"needs manifest\.json"):
        pack({"a": b""})
    monkeypatch.setattr(container, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match="4 GiB"):
        pack({MANIFEST: bytes(100)})
