"""The container of a bundle: a zip archive with exactly one way to write it.

Members are stored, never compressed; `manifest.json` comes first and the others follow in
order of name, without gaps. Every header field has one legal value (date 1980-01-01, UTF-8
names, no extra fields, no zip64, no data descriptors). The archive comment is the SHA-256, in
hex, of every byte before it. Any zip tool can list a bundle; the reader here takes nothing a
general zip reader would forgive.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgebm.errors import BundleCorrupt, BundleFormat, UsageError

MANIFEST = "manifest.json"
SIGNATURE = "SIGNATURE"
DIGEST_BYTES = 64
MAX_BYTES = 0xFFFF_FFFE
MAX_MEMBERS = 4096
MAX_NAME_BYTES = 255

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_VERSION, _MADE_BY, _FLAGS, _STORED = 20, 3 << 8 | 20, 0x0800, 0
_TIME, _DATE = 0, 0x0021
_MODE = 0o100644 << 16
Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        fields = (_VERSION, _FLAGS, _STORED, _TIME, _DATE, self.crc, self.size, self.size)
        return _LOCAL.pack(_LOCAL_MAGIC, *fields, len(self.name), 0) + self.name

    def central(self) -> bytes:
        fields = (_FLAGS, _STORED, _TIME, _DATE, self.crc, self.size, self.size, len(self.name))
        head = _CENTRAL.pack(
            _CENTRAL_MAGIC, _MADE_BY, _VERSION, *fields, 0, 0, 0, 0, _MODE, self.offset
        )
        return head + self.name

    @property
    def data_at(self) -> int:
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        return self.data_at + self.size


def name_fault(name: str) -> str:
    """Why `name` may not be a member, or an empty string."""
    if not name or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"is empty or longer than {MAX_NAME_BYTES} bytes"
    if any(ord(char) < 32 or ord(char) == 127 for char in name) or not name.isprintable():
        return "holds a control character"
    if "\\" in name or ":" in name:
        return "holds a backslash or a colon"
    if any(part in {"", ".", ".."} for part in name.split("/")):
        return "is absolute, or holds an empty, '.' or '..' part"
    return ""


def ordered(names: list[str]) -> list[str]:
    """The one legal order of members."""
    return [MANIFEST, *sorted(name for name in names if name != MANIFEST)]


def pack(members: Mapping[str, bytes]) -> bytes:
    """The bytes of a container with these members; equal members give equal bytes.

    Raises:
        UsageError: a name is not allowed, the manifest is missing, or the size needs zip64.
    """
    if faults := [f"{name!r} {why}" for name in members if (why := name_fault(name))]:
        raise UsageError("these names cannot be bundle members: " + "; ".join(faults))
    if MANIFEST not in members or len(members) > MAX_MEMBERS:
        raise UsageError(f"a bundle needs {MANIFEST} and at most {MAX_MEMBERS} members")
    chunks: list[bytes] = []
    entries: list[_Entry] = []
    position = 0
    for name in ordered(list(members)):
        data = members[name]
        entry = _Entry(name.encode(), zlib.crc32(data), len(data), position)
        position = entry.end
        if position > MAX_BYTES:
            raise UsageError("the bundle would be 4 GiB or more", hint="use a smaller model")
        entries.append(entry)
        chunks += [entry.local(), data]
    chunks.append(_directory(entries, position))
    body = b"".join(chunks)
    return body + hashlib.sha256(body).hexdigest().encode()


def packed_size(sizes: Mapping[str, int]) -> int:
    """Bytes of a container whose members have these sizes."""
    names = sum(len(name.encode()) for name in sizes)
    headers = len(sizes) * (_LOCAL.size + _CENTRAL.size) + 2 * names
    return sum(sizes.values()) + headers + _END.size + DIGEST_BYTES


def unpack(data: bytes, where: str) -> dict[str, memoryview]:
    """Members in file order, as views into `data`.

    Raises:
        BundleCorrupt: the digest does not match the bytes.
        BundleFormat: the digest matches, but another program wrote or changed the archive.
    """
    view = memoryview(data)
    body = view[:-DIGEST_BYTES]
    if hashlib.sha256(body).hexdigest().encode() != view[-DIGEST_BYTES:]:
        raise BundleCorrupt(f"{where}: the bytes are not those that were written")
    members: dict[str, memoryview] = {}
    entries = _entries(data, where)
    position = 0
    for entry in entries:
        name = _name(entry.name, where)
        if name in members:
            raise BundleFormat(f"{where}: two members are named {name!r}")
        members[name] = view[entry.data_at : entry.end]
        if entry.offset != position or view[position : entry.data_at] != entry.local():
            raise BundleFormat(f"{where}: the header of {name!r} is not as edgebm writes it")
        if zlib.crc32(members[name]) != entry.crc:
            raise BundleFormat(f"{where}: the checksum of {name!r} is wrong")
        position = entry.end
    if view[position:-DIGEST_BYTES] != _directory(entries, position):
        raise BundleFormat(f"{where}: the directory of the archive is not as edgebm writes it")
    if list(members) != ordered(list(members)):
        raise BundleFormat(f"{where}: the members are not in order")
    return members


def has_head(data: Buffer) -> bool:
    """Whether the file starts as a bundle does."""
    start = bytes(data[: _LOCAL.size + len(MANIFEST)])
    return start[:4] == _LOCAL_MAGIC and start[_LOCAL.size :] == MANIFEST.encode()


def has_tail(data: Buffer) -> bool:
    """Whether the file ends as a bundle does."""
    end = bytes(data[-(_END.size + DIGEST_BYTES) :])
    return end[:4] == _END_MAGIC and end[_END.size - 2 : _END.size] == b"\x40\x00"


def first_member(data: Buffer) -> bytes:
    """The bytes of the first member as its own header counts them; cut where the file ends."""
    size = _LOCAL.unpack_from(data)[8]
    start = _LOCAL.size + len(MANIFEST)
    return bytes(data[start : start + size])


def _directory(entries: list[_Entry], position: int) -> bytes:
    central = b"".join(entry.central() for entry in entries)
    count = len(entries)
    end = _END.pack(_END_MAGIC, 0, 0, count, count, len(central), position, DIGEST_BYTES)
    return central + end


def _entries(data: bytes, where: str) -> list[_Entry]:
    fault = BundleFormat(f"{where}: the directory of the archive cannot be read")
    end = len(data) - DIGEST_BYTES - _END.size
    if end < 0 or not has_tail(data):
        raise fault
    count, at = (_END.unpack_from(data, end)[i] for i in (4, 6))
    if not 0 < count <= MAX_MEMBERS:
        raise BundleFormat(f"{where}: {count} members, of 1 to {MAX_MEMBERS} allowed")
    entries: list[_Entry] = []
    for _ in range(count):
        if at + _CENTRAL.size > end:
            raise fault
        fields = _CENTRAL.unpack_from(data, at)
        crc, size, length, offset = fields[7], fields[9], fields[10], fields[16]
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + length]
        entry = _Entry(name, crc, size, offset)
        if length > MAX_NAME_BYTES or entry.end > end:
            raise BundleFormat(f"{where}: a member reaches beyond the end of the file")
        entries.append(entry)
        at += _CENTRAL.size + length
    return entries


def _name(raw: bytes, where: str) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError as cause:
        raise BundleFormat(f"{where}: a member's name is not UTF-8") from cause
    if why := name_fault(name):
        raise BundleFormat(f"{where}: the member name {name!r} {why}")
    return name
