"""The verbs `keygen` and `sign`: a key pair, and a bundle that says who answers for it."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebm.bundle_writer import check_destination
from edgebm.errors import BundleFormat, UsageError
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.container import SIGNATURE, pack
from edgebm.runtime.files import create_atomically, write_atomically
from edgebm.runtime.keys import Passphrase, PrivateKey, read_private_key
from edgebm.runtime.signature import (
    MAX_RELEASE,
    Signed,
    Statement,
    is_date,
    message,
    read_signatures,
    signature_bytes,
)
from edgebm.runtime.trust import manifest_sha256

PathLike = str | os.PathLike[str]


def keygen(name: PathLike, *, passphrase: str = "") -> dict[str, Any]:
    """Make a key pair: NAME.key, which signs and stays here, and NAME.pub, which devices trust.

    Args:
        name: path of both files without `.key` and `.pub`.
        passphrase: encrypts the private key; empty leaves it open to whoever can read the file.

    Returns:
        `key`, its id, and the paths `private` and `public`.

    Raises:
        UsageError: one of the files exists, or cannot be written.
        BackendUnavailable: the package `cryptography` is missing.
    """
    private, public = (Path(f"{os.fspath(name)}.{end}") for end in ("key", "pub"))
    if taken := [str(path) for path in (private, public) if os.path.lexists(path)]:
        raise UsageError(
            f"{' and '.join(taken)} exist{'s' if len(taken) == 1 else ''}",
            hint="a key is never replaced: choose another name",
        )
    key = PrivateKey.generate()
    create_atomically(private, key.pem(passphrase), private=True)
    try:
        create_atomically(public, key.public.pem())
    except BaseException:
        private.unlink()
        raise
    return {"key": key.public.id, "private": str(private), "public": str(public)}


def sign(  # noqa: PLR0913 - one keyword per option of the command line
    bundle: PathLike,
    key: PathLike,
    *,
    release: int = 0,
    expires: dt.date | str | None = None,
    out: PathLike | None = None,
    passphrase: str | Passphrase = "",
    force: bool = False,
) -> dict[str, Any]:
    """Sign a bundle, beside the other keys that have signed it and in place of its own signature.

    Equal arguments give equal bytes.

    Args:
        bundle: the file; it is whole, or it is refused.
        key: file of the private key.
        release: counts up from version to version; a device can refuse a lower one than it had.
        expires: the last day, in UTC, on which the signature counts; None for ever.
        out: where to write; None replaces `bundle` itself.
        passphrase: of the key, or what to call for it; used only if the key is encrypted.
        force: replace `out` if it is there.

    Returns:
        `path`, `name`, `key` (its id), `signed_by` (the ids of all), `release` and `expires`.

    Raises:
        BundleError: it is no whole bundle, or its signatures are malformed or too many.
        UsageError: an argument is wrong, or the file cannot be written.
        BackendUnavailable: the package `cryptography` is missing.
    """
    last = "" if expires is None else str(expires)
    _check(release, last if expires is not None else None)
    # A link is followed: what it points to is signed, and stays where it is.
    source = Path(bundle).resolve()
    path = source if out is None or _is(Path(out), source) else Path(out)
    if path != source:
        check_destination(path, force=force, inputs=(key,))
    opened = read_bundle(bundle)
    asked = (lambda: passphrase) if isinstance(passphrase, str) else passphrase
    signer = read_private_key(key, asked)
    mine = _signed(opened, signer, release, last)
    signatures = [*(each for each in _signatures(opened) if each.key != mine.key), mine]
    members = {name: bytes(data) for name, data in opened.members.items()}
    members[SIGNATURE] = signature_bytes(signatures)
    read_signatures(members[SIGNATURE], f"{path}: {SIGNATURE}")  # what is written can be read
    write_atomically(path, pack(members))
    return {
        "path": os.fspath(bundle) if path == source else str(path),
        "name": opened.manifest.name,
        "key": mine.key,
        "signed_by": sorted(each.key for each in signatures),
        "release": release,
        "expires": last or None,
    }


def _check(release: int, expires: str | None) -> None:
    if type(release) is not int or not 0 <= release <= MAX_RELEASE:
        raise UsageError(f"release must be a whole number of 0 or more, not {release!r}")
    if expires is not None and not is_date(expires):
        raise UsageError(
            f"expires {expires!r} is no day", hint="write year, month and day, such as 2027-12-31"
        )


def _is(path: Path, source: Path) -> bool:
    return path.exists() and source.exists() and path.samefile(source)


def _signed(bundle: Bundle, signer: PrivateKey, release: int, expires: str) -> Signed:
    key, name = signer.public.id, bundle.manifest.name
    statement = Statement(name, key, manifest_sha256(bundle), release, expires).text()
    return Signed(key, statement, signer.sign(message(statement)))


def _signatures(bundle: Bundle) -> Sequence[Signed]:
    """Those that are there, whoever made them: to prove them takes keys that we have not."""
    if (raw := bundle.members.get(SIGNATURE)) is None:
        return ()
    try:
        return read_signatures(bytes(raw), f"{bundle.path}: {SIGNATURE}")
    except BundleFormat as cause:
        raise BundleFormat(
            f"{cause}", hint="sign the bundle as 'edgebm compress' wrote it"
        ) from cause
