"""Bundles with one thing wrong, but otherwise whole: hashes and headers fit."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgebm.runtime import container
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, pack
from edgebm.runtime.engines import CPU_RUNTIMES

DATA = Path(__file__).parents[1] / "device" / "data"
INSTALLED = [name for name in CPU_RUNTIMES if importlib.util.find_spec(name)]
SOURCE = DATA / "image.edgebm"
Edit = Callable[[dict[str, Any]], None]


def members() -> dict[str, bytes]:
    """The members of the bundle that most faults are made from."""
    return {name: bytes(data) for name, data in read_bundle(SOURCE).members.items()}


def with_manifest(edit: Edit) -> bytes:
    """A bundle whose manifest is edited."""
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    edit(manifest)
    return pack({**parts, MANIFEST: json.dumps(manifest).encode()})


def at(*path: str | int, value: Any) -> Edit:
    """The edit that puts `value` at `path`."""

    def edit(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return edit


def sealed(body: bytes) -> bytes:
    """`body` and the digest that belongs to it: only the structure can give it away."""
    return body + hashlib.sha256(body).hexdigest().encode()


def by_zipfile(parts: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as Python writes it, with the digest of a bundle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in parts:
            info = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
            info.filename, info.compress_type = name, method
            archive.writestr(info, data)
        archive.comment = b"0" * 64
    return sealed(stream.getvalue()[:-64])


def canonical(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """As edgebm writes it, but with any names in any order."""
    body, entries = directory_of(parts)
    return sealed(body + container._directory(entries, len(body)))


def directory_of(
    parts: Sequence[tuple[bytes, bytes]],
) -> tuple[bytes, list[container._Entry]]:
    """Members one after the other, and what a directory says of them."""
    body, entries = b"", []
    for name, data in parts:
        entries.append(container._Entry(name, zlib.crc32(data), len(data), len(body)))
        body += entries[-1].local() + data
    return body, entries


def renamed(old: str, new: str) -> bytes:
    """A bundle with one member under another name."""
    parts = [(new if name == old else name, data) for name, data in members().items()]
    return canonical([(name.encode(), data) for name, data in parts])


def golden_replaced(raw: bytes) -> bytes:
    """A bundle with `raw` as the first golden input, and its hash in the manifest."""
    name = "golden/0/inputs/0.npy"
    entry = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    parts = members()
    manifest = json.loads(parts[MANIFEST])
    manifest["members"][name] = entry
    return pack({**parts, name: raw, MANIFEST: json.dumps(manifest).encode()})
