from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signed_bundles import IMAGE, signature_of, signed_image, with_signature, write_keys

import edgebm
from edgebm.cli import passphrase
from edgebm.cli.main import main
from edgebm.errors import UsageError
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, SIGNATURE
from edgebm.runtime.keys import read_private_key, read_public_key
from edgebm.verbs import sign as verb

RUN = ("--target", "onnxruntime")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copy(IMAGE, tmp_path / "m.edgebm"))


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["keygen", "sign"])
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"edgebm {name}" in capsys.readouterr().out.partition("Example")[2]


def test_a_new_key_signs_and_is_never_replaced(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "fleet")
    assert main(["keygen", name, "--json"]) == 0
    made = told(capsys)
    key, pub = Path(made["private"]), Path(made["public"])
    assert (key, pub) == (tmp_path / "fleet.key", tmp_path / "fleet.pub")
    assert key.stat().st_mode & 0o777 == 0o600
    (tmp_path / "new").touch()
    assert pub.stat().st_mode == (tmp_path / "new").stat().st_mode
    assert read_public_key(pub).id == made["key"]
    before = key.read_bytes()
    for left, gone in ((key, pub), (pub, key)):
        kept = gone.read_bytes()
        gone.unlink()
        assert main(["keygen", name]) == 2
        assert f"{left} exists" in capsys.readouterr().err
        assert not gone.exists()
        gone.write_bytes(kept)
    assert key.read_bytes() == before

    assert main(["sign", str(bundle), "--key", str(key), "--release", "3", "--json"]) == 0
    assert told(capsys) == {
        "path": str(bundle),
        "name": "image",
        "key": made["key"],
        "signed_by": [made["key"]],
        "release": 3,
        "expires": None,
    }
    assert main(["verify", str(bundle), *RUN, "--trust", str(pub)]) == 0
    assert f"valid: by {made['key']}, release 3\n" in capsys.readouterr().out


def test_half_a_pair_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verb.create_atomically

    def full(path: Path, data: bytes, *, private: bool = False) -> None:
        if not private:
            raise UsageError("the disk is full")
        real(path, data, private=private)

    monkeypatch.setattr(verb, "create_atomically", full)
    with pytest.raises(UsageError, match="full"):
        edgebm.keygen(tmp_path / "fleet")
    assert list(tmp_path.iterdir()) == []


def test_signing_changes_nothing_else_and_gives_equal_bytes(tmp_path: Path, bundle: Path) -> None:
    write_keys(tmp_path, "a", 1)
    write_keys(tmp_path, "b", 2)
    one, two = tmp_path / "one.edgebm", tmp_path / "two.edgebm"
    for first, second, out in (("a", "b", one), ("b", "a", two)):
        edgebm.sign(bundle, tmp_path / f"{first}.key", release=1, out=out)
        edgebm.sign(out, tmp_path / f"{second}.key", release=1, expires="2030-01-31")
        edgebm.sign(out, tmp_path / "a.key", release=2)
        made = edgebm.sign(out, tmp_path / "b.key", release=2)
        assert made["path"] == str(out)
        assert len(made["signed_by"]) == 2
    assert one.read_bytes() == two.read_bytes()
    signed, plain = read_bundle(one), read_bundle(bundle)
    assert signed.members.keys() - plain.members.keys() == {SIGNATURE}
    assert signed.members[MANIFEST] == plain.members[MANIFEST]
    assert SIGNATURE not in signed.manifest.members


def test_where_signed_bundles_are_written(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_keys(tmp_path, "a", 1)
    key, out, link = tmp_path / "a.key", tmp_path / "out.edgebm", tmp_path / "link"
    plain = bundle.read_bytes()
    assert main(["sign", str(bundle), "--key", str(key), "-o", str(out)]) == 0
    assert bundle.read_bytes() == plain
    capsys.readouterr()
    assert main(["sign", str(bundle), "--key", str(key), "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["sign", str(bundle), "--key", str(key), "-o", str(out), "--force"]) == 0
    assert main(["sign", str(bundle), "--key", str(key), "-o", str(key), "--force"]) == 2
    assert "is an input" in capsys.readouterr().err
    link.symlink_to(bundle)
    edgebm.sign(link, key, out=bundle)
    assert link.is_symlink()
    assert signature_of(bundle) == signature_of(out)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"release": -1}, "release must be"),
        ({"release": True}, "release must be"),
        ({"release": 1 << 63}, "release must be"),
        ({"expires": "2027-02-30"}, "is no day"),
        ({"expires": "tomorrow"}, "is no day"),
        ({"expires": ""}, "is no day"),
    ],
)
def test_arguments_that_cannot_be(
    wrong: dict[str, Any], words: str, tmp_path: Path, bundle: Path
) -> None:
    write_keys(tmp_path, "a", 1)
    plain = bundle.read_bytes()
    with pytest.raises(UsageError, match=words):
        edgebm.sign(bundle, tmp_path / "a.key", **wrong)
    assert bundle.read_bytes() == plain


