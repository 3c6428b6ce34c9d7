from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from signed_bundles import signed_image, with_signature

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.errors import BundleRollback, BundleUntrusted, SelfTestFailed, UsageError
from edgebm.runtime import releases
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, SIGNATURE
from edgebm.runtime.proof import read_trusted
from edgebm.runtime.releases import accept_release, check_release
from edgebm.runtime.trust import Trust
from edgebm.verbs.sign import sign

_ACCEPT = """
import sys
from pathlib import Path
from edgebm.runtime.releases import accept_release
for release in range(1, 21):
    accept_release(Path(sys.argv[1]), sys.argv[2], release, allow_downgrade=False)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "releases.json"


def noted(file: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(file.read_bytes())["releases"]
    return found


@pytest.mark.row(14)
def test_an_older_release_is_refused_once_a_newer_one_was_accepted(
    tmp_path: Path, file: Path
) -> None:
    old, new = signed_image(tmp_path, 3), signed_image(tmp_path, 4)
    keys = Trust(tmp_path / "fleet.pub", releases=file)
    for path, release in ((old, 3), (new, 4), (new, 4)):
        with edgebm.load(path, target="onnxruntime", trust=keys) as session:
            assert session.report()["release"] == release
        assert noted(file) == {"image": release}
    with pytest.raises(BundleRollback) as caught:
        edgebm.load(old, trust=keys)
    assert caught.value.details == {"name": "image", "release": 3, "accepted": 4}
    assert caught.value.exit_code == 4
    assert noted(file) == {"image": 4}
    with pytest.raises(BundleRollback):  # before a runtime is touched
        read_trusted(old, keys)
    # Who keeps no releases takes any of them.
    assert read_trusted(old, Trust(tmp_path / "fleet.pub")).release == 3


@pytest.mark.row(14)
def test_a_downgrade_is_accepted_where_it_is_allowed_and_noted(tmp_path: Path, file: Path) -> None:
    old, new = signed_image(tmp_path, 3), signed_image(tmp_path, 4)
    keys = Trust(tmp_path / "fleet.pub", releases=file)
    edgebm.load(new, target="onnxruntime", trust=keys).close()
    edgebm.load(old, target="onnxruntime", trust=replace(keys, allow_downgrade=True)).close()
    assert noted(file) == {"image": 3}
    edgebm.load(old, target="onnxruntime", trust=keys).close()


@pytest.mark.row(14)
def test_nothing_is_noted_of_a_bundle_that_was_not_proved(tmp_path: Path, file: Path) -> None:
    signed = signed_image(tmp_path, 3)
    keys = Trust(tmp_path / "fleet.pub", releases=file)
    with pytest.raises(BundleUntrusted):
        edgebm.load(with_signature(signed, None), trust=keys)
    bundle = read_bundle(signed)
    parts = {name: bytes(x) for name, x in bundle.members.items()}
    mine = {name: x for name, x in parts.items() if name not in {MANIFEST, SIGNATURE}}
    golden = "golden/0/outputs/0.npy"
    mine[golden] = mine[golden][:-4] + b"\0\0\x80\x42"
    failing = write_bundle(tmp_path / "failing.edgebm", bundle.manifest, mine)
    sign(failing, tmp_path / "fleet.key", release=9)
    with pytest.raises(SelfTestFailed):
        edgebm.load(failing, target="onnxruntime", trust=keys)
    assert not file.exists()


@pytest.mark.row(14)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"releases": {"image": 3}}',
        b'{"releases": {"image": 3}, "releases_version": 2}',
        b'{"releases": ["image"], "releases_version": 1}',
        b'{"releases": {"image": -1}, "releases_version": 1}',
        b'{"releases": {"image": true}, "releases_version": 1}',
        b'{"releases": {"image": 3, "image": 1}, "releases_version": 1}',
        b'{"releases": {}, "releases_version": 1}' + b" " * (1 << 20),
    ],
    ids=range(11),
)
def test_a_damaged_file_is_an_error_and_no_new_beginning(raw: bytes, file: Path) -> None:
    file.write_bytes(raw)
    with pytest.raises(UsageError, match="cannot be used") as caught:
        check_release(file, "image", 9)
    assert "older" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be used"):
        accept_release(file, "image", 9, allow_downgrade=True)
    assert file.read_bytes() == raw


@pytest.mark.row(14)
def test_processes_lose_no_release_of_each_other(file: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", _ACCEPT, str(file), name]) for name in ("a", "b")
    ]
    assert [each.wait() for each in running] == [0, 0]
    assert noted(file) == {"a": 20, "b": 20}


@pytest.mark.row(14)
def test_what_another_process_accepted_meanwhile_counts(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = read_trusted(signed_image(tmp_path, 3), Trust(tmp_path / "fleet.pub", releases=file))
    accept_release(file, "image", 5, allow_downgrade=False)
    with pytest.raises(BundleRollback):
        proof.accept()
    assert noted(file) == {"image": 5}
    with (tmp_path / "releases.json.lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(releases, "_WAIT_S", 0.01)
        with pytest.raises(UsageError, match="another process has held"):
            accept_release(file, "image", 6, allow_downgrade=False)
    assert noted(file) == {"image": 5}


def test_a_release_that_cannot_be_noted_gives_no_session(tmp_path: Path) -> None:
    signed = signed_image(tmp_path, 3)
    keys = Trust(tmp_path / "fleet.pub", releases=tmp_path / "none" / "releases.json")
    with pytest.raises(UsageError, match="release 3 of image cannot be noted"):
        edgebm.load(signed, target="onnxruntime", trust=keys)
    # Where there is nothing to note, nothing is written, and no lock is left.
    known = tmp_path / "releases.json"
    known.write_text('{"releases": {"image": 3}, "releases_version": 1}')
    accept_release(known, "image", 3, allow_downgrade=False)
    assert not (tmp_path / "releases.json.lock").exists()


def test_a_file_behind_a_link_is_replaced_there(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link = tmp_path / "releases.json"
    link.symlink_to(tmp_path / "kept" / "releases.json")
    accept_release(link, "image", 3, allow_downgrade=False)
    assert link.is_symlink()
    assert noted(tmp_path / "kept" / "releases.json") == {"image": 3}
