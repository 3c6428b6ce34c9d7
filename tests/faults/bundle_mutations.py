"""Damaged and hostile bundles without end, and what the reader makes of each.

Most have headers, hashes and checksums that fit, so that they reach the rules behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from fault_bundles import DATA, canonical, sealed

from edgebm.errors import BundleError
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import DIGEST_BYTES, MANIFEST, pack
from edgebm.runtime.states import States
from edgebm.runtime.strict_json import parse_json
from edgebm.runtime.values import ValueRules

# Free axes, states, stored initial states and index limits are among them.
SOURCES = tuple(DATA / f"{name}.edgebm" for name in ("echo", "tokens", "chunks", "dtypes"))
ACCEPTED = "accepted"
_NAMES = (
    b"", b"/", b"../x", b"a//b", b".", b"a\\b", b"C:x", b"\xff\xfe", b"x\0y", b"n" * 255,
    b"n" * 256, b"\xc3\xa9", b"manifest.json", b"SIGNATURE", b"golden/0/inputs/0.npy",
    b"golden/9/inputs/0.npy",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**40, 2**63 - 1, 2**63, 2**64, 10**300, 0.5, -0.0,
    1e308, "", "x", "\0", "\ud800", "\U0001f600", "../x", "n" * 300, "float32", "int64", "object",
    "f4", ">f4", "openvino", "golden/0/inputs/0.npy", MANIFEST, "0" * 64, [], {}, [[]],
    {"a": {}}, [1, 0], [0, 1e9],
)  # fmt: skip
_TEXTS = (
    b"{", b"}", b"[", b'"', b"\\", b",", b":", b"NaN", b"1e999", b"\\ud800", b"\xff", b"null",
)  # fmt: skip


class Mutations:
    """Makes one mutated bundle after the other; equal seeds make equal ones."""

    def __init__(self, seed: int, sources: Sequence[Path] = SOURCES) -> None:
        self._chance = random.Random(seed)
        self._sources = []
        for path in sources:
            members = read_bundle(path).members.items()
            parts = {name: bytes(data) for name, data in members}
            self._sources.append((path.read_bytes(), parts))
        # Manifests have the most rules.
        self._kinds: Sequence[_Kind] = (
            *(_raw, _resealed, _renamed, _manifest_text, _member),
            *[_manifest] * 3,
        )

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """The kind of each mutation, and the bytes."""
        while True:
            kind = self._chance.choice(self._kinds)
            data, parts = self._chance.choice(self._sources)
            yield kind.__name__.strip("_"), kind(self._chance, data, parts)


_Kind = Callable[[random.Random, bytes, dict[str, bytes]], bytes]


def verdict(path: Path, data: bytes) -> str:
    """Read `data` as a bundle through `path`: `ACCEPTED`, or the code of the `BundleError`.

    What is accepted must be what was written, to the last byte; any other error comes out.
    """
    _put(path, data)
    try:
        bundle = read_bundle(path)
        for index in range(bundle.manifest.golden):
            bundle.golden(index)
        for variant in bundle.manifest.variants:
            bundle.files(variant)
        States(bundle.manifest, bundle.initial, ValueRules())
    except BundleError as error:
        return error.code
    parts = {name: bytes(member) for name, member in bundle.members.items()}
    assert pack(parts) == data
    written = json.loads(json.dumps(bundle.manifest.to_dict()))
    assert written == parse_json(parts[MANIFEST], MANIFEST)
    return ACCEPTED


def _put(path: Path, data: bytes) -> None:
    """Replace the content in place: file systems take a millisecond to empty a file first."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))
    finally:
        os.close(handle)


def _raw(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    """Damage as of a disk or a cable."""
    return _damaged(chance, data)


def _resealed(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    """Damage that the hash of the file belongs to; mostly in the directory at its end."""
    body = data[:-DIGEST_BYTES]
    names = sum(len(name.encode()) + 46 for name in parts)
    start = len(body) - names - 22 if chance.random() < 0.7 else 0
    return sealed(body[:start] + _damaged(chance, body[start:]))


def _renamed(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    """Members that are missing, doubled, renamed or in another order."""
    listed = [(name.encode(), member) for name, member in parts.items()]
    for _ in range(chance.randint(1, 2)):
        at, other = chance.randrange(len(listed)), chance.randrange(len(listed))
        how = chance.randrange(5)
        if how == 0 and len(listed) > 1:
            del listed[at]
        elif how == 1:
            listed.insert(other, listed[at])
        elif how == 2:
            listed[at], listed[other] = listed[other], listed[at]
        elif how == 3:
            listed[at] = (chance.choice(_NAMES), listed[at][1])
        else:
            listed[at] = (listed[at][0], chance.choice((b"", b"{}", listed[other][1])))
    return canonical(listed)


def _manifest_text(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    raw = bytearray(parts[MANIFEST])
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(raw))
        how = chance.randrange(4)
        if how == 0:
            raw[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            raw[at:at] = chance.choice(_TEXTS)
        elif how == 2:
            raw[at : at + chance.randint(1, 9)] = chance.choice(_TEXTS)
        else:
            raw[at:at] = b"[" * chance.choice((3, 31, 32, 33, 500))
    return pack({**parts, MANIFEST: bytes(raw)})


def _manifest(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    """A manifest of strict JSON with other fields."""
    manifest = json.loads(parts[MANIFEST])
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _change(chance, chance.choice(list(_places(manifest))))
    return pack({**parts, MANIFEST: json.dumps(manifest).encode()})


def _member(chance: random.Random, data: bytes, parts: dict[str, bytes]) -> bytes:
    """A member that is changed together with its hash and size in the manifest."""
    arrays = [name for name in parts if name.endswith(".npy")]
    name = chance.choice(arrays)
    member = _damaged(chance, parts[name][: chance.choice((80, len(parts[name])))])
    manifest = json.loads(parts[MANIFEST])
    digest = hashlib.sha256(member).hexdigest()
    manifest["members"][name] = {"sha256": digest, "size": len(member)}
    return pack({**parts, name: member, MANIFEST: json.dumps(manifest).encode()})


def _damaged(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\0"
    at, size = chance.randrange(len(data)), chance.choice((1, 4, 16, 512))
    how = chance.randrange(6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + data[at + size :]
    if how == 2:
        return data[:at] + chance.randbytes(size) + data[at:]
    if how == 3:
        other = chance.randrange(len(data))
        return data[:at] + data[other : other + size] + data[at + size :]
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed))
        changed[at] = chance.choice((changed[at] ^ 1 << chance.randrange(8), 0, 0xFF))
    return bytes(changed)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every dict or list in `tree` with each of its keys or places."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(inside):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _change(chance: random.Random, place: tuple[Any, Any]) -> None:
    tree, key = place
    value, how = tree[key], chance.randrange(8)
    if how == 0:
        del tree[key]
    elif how == 1 and isinstance(tree, list):
        tree.insert(key, deepcopy(value))
    elif how == 2 and isinstance(tree, dict):
        tree[chance.choice((*tree, "x", ""))] = tree.pop(key)
    elif how == 3:
        tree[key] = [value]
    elif how == 4 and type(value) is int:
        tree[key] = chance.choice((value + 1, value - 1, value * 2, value << 40))
    elif how == 5:
        others = list(tree.values() if isinstance(tree, dict) else tree)
        tree[key] = deepcopy(chance.choice(others))
    else:
        # A copy: what is put in may be changed next, and would be another value from then on.
        tree[key] = deepcopy(chance.choice(_VALUES))
