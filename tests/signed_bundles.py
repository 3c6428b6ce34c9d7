"""Keys as openssl would have written them, and bundles that they signed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgebm.bundle_writer import write_bundle
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, SIGNATURE, pack
from edgebm.runtime.keys import PublicKey, read_private_key
from edgebm.runtime.signature import Signed, Statement, message, signature_bytes
from edgebm.runtime.trust import manifest_sha256
from edgebm.verbs.sign import sign

IMAGE = Path(__file__).parent / "device" / "data" / "image.edgebm"


def write_keys(folder: Path, name: str, seed: int) -> PublicKey:
    """NAME.key and NAME.pub, equal for equal seeds."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    private = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    public = key.public_key()
    (folder / f"{name}.pub").write_bytes(
        public.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    )
    return PublicKey(public.public_bytes(pem.Encoding.Raw, pem.PublicFormat.Raw))


def signed_image(folder: Path, release: int = 0, expires: str | None = None) -> Path:
    """A small bundle signed by `fleet.key` of the folder, which is made."""
    write_keys(folder, "fleet", 1)
    out = folder / f"release-{release}.edgebm"
    sign(IMAGE, folder / "fleet.key", release=release, expires=expires, out=out, force=True)
    return out


def with_signature(path: Path, raw: bytes | None, **extra: bytes) -> Path:
    """`path` with other bytes as its SIGNATURE (None: without), and further members."""
    parts = {name: bytes(data) for name, data in read_bundle(path).members.items()}
    parts.pop(SIGNATURE, None)
    if raw is not None:
        parts[SIGNATURE] = raw
    path.write_bytes(pack({**parts, **extra}))
    return path


def signature_of(path: Path) -> bytes:
    return bytes(read_bundle(path).members[SIGNATURE])


def says(path: Path, signer_key: Path, /, text: str | None = None, **fields: object) -> bytes:
    """A SIGNATURE by `signer_key` over a statement with other fields, or over `text`."""
    bundle = read_bundle(path)
    signer = read_private_key(signer_key, str)
    owner = signer.public.id
    right = Statement(bundle.manifest.name, owner, manifest_sha256(bundle), 0)
    raw: dict[str, Any] = {**asdict(right), **fields}
    text = text or Statement(**raw).text()
    return signature_bytes([Signed(owner, text, signer.sign(message(text)))])


def renamed_image(folder: Path, name: str) -> Path:
    """The same model under another name: another bundle by all that is signed."""
    bundle = read_bundle(IMAGE)
    parts = {member: bytes(data) for member, data in bundle.members.items() if member != MANIFEST}
    return write_bundle(folder / f"{name}.edgebm", replace(bundle.manifest, name=name), parts)
