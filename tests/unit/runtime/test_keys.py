from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from signed_bundles import write_keys

from edgebm.errors import UsageError
from edgebm.runtime.keys import PrivateKey, read_private_key, read_public_key

# The first two test vectors of RFC 8032, section 7.1.
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
SIGNED = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
    "b46bd25bf5f0595bbe24655141438e7a100b"
)


def _never() -> str:
    raise AssertionError("a passphrase was asked for")


def test_keys_sign_as_the_standard_says(tmp_path: Path) -> None:
    known = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRET))
    key = PrivateKey(known)
    assert key.public.raw.hex() == PUBLIC
    assert key.sign(b"").hex() == SIGNED
    assert key.public.verifies(bytes.fromhex(SIGNED), b"")
    assert not key.public.verifies(bytes.fromhex(SIGNED), b"x")
    assert not key.public.verifies(b"", b"")
    assert SECRET not in repr(key)
    assert len(key.public.id) == 16


def test_keys_of_other_tools_are_read_and_ours_by_them(tmp_path: Path) -> None:
    theirs = write_keys(tmp_path, "theirs", 7)
    assert read_public_key(tmp_path / "theirs.pub") == theirs
    assert read_private_key(tmp_path / "theirs.key", _never).public == theirs
    ours = PrivateKey.generate()
    loaded = pem.load_pem_private_key(ours.pem("open sesame"), b"open sesame")
    assert isinstance(loaded, Ed25519PrivateKey)
    public = pem.load_pem_public_key(ours.public.pem())
    assert public.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw) == ours.public.raw  # type: ignore[union-attr]


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    path = tmp_path / "k.key"
    path.write_bytes(key.pem("pässword"))
    assert b"ENCRYPTED" in path.read_bytes()
    assert read_private_key(path, lambda: "pässword").public == key.public
    for wrong in ("password", ""):
        with pytest.raises(UsageError, match="its passphrase is another one|it is damaged"):
            read_private_key(path, lambda wrong=wrong: wrong)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    write_keys(tmp_path, "a", 1)
    public, private = (tmp_path / "a.pub").read_bytes(), (tmp_path / "a.key").read_bytes()
    other = X25519PrivateKey.generate()
    exchange = other.public_key().public_bytes(
        pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo
    )
    exchanged = other.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    cut = public.replace(b"MCow", b"MCox")
    certificate = public.replace(b"PUBLIC KEY", b"CERTIFICATE")
    path = tmp_path / "file"
    for raw, words in (
        (private, "is a private key"),
        (b"", "no key in PEM form"),
        (public + b" " * (1 << 15), "no key in PEM form"),
        (public + public, "holds 2 keys"),
        (certificate, "holds a CERTIFICATE"),
        (cut, "is damaged"),
        (exchange, "not of Ed25519"),
    ):
        path.write_bytes(raw)
        with pytest.raises(UsageError, match=words):
            read_public_key(path)
    for raw, words in (
        (public, "is a public key"),
        (certificate, "holds a CERTIFICATE"),
        (private.replace(b"MC4C", b"MC5C"), "is damaged"),
        (exchanged, "not of Ed25519"),
    ):
        path.write_bytes(raw)
        with pytest.raises(UsageError, match=words):
            read_private_key(path, _never)
    for missing in (tmp_path / "none", tmp_path, Path("nul\0")):
        with pytest.raises(UsageError, match="cannot be read"):
            read_public_key(missing)
