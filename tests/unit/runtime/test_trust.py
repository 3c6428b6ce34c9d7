from __future__ import annotations

import datetime as dt
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signed_bundles import (
    IMAGE,
    renamed_image,
    says,
    signature_of,
    signed_image,
    with_signature,
    write_keys,
)

import edgebm
from edgebm.errors import BackendUnavailable, BundleCorrupt, BundleUntrusted, UsageError
from edgebm.runtime import start, trust
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import SIGNATURE
from edgebm.runtime.keys import read_private_key, read_public_key
from edgebm.runtime.proof import read_trusted, wanted_trust
from edgebm.runtime.signature import Signed, read_signatures, signature_bytes
from edgebm.runtime.trust import Trust, valid_statements
from edgebm.verbs.sign import sign

FLEET = "34750f98bd59fcfc"


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    return signed_image(tmp_path, release=3)


def cause_of(path: Path, *keys: Path) -> str:
    """Why the bundle is refused when these keys are trusted."""
    with pytest.raises(BundleUntrusted) as caught:
        read_trusted(path, Trust(keys or (path.parent / "fleet.pub",)))
    assert caught.value.hint
    assert caught.value.exit_code == 4
    return str(caught.value.details["cause"])


@pytest.mark.row(13)
def test_a_signed_bundle_loads_and_the_report_says_who_answers_for_it(signed: Path) -> None:
    fleet = signed.with_name("fleet.pub")
    for keys in (fleet, str(fleet), [fleet], Trust([fleet]), Trust(str(fleet))):
        assert read_trusted(signed, wanted_trust(keys)).facts()["signature"] == "valid"
    with edgebm.load(signed, target="onnxruntime", trust=[fleet]) as session:
        report = session.report()
    assert report["signature"] == "valid"
    assert report["signed_by"] == [FLEET]
    assert (report["release"], report["expires"]) == (3, None)
    assert session.report()["requested"] == "onnxruntime"


def test_without_trust_nobody_checks_and_the_report_says_so(signed: Path, tmp_path: Path) -> None:
    damaged = with_signature(signed_image(tmp_path, 4), b"{}")
    for path, word, claims in (
        (signed, "not checked", [FLEET]),
        (IMAGE, "not signed", []),
        (damaged, "malformed", []),
    ):
        with edgebm.load(path, target="onnxruntime") as session:
            report = session.report()
        assert (report["signature"], report["claimed_by"]) == (word, claims)
        assert (report["signed_by"], report["release"]) == ([], None)


@pytest.mark.row(13)
def test_what_is_not_signed_by_a_trusted_key_is_refused(signed: Path, tmp_path: Path) -> None:
    write_keys(tmp_path, "other", 2)
    assert cause_of(IMAGE, tmp_path / "fleet.pub") == "unsigned"
    assert cause_of(signed, tmp_path / "other.pub") == "unknown_key"
    assert read_trusted(signed, Trust([tmp_path / "other.pub", tmp_path / "fleet.pub"]))


@pytest.mark.row(13)
def test_a_signature_for_anything_else_is_refused(signed: Path, tmp_path: Path) -> None:
    key = tmp_path / "fleet.key"
    other = renamed_image(tmp_path, "other")
    assert cause_of(with_signature(other, signature_of(signed))) == "other_manifest"
    for fields, cause in (
        ({"manifest_sha256": "0" * 64}, "other_manifest"),
        ({"bundle": "another"}, "other_name"),
        ({"key": "0" * 16}, "malformed"),
        ({"key": "no id"}, "malformed"),
        ({"release": -1}, "malformed"),
        ({"release": 1 << 63}, "malformed"),
        ({"release": True}, "malformed"),
        ({"release": 1.0}, "malformed"),
        ({"expires": "2026-2-3"}, "malformed"),
        ({"expires": "2026-02-30"}, "malformed"),
        ({"text": "[]"}, "malformed"),
        ({"text": "no JSON"}, "malformed"),
        ({"text": '{"bundle":"image"}'}, "malformed"),
    ):
        assert cause_of(with_signature(signed, says(signed, key, **fields))) == cause, fields
    assert read_trusted(with_signature(signed, says(signed, key)), Trust(tmp_path / "fleet.pub"))


@pytest.mark.row(13)
def test_another_bundle_of_the_same_signer_is_refused_where_a_name_is_wanted(
    signed: Path, tmp_path: Path
) -> None:
    key = tmp_path / "fleet.pub"
    assert read_trusted(signed, Trust(key, name="image"))
    with pytest.raises(BundleUntrusted, match="is 'image', and 'lane' is wanted") as caught:
        read_trusted(signed, Trust(key, name="lane"))
    assert caught.value.details["cause"] == "other_name"


@pytest.mark.row(13)
def test_a_signature_of_other_bytes_is_none_of_a_bundle(signed: Path, tmp_path: Path) -> None:
    raw = signature_of(signed)
    wrong = raw.replace(b'\\"release\\":3', b'\\"release\\":4')
    assert wrong != raw
    assert cause_of(with_signature(signed, wrong)) == "wrong_signature"
    # A statement that the key signed as such, and not as one about a bundle.
    (found,) = read_signatures(raw, SIGNATURE)
    key = read_private_key(tmp_path / "fleet.key", str)
    bare = Signed(found.key, found.statement, key.sign(found.statement.encode()))
    assert cause_of(with_signature(signed, signature_bytes([bare]))) == "wrong_signature"