def test_a_malformed_signature_is_not_signed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = with_signature(signed_image(tmp_path), b"{}")
    assert main(["sign", str(bad), "--key", str(tmp_path / "fleet.key")]) == 4
    assert "as 'edgebm compress' wrote it" in capsys.readouterr().err
    assert main(["inspect", str(bad)]) == 0
    assert "signature       malformed" in capsys.readouterr().out
    assert main(["verify", str(bad), *RUN, "--trust", str(tmp_path / "fleet.pub"), "--json"]) == 4
    assert told(capsys)["error"]["details"] == {"cause": "malformed"}


def test_a_passphrase_comes_from_a_file_the_environment_or_the_terminal(
    tmp_path: Path,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, secret = str(tmp_path / "k"), tmp_path / "secret.txt"
    secret.write_text("open sesame\nmore\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("typed\n"))
    assert main(["keygen", name, "--encrypt"]) == 2
    assert "nobody can be asked" in capsys.readouterr().err
    assert main(["keygen", name, "--passphrase-file", str(secret)]) == 0
    read_private_key(f"{name}.key", lambda: "open sesame")
    signing = ["sign", str(bundle), "--key", f"{name}.key"]
    assert main(signing) == 2
    assert "nobody can be asked" in capsys.readouterr().err
    monkeypatch.setenv(passphrase.VARIABLE, "wrong")
    assert main(signing) == 2
    assert main([*signing, "--passphrase-file", str(secret)]) == 0
    monkeypatch.setenv(passphrase.VARIABLE, "open sesame")
    assert main(signing) == 0
    monkeypatch.delenv(passphrase.VARIABLE)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(passphrase.click, "prompt", lambda *_, **__: "open sesame")
    assert main(signing) == 0
    for raw in (b"\n", b"", b"\xff\n"):
        secret.write_bytes(raw)
        assert main([*signing, "--passphrase-file", str(secret)]) == 2
    assert main([*signing, "--passphrase-file", str(tmp_path)]) == 2


@pytest.mark.row(13)
@pytest.mark.parametrize("command", ["verify", "run", "bench", "build", "candidates"])
def test_every_command_that_runs_a_bundle_can_ask_for_a_key(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = signed_image(tmp_path)
    write_keys(tmp_path, "other", 2)
    np.savez(tmp_path / "x.npz", image=np.ones((1, 3, 4, 5), np.float32))
    options = {
        "verify": ["verify", *RUN],
        "run": ["run", *RUN, "-i", str(tmp_path / "x.npz")],
        "bench": ["bench", *RUN, "--seconds", "0.01"],
        "build": ["build", *RUN, "--cache", str(tmp_path / "cache")],
        "candidates": ["bench", "--candidates", "-o", str(tmp_path / "m.json")],
    }[command]
    start = [*options, str(signed), "--json", "--trust", str(tmp_path / "other.pub")]
    assert main(start) == 4
    assert told(capsys)["error"]["details"] == {"cause": "unknown_key"}
    if command != "candidates":
        assert main([*start, "--trust", str(tmp_path / "fleet.pub")]) == 0


def test_unchecked_signatures_are_shown_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = signed_image(tmp_path, expires="2020-01-01")
    (key,) = edgebm.sign(signed, tmp_path / "fleet.key")["signed_by"]
    for command in (["inspect"], ["verify", *RUN]):
        assert main([*command, str(signed)]) == 0
        assert f"not checked: it says by {key}\n" in capsys.readouterr().out
        assert main([*command, str(signed), "--json"]) == 0
        shown = told(capsys)
        assert (shown["signature"], shown["claimed_by"]) == ("not checked", [key])
        assert shown["signed_by"] == []
        assert main([*command, str(IMAGE)]) == 0
        assert "not signed\n" in capsys.readouterr().out
