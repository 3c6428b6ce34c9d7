"""Whom a device believes: keys, signatures and releases. Imported on demand."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebm.errors import BundleCorrupt, BundleFormat, BundleUntrusted, UsageError
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.container import MANIFEST, SIGNATURE
from edgebm.runtime.keys import PublicKey, read_public_key
from edgebm.runtime.proof import PathLike, Proof
from edgebm.runtime.releases import check_release
from edgebm.runtime.signature import Signed, Statement, read_signatures, read_statement

_HINTS = {
    "unsigned": "sign it where it was made: edgebm sign BUNDLE --key NAME.key",
    "malformed": "copy the bundle again, or sign the original again",
    "unknown_key": "is it from whom you trust? Then give their public key, too",
    "wrong_signature": "do not use it: it was changed after it was signed, or never signed so",
    "expired": "is the clock of this device right? Then sign the bundle again",
    "other_manifest": "do not use it: the signature was taken from another bundle",
    "other_name": "do not use it: it was put in the place of another bundle",
    "extra_member": "do not use it: somebody has put more into it than was signed",
}


@dataclass(frozen=True, slots=True)
class Trust:
    """What `edgebm.load` asks of a bundle.

    `keys` are files of public keys; a valid signature by one of them is enough. `releases` is a
    file in which this device keeps the highest release that it has accepted of each bundle; a
    lower one is refused. `allow_downgrade` accepts a lower release, too, and notes that. `name`
    is what the bundle must be called, where a key signs several.

    Raises:
        UsageError: there are no keys, or these are no paths.
    """

    keys: PathLike | Sequence[PathLike]
    releases: PathLike | None = None
    allow_downgrade: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        keys = [self.keys] if isinstance(self.keys, str | os.PathLike) else self.keys
        try:
            paths = tuple(Path(each) for each in keys)
            releases = None if self.releases is None else Path(self.releases)
        except TypeError as cause:
            raise UsageError(f"trust takes paths of public keys: {cause}") from cause
        if not paths:
            raise UsageError(
                "trust= names no key", hint="name a public key, or leave trust= out to check none"
            )
        object.__setattr__(self, "keys", paths)
        object.__setattr__(self, "releases", releases)

    def read_keys(self) -> dict[str, PublicKey]:
        """The keys by their ids.

        Raises:
            UsageError: a file is missing or no public key.
            BackendUnavailable: the package `cryptography` is missing.
        """
        assert isinstance(self.keys, tuple)
        found = [read_public_key(path) for path in self.keys]
        return {key.id: key for key in found}


def prove(path: PathLike, trust: Trust) -> Proof:
    """Read and verify a bundle and its signatures.

    Raises:
        BundleError, ResourceError, UsageError, BackendUnavailable: as `proof.read_trusted`.
    """
    keys = trust.read_keys()
    try:
        bundle = read_bundle(path)
    except BundleCorrupt as cause:
        if not cause.details.get("extra_members"):
            raise
        raise _untrusted("extra_member", str(cause)) from cause
    statements = tuple(valid_statements(bundle, keys))
    if trust.name not in {None, bundle.manifest.name}:
        raise _untrusted(
            "other_name", f"{path} is {bundle.manifest.name!r}, and {trust.name!r} is wanted"
        )
    proof = Proof(bundle, statements, trust)
    if trust.releases is not None and not trust.allow_downgrade:
        check_release(Path(trust.releases), bundle.manifest.name, proof.release)
    return proof


def valid_statements(bundle: Bundle, keys: Mapping[str, PublicKey]) -> list[Statement]:
    """The statements by our keys that count today.

    Who signed beside them does not matter, but one of our own that is wrong does, whatever the
    others say: somebody has meddled with the file.

    Raises:
        BundleUntrusted: there is none; says why.
    """
    where = f"{bundle.path}: {SIGNATURE}"
    if (raw := bundle.members.get(SIGNATURE)) is None:
        raise _untrusted("unsigned", f"{bundle.path} is not signed")
    try:
        found = read_signatures(bytes(raw), where)
    except BundleFormat as cause:
        raise _untrusted("malformed", str(cause)) from cause
    ours = [(each, keys[each.key]) for each in found if each.key in keys]
    if not ours:
        raise _untrusted(
            "unknown_key",
            f"{bundle.path} is signed by {_names(each.key for each in found)}, and the trusted "
            f"keys are {_names(keys)}",
        )
    statements = [_statement(bundle, each, key) for each, key in ours]
    today = _today().isoformat()
    valid = [each for each in statements if not each.expires or today <= each.expires]
    if not valid:
        last = max(each.expires for each in statements)
        raise _untrusted(
            "expired", f"{bundle.path}: its signature ended with {last}, and here it is {today}"
        )
    return valid


def _statement(bundle: Bundle, signed: Signed, key: PublicKey) -> Statement:
    """What `signed` says, once it is proved to be by `key` and about this bundle."""
    by = f"the signature by {signed.key}"
    if not key.verifies(signed.signature, signed.message):
        raise _untrusted("wrong_signature", f"{bundle.path}: {by} is wrong")
    try:
        statement = read_statement(signed.statement, f"{bundle.path}: the statement")
    except BundleFormat as cause:
        raise _untrusted("malformed", str(cause)) from cause
    if statement.key != signed.key:
        raise _untrusted("malformed", f"{bundle.path}: {by} is in the name of {statement.key}")
    if statement.manifest_sha256 != manifest_sha256(bundle):
        raise _untrusted("other_manifest", f"{bundle.path}: {by} is for another manifest")
    if statement.bundle != bundle.manifest.name:
        raise _untrusted(
            "other_name",
            f"{bundle.path}: {by} is for {statement.bundle!r}, and this is "
            f"{bundle.manifest.name!r}",
        )
    return statement


def manifest_sha256(bundle: Bundle) -> str:
    """What a signature of this bundle is about."""
    return hashlib.sha256(bundle.members[MANIFEST]).hexdigest()


def _untrusted(cause: str, message: str) -> BundleUntrusted:
    return BundleUntrusted(message, hint=_HINTS[cause], details={"cause": cause})


def _names(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids))


def _today() -> dt.date:
    return dt.datetime.now(dt.timezone.utc).date()