@pytest.mark.row(13)
def test_a_signature_ends_with_its_last_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = signed_image(tmp_path, expires="2027-12-31")
    keys = Trust(tmp_path / "fleet.pub")
    for day, fine in (("2027-12-31", True), ("1970-01-01", True), ("2028-01-01", False)):
        monkeypatch.setattr(trust, "_today", lambda day=day: dt.date.fromisoformat(day))
        if fine:
            assert read_trusted(path, keys).facts()["expires"] == "2027-12-31"
        else:
            assert cause_of(path) == "expired"
    # Another trusted key that has not ended is enough.
    write_keys(tmp_path, "second", 2)
    sign(path, tmp_path / "second.key")
    both = Trust([tmp_path / "fleet.pub", tmp_path / "second.pub"])
    assert read_trusted(path, both).facts()["expires"] is None
    assert cause_of(path) == "expired"


def test_the_day_is_that_of_the_system_in_utc() -> None:
    before = dt.datetime.now(dt.timezone.utc).date()
    assert before <= trust._today() <= dt.datetime.now(dt.timezone.utc).date()


@pytest.mark.row(13)
def test_a_member_that_was_not_signed_is_refused(signed: Path, tmp_path: Path) -> None:
    with_signature(signed, signature_of(signed), extra=b"1")
    assert cause_of(signed) == "extra_member"
    with pytest.raises(BundleCorrupt, match="extra is not in the manifest"):
        edgebm.load(signed)


@pytest.mark.row(13)
def test_two_keys_may_sign_and_one_of_ours_that_is_wrong_counts(
    signed: Path, tmp_path: Path
) -> None:
    write_keys(tmp_path, "second", 2)
    sign(signed, tmp_path / "second.key", release=7)
    fleet, second = tmp_path / "fleet.pub", tmp_path / "second.pub"
    assert read_trusted(signed, Trust(fleet)).release == 3
    assert read_trusted(signed, Trust(second)).release == 7
    assert read_trusted(signed, Trust([fleet, second])).release == 7
    raw = signature_of(signed)
    with_signature(signed, raw.replace(b'\\"release\\":7', b'\\"release\\":8'))
    assert cause_of(signed, second) == "wrong_signature"
    assert cause_of(signed, fleet, second) == "wrong_signature"
    assert read_trusted(signed, Trust(fleet)).release == 3


@pytest.mark.row(3, 13)
def test_every_flipped_bit_of_a_signature_is_refused(signed: Path) -> None:
    bundle = read_bundle(signed)
    fleet = read_public_key(signed.with_name("fleet.pub"))
    raw = signature_of(signed)
    assert valid_statements(bundle, {fleet.id: fleet})
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        bad = replace(bundle, members={**bundle.members, SIGNATURE: memoryview(flipped)})
        with pytest.raises(BundleUntrusted) as caught:
            valid_statements(bad, {fleet.id: fleet})
        assert caught.value.details["cause"] in {"malformed", "unknown_key", "wrong_signature"}


@pytest.mark.row(13)
@given(at=st.tuples(st.floats(0, 1), st.floats(0, 1)), middle=st.binary(max_size=200))
def test_no_other_bytes_pass_for_a_signature(
    at: tuple[float, float], middle: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    if not (folder / "release-5.edgebm").exists():
        signed_image(folder, 5)
    bundle, fleet = read_bundle(folder / "release-5.edgebm"), read_public_key(folder / "fleet.pub")
    raw = bytes(bundle.members[SIGNATURE])
    first, last = sorted(round(each * len(raw)) for each in at)
    bad = raw[:first] + middle + raw[last:]
    changed = replace(bundle, members={**bundle.members, SIGNATURE: memoryview(bad)})
    if bad == raw:
        assert valid_statements(changed, {fleet.id: fleet})
        return
    with pytest.raises(BundleUntrusted):
        valid_statements(changed, {fleet.id: fleet})


@pytest.mark.row(13)
def test_trust_is_checked_before_a_runtime_is_touched(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a runtime was touched")

    for name in ("prepare", "open_engine"):
        monkeypatch.setattr(start, name, never)
    write_keys(tmp_path, "other", 2)
    with pytest.raises(BundleUntrusted, match=f"signed by {FLEET}, and the trusted keys are "):
        edgebm.load(signed, trust=[tmp_path / "other.pub"])
    with pytest.raises(AssertionError, match="was touched"):
        edgebm.load(signed, trust=[tmp_path / "fleet.pub"])


@pytest.mark.parametrize("nothing", [[], (), [3], 3, [None], b"x"])
def test_trust_in_nobody_is_no_trust_in_everybody(nothing: object) -> None:
    with pytest.raises(UsageError, match="trust"):
        edgebm.load(IMAGE, trust=nothing)  # type: ignore[arg-type]


def test_without_the_package_nothing_is_believed(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(BackendUnavailable, match="'cryptography'.*not installed") as caught:
        edgebm.load(signed, trust=[signed.with_name("fleet.pub")])
    assert caught.value.hint == "pip install 'edgebm[trust]'"
    with edgebm.load(signed, target="onnxruntime") as session:
        assert session.report()["signature"] == "not checked"


def test_a_link_to_a_bundle_is_read_as_one(signed: Path, tmp_path: Path) -> None:
    link = tmp_path / "slot"
    link.symlink_to(signed)
    assert read_trusted(link, Trust(tmp_path / "fleet.pub")).release == 3
