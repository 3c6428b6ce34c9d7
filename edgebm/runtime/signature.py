"""The member SIGNATURE: what is signed, and the one way to write it down.

Each signature is over a statement that names the manifest by its SHA-256, and the manifest holds
the SHA-256 and size of every other member, so that nothing in a bundle is left uncovered. The
statement is kept as the text that was signed: what is verified is what is read.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from edgebm.errors import BundleFormat
from edgebm.runtime.strict_json import parse_json

SIGNATURE_VERSION = 1
MAX_BYTES = 64 << 10
MAX_SIGNATURES = 16
MAX_RELEASE = (1 << 63) - 1
# A signature over anything else, by the same key, is none of a bundle.
_DOMAIN = b"edgebm bundle signature 1\n"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_KEY, _SHA256, _SIGNATURE = (re.compile(rf"[0-9a-f]{{{n}}}") for n in (16, 64, 128))


@dataclass(frozen=True, slots=True)
class Statement:
    """What a key says of a bundle.

    `release` counts up from version to version of one bundle. `expires` is the last day, in UTC,
    on which the signature counts ("2027-12-31"), or "" if it counts for ever.
    """

    bundle: str
    key: str
    manifest_sha256: str
    release: int
    expires: str = ""

    def text(self) -> str:
        """What is signed, kept word for word in the bundle."""
        raw = asdict(self)
        if not self.expires:
            del raw["expires"]
        return json.dumps(raw, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement by the key with the id `key`, and its 64 bytes; nothing is proved by it."""

    key: str
    statement: str
    signature: bytes

    @property
    def message(self) -> bytes:
        """The bytes that the signature is over."""
        return message(self.statement)


def message(statement: str) -> bytes:
    """The bytes that a key signs for a statement."""
    return _DOMAIN + statement.encode()


def signature_bytes(signatures: Iterable[Signed]) -> bytes:
    """The member SIGNATURE with these, in the order of their keys."""
    rows = [
        {"key": each.key, "signature": each.signature.hex(), "statement": each.statement}
        for each in sorted(signatures, key=lambda each: each.key)
    ]
    raw = {"signature_version": SIGNATURE_VERSION, "signatures": rows}
    return (json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_signatures(raw: bytes, where: str) -> tuple[Signed, ...]:
    """The signatures of a member SIGNATURE, by their form alone.

    Raises:
        BundleFormat: it is not as `signature_bytes` writes it.
    """
    if len(raw) > MAX_BYTES:
        raise BundleFormat(f"{where} has {len(raw)} bytes, more than {MAX_BYTES}")
    parsed = parse_json(raw, where)
    version = parsed.get("signature_version")
    if type(version) is int and version != SIGNATURE_VERSION:
        raise BundleFormat(
            f"{where} has signature_version {version}, this edgebm reads {SIGNATURE_VERSION}"
        )
    rows = parsed.get("signatures")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_SIGNATURES:
        raise BundleFormat(f"{where} holds no list of 1 to {MAX_SIGNATURES} signatures")
    fields = {"key": str, "signature": str, "statement": str}
    if not all(
        _fits(row, fields)
        and _KEY.fullmatch(row["key"])
        and _SIGNATURE.fullmatch(row["signature"])
        for row in rows
    ):
        raise BundleFormat(f"{where}: a signature has a wrong type or field")
    found = tuple(
        Signed(row["key"], row["statement"], bytes.fromhex(row["signature"])) for row in rows
    )
    if len({each.key for each in found}) != len(found):
        raise BundleFormat(f"{where}: two signatures are by one key")
    if signature_bytes(found) != raw:
        raise BundleFormat(f"{where} is not as edgebm writes it")
    return found


def read_statement(text: str, where: str) -> Statement:
    """Parse a statement.

    Raises:
        BundleFormat: it is not one.
    """
    raw = parse_json(text.encode(), where)
    fields = {"bundle": str, "key": str, "manifest_sha256": str, "release": int}
    if not _fits({**raw, "expires": ""}, {**fields, "expires": str}):
        raise BundleFormat(f"{where} has a wrong type or field")
    statement = Statement(**raw)
    if (
        not _KEY.fullmatch(statement.key)
        or not _SHA256.fullmatch(statement.manifest_sha256)
        or not 0 <= statement.release <= MAX_RELEASE
        or ("expires" in raw and not is_date(statement.expires))
    ):
        raise BundleFormat(f"{where} has a value that it cannot have")
    return statement


def is_date(value: object) -> bool:
    """Whether `value` is the text of a day, such as "2027-12-31"."""
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        dt.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _fits(value: object, fields: Mapping[str, type]) -> bool:
    # By the exact type: True is no whole number here.
    return (
        isinstance(value, dict)
        and value.keys() == fields.keys()
        and all(type(value[name]) is kind for name, kind in fields.items())
    )


def claimed(raw: bytes) -> list[str] | None:
    """The keys that a member SIGNATURE names, proved by nothing; None if it is malformed."""
    try:
        return [each.key for each in read_signatures(raw, "it")]
    except BundleFormat:
        return None
