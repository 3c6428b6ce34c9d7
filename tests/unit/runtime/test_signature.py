from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signed_bundles import IMAGE, signature_of, signed_image, write_keys

from edgebm.errors import BundleFormat
from edgebm.runtime.signature import (
    Signed,
    Statement,
    read_signatures,
    read_statement,
    signature_bytes,
)
from edgebm.verbs.sign import sign

ONE = Signed("0" * 16, "{}", bytes(64))


def edited(**fields: Any) -> bytes:
    """The only signature with other fields, as JSON of our own form."""
    raw = json.loads(signature_bytes([ONE]))
    raw["signatures"][0] |= fields
    return (json.dumps(raw, indent=1, sort_keys=True) + "\n").encode()


def test_what_is_written_is_read() -> None:
    two = replace(ONE, key="a" * 16, statement="ä\n")
    assert read_signatures(signature_bytes([two, ONE]), "x") == (ONE, two)
    assert edited() == signature_bytes([ONE])
    for expires in ("", "2027-12-31"):
        statement = Statement("nämé", "0" * 16, "f" * 64, 3, expires)
        assert read_statement(statement.text(), "x") == statement
        assert ("expires" in statement.text()) == bool(expires)


@pytest.mark.row(13)
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b" " * (1 << 17), "more than 65536"),
        (b"[]", "no JSON object|not a JSON object"),
        (b"{}", "no list of 1 to 16"),
        (signature_bytes([]), "no list of 1 to 16"),
        (signature_bytes([replace(ONE, key=f"{k:016x}") for k in range(17)]), "1 to 16"),
        (signature_bytes([ONE]).replace(b'version": 1', b'version": 2'), "version 2, this edgebm"),
        (signature_bytes([ONE, replace(ONE, statement="")]), "by one key"),
        (signature_bytes([ONE]) + b"\n", "not as edgebm writes it"),
        (signature_bytes([ONE]).replace(b'version": 1', b'version": 1.0'), "not as edgebm"),
        (edited(more=1), "wrong type or field"),
        (edited(key="0" * 15), "wrong type or field"),
        (edited(key="A" * 16), "wrong type or field"),
        (edited(signature="0" * 126), "wrong type or field"),
        (edited(signature="F" * 128), "wrong type or field"),
        (edited(statement={}), "wrong type or field"),
        (edited(statement="\ud800"), "not strict JSON"),
    ],
    ids=range(16),
)
def test_another_form_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_signatures(raw, "SIGNATURE")


def test_more_keys_than_a_bundle_takes_leave_it_as_it_was(tmp_path: Path) -> None:
    path = signed_image(tmp_path)
    for seed in range(2, 17):
        write_keys(tmp_path, "k", seed)
        sign(path, tmp_path / "k.key")
    assert len(read_signatures(signature_of(path), "x")) == 16
    before = path.read_bytes()
    write_keys(tmp_path, "k", 17)
    with pytest.raises(BundleFormat, match="1 to 16"):
        sign(path, tmp_path / "k.key")
    assert path.read_bytes() == before
    assert IMAGE.read_bytes() != before
