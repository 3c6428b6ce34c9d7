"""Ed25519 keys: the one file that knows the package `cryptography`, imported when it is needed.

Keys are PEM files that openssl reads and writes: PKCS8 for the private half, SubjectPublicKeyInfo
for the public one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgebm.errors import BackendUnavailable, UsageError

SIGNATURE_BYTES = 64
_ID_DIGITS = 16
_MAX_FILE_BYTES = 16 << 10
_BEGIN = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_PUBLIC, _PRIVATE, _ENCRYPTED = "PUBLIC KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"
_HINT = "'edgebm keygen NAME' writes NAME.key, which signs, and NAME.pub, which devices trust"
Passphrase = Callable[[], str]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The half of a key pair that a device has: 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """What people and files call it: the first 16 hex digits of the SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:_ID_DIGITS]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` was made of `message` by the other half."""
        vendor = _vendor()
        try:
            vendor.Public.from_public_bytes(self.raw).verify(signature, message)
        except vendor.InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        vendor = _vendor()
        key = vendor.Public.from_public_bytes(self.raw)
        form = vendor.pem.PublicFormat.SubjectPublicKeyInfo
        return bytes(key.public_bytes(vendor.pem.Encoding.PEM, form))


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """The half that signs. Never shown, and never on a device."""

    _key: Any = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new random key.

        Raises:
            BackendUnavailable: the package `cryptography` is missing.
        """
        return cls(_vendor().Private.generate())

    @property
    def public(self) -> PublicKey:
        vendor = _vendor()
        raw = self._key.public_key().public_bytes(
            vendor.pem.Encoding.Raw, vendor.pem.PublicFormat.Raw
        )
        return PublicKey(bytes(raw))

    def sign(self, message: bytes) -> bytes:
        """64 bytes; equal messages give equal ones."""
        return bytes(self._key.sign(message))

    def pem(self, passphrase: str = "") -> bytes:
        """As a file, encrypted where there is a passphrase."""
        vendor = _vendor()
        lock = vendor.pem.NoEncryption()
        if passphrase:
            lock = vendor.pem.BestAvailableEncryption(passphrase.encode())
        form = vendor.pem.PrivateFormat.PKCS8
        return bytes(self._key.private_bytes(vendor.pem.Encoding.PEM, form, lock))


def read_public_key(path: str | os.PathLike[str]) -> PublicKey:
    """Read the public half of a key.

    Raises:
        UsageError: no such file, or it holds something else.
        BackendUnavailable: the package `cryptography` is missing.
    """
    where = os.fspath(path)
    vendor = _vendor()
    kind, pem = _read_pem(where)
    if kind in {_PRIVATE, _ENCRYPTED}:
        raise UsageError(
            f"{where} is a private key",
            hint="give the public one, NAME.pub; a private key must not be on a device",
        )
    if kind != _PUBLIC:
        raise UsageError(f"{where} holds a {kind}, no public key", hint=_HINT)
    key = _loaded(where, lambda: vendor.pem.load_pem_public_key(pem))
    if not isinstance(key, vendor.Public):
        raise UsageError(f"{where} is a public key, but not of Ed25519", hint=_HINT)
    return PublicKey(bytes(key.public_bytes(vendor.pem.Encoding.Raw, vendor.pem.PublicFormat.Raw)))


def read_private_key(path: str | os.PathLike[str], passphrase: Passphrase) -> PrivateKey:
    """Read the private half; `passphrase` is asked only if it is encrypted.

    Raises:
        UsageError: no such file, it holds something else, or the passphrase is wrong.
        BackendUnavailable: the package `cryptography` is missing.
    """
    where = os.fspath(path)
    vendor = _vendor()
    kind, pem = _read_pem(where)
    if kind == _PUBLIC:
        raise UsageError(f"{where} is a public key, which cannot sign", hint="give NAME.key")
    if kind not in {_PRIVATE, _ENCRYPTED}:
        raise UsageError(f"{where} holds a {kind}, no private key of PKCS8", hint=_HINT)
    secret = passphrase().encode() if kind == _ENCRYPTED else None
    key = _loaded(where, lambda: vendor.pem.load_pem_private_key(pem, secret), locked=bool(secret))
    if not isinstance(key, vendor.Private):
        raise UsageError(f"{where} is a private key, but not of Ed25519", hint=_HINT)
    return PrivateKey(key)


def _read_pem(where: str) -> tuple[str, bytes]:
    """What the file says it holds, and its bytes."""
    try:
        with Path(where).open("rb") as file:
            pem = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as cause:
        raise UsageError(f"the key {where} cannot be read: {cause}", hint=_HINT) from cause
    kinds = [kind.decode() for kind in _BEGIN.findall(pem)]
    if len(pem) > _MAX_FILE_BYTES or not kinds:
        raise UsageError(f"{where} is no key in PEM form", hint=_HINT)
    if len(kinds) > 1:
        raise UsageError(f"{where} holds {len(kinds)} keys", hint="give each a file of its own")
    return kinds[0], pem


def _loaded(where: str, load: Callable[[], Any], *, locked: bool = False) -> Any:
    try:
        return load()
    except Exception as cause:  # of many kinds, from version to version of the package
        # What it says may quote what it was given, so it goes no further than the cause.
        why = "its passphrase is another one, or it is damaged" if locked else "it is damaged"
        raise UsageError(f"the key {where} cannot be read: {why}", hint=_HINT) from cause


def _vendor() -> Any:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as cause:
        missing = isinstance(cause, ModuleNotFoundError)
        why = "is not installed" if missing else f"does not load: {cause}"
        raise BackendUnavailable(
            f"signatures need the package 'cryptography', which {why}",
            hint="pip install 'edgebm[trust]'",
        ) from cause
    return SimpleNamespace(
        pem=serialization,
        Private=ed25519.Ed25519PrivateKey,
        Public=ed25519.Ed25519PublicKey,
        InvalidSignature=InvalidSignature,
    )
