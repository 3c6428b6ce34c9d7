"""Open a bundle: read it once, believe nothing, give out verified bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BundleCorrupt, BundleError, BundleFormat, ResourceError, UsageError
from edgebm.runtime.container import (
    DIGEST_BYTES,
    MANIFEST,
    MAX_BYTES,
    SIGNATURE,
    first_member,
    has_head,
    has_tail,
    packed_size,
    unpack,
)
from edgebm.runtime.npy import read_npy
from edgebm.runtime.schema import read_manifest
from edgebm.runtime.states import check_initial
from edgebm.runtime.strict_json import parse_json
from edgebm.spec import Manifest, TensorSpec, Variant

_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x80", "a pickle or an old torch checkpoint", "compress the model: edgebm compress"),
    (b"\x93NUMPY", "a numpy array", ""),
    (b"\x89HDF", "an HDF5 or Keras weights file", "compress the model: edgebm compress"),
    (b"\x7fELF", "a program or shared library", ""),
    (b"ftrt", "a TensorRT engine", "compress the model: edgebm compress"),
    (b"<?xml", "an XML file, perhaps OpenVINO IR", "compress the model: edgebm compress"),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"PK\x03\x04", "a zip archive, but not a bundle", "compress the model: edgebm compress"),
)
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_HOST_HINT = "a bundle is what 'edgebm compress' writes, NAME.edgebm"
_COPY_HINT = "copy the bundle again, and compare its size with the original"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle in memory.

    `members` are views into one buffer, `digest` is the SHA-256 of the whole file in hex.
    `initial` are the stored initial states by the name of their input.
    """

    path: str
    manifest: Manifest
    members: Mapping[str, memoryview]
    digest: str
    size: int
    initial: Mapping[str, NDArray[Any]]

    def files(self, variant: Variant) -> dict[str, bytes]:
        """The artifact of a variant, by the short names its engine knows."""
        return {short: bytes(self.members[name]) for short, name in variant.files.items()}

    def golden(self, index: int) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        """Inputs and outputs of golden sample `index`, in the order of the manifest.

        Raises:
            BundleFormat: a member is missing, or is no array of the declared dtype and rank.
        """
        return (
            self._arrays(f"golden/{index}/inputs", self.manifest.inputs),
            self._arrays(f"golden/{index}/outputs", self.manifest.outputs),
        )

    def sample(self) -> dict[str, NDArray[Any]]:
        """The sample that candidates are timed on, by the names of the inputs.

        Raises:
            BundleFormat: it is missing, or no array of the declared dtype and rank.
        """
        return {
            spec.name: self._array(sample_member(k), spec)
            for k, spec in enumerate(self.manifest.inputs)
        }

    def _arrays(self, folder: str, specs: tuple[TensorSpec, ...]) -> tuple[NDArray[Any], ...]:
        return tuple(self._array(f"{folder}/{k}.npy", spec) for k, spec in enumerate(specs))

    def _array(self, name: str, spec: TensorSpec) -> NDArray[Any]:
        if name not in self.members:
            raise BundleFormat(f"{self.path}: {name} is missing")
        array = read_npy(bytes(self.members[name]), f"{self.path}: {name}")
        if array.dtype != np.dtype(spec.dtype) or array.ndim != len(spec.shape):
            raise BundleFormat(
                f"{self.path}: {name} is {array.dtype}{list(array.shape)}, "
                f"the manifest says {spec}"
            )
        return array


def sample_member(index: int) -> str:
    """The member that holds input `index` of the sample that candidates are timed on."""
    return f"candidates/sample/{index}.npy"


def read_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle; nothing is written, mapped or executed.

    Raises:
        BundleFormat: the file is something else, or was not written by edgebm.
        BundleCorrupt: it is a bundle whose bytes are not those that were written.
        BundleIncompatible: it is of another manifest version.
        ResourceError: it does not fit in memory, or no more files may be opened.
        UsageError: there is no such file, or it may not be read.
    """
    where = os.fspath(path)
    data = _read_once(where)
    if not has_head(data) and not has_tail(data):
        _refuse_kind(data, where)
    try:
        members = unpack(data, where)
    except BundleCorrupt as cause:
        raise _corrupt(data, where) from cause
    manifest = read_manifest(parse_json(bytes(members[MANIFEST]), f"{where}: {MANIFEST}"), where)
    _check_members(manifest, members, where)
    initial = {}
    for state in manifest.states:
        if state.initial:
            name = f"{where}: {state.initial}"
            initial[state.input] = read_npy(bytes(members[state.initial]), name)
            check_initial(manifest, state, initial[state.input], name)
    digest = hashlib.sha256(data).hexdigest()
    return Bundle(where, manifest, members, digest, len(data), initial)


def _read_once(where: str) -> bytes:
    # Without O_NONBLOCK, opening a FIFO waits for a writer for ever.
    try:
        handle = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as cause:
        raise UsageError(f"{where}: no such file", hint=_HOST_HINT) from cause
    except (OSError, ValueError) as cause:
        if isinstance(cause, OSError) and cause.errno in _SHORTAGES:
            raise ResourceError(
                f"{where}: cannot be opened: {cause}", hint="close files, or raise ulimit -n"
            ) from cause
        raise UsageError(f"{where}: cannot be opened: {cause}", hint=_HOST_HINT) from cause
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BundleFormat(f"{where}: is {kind}", hint=_HOST_HINT)
        if status.st_size > MAX_BYTES:
            raise BundleFormat(f"{where}: {status.st_size} bytes are more than a bundle can have")
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            return file.read()
    except MemoryError as cause:
        raise ResourceError(f"{where}: not enough memory to read it") from cause
    except OSError as cause:
        raise BundleCorrupt(f"{where}: cannot be read: {cause}") from cause
    finally:
        os.close(handle)


def _refuse_kind(data: bytes, where: str) -> None:
    if not data:
        raise BundleFormat(f"{where}: is empty", hint=_COPY_HINT)
    if b"PK\x03\x04".startswith(data[:4]) and len(data) < DIGEST_BYTES:
        raise BundleCorrupt(
            f"{where}: only the first {len(data)} bytes are there", hint=_COPY_HINT
        )
    for magic, kind, hint in _KINDS:
        if data.startswith(magic):
            raise BundleFormat(f"{where}: is {kind}", hint=hint or _HOST_HINT)
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise BundleFormat(f"{where}: is an HTML page", hint="download the file itself")
    if b"TFL3" in data[4:8]:
        raise BundleFormat(f"{where}: is a TFLite model", hint=_HOST_HINT)
    # An ONNX file starts with field 1 (IR version, a small number) of a protobuf message.
    if len(data) > 2 and data[0] == 0x08 and data[1] < 64:
        raise BundleFormat(f"{where}: looks like an ONNX model", hint="use: edgebm compress")
    raise BundleFormat(f"{where}: is not a bundle", hint=_HOST_HINT)


def _corrupt(data: bytes, where: str) -> BundleError:
    """Say what is wrong as exactly as the damaged bytes allow."""
    message = f"{where}: damaged: the hash of its {len(data)} bytes is not the one it carries"
    details = {"actual_bytes": len(data)}
    if has_head(data):
        try:
            raw = parse_json(first_member(data), MANIFEST)
            sizes = {name: int(member["size"]) for name, member in raw["members"].items()}
            expected = packed_size({**sizes, MANIFEST: len(first_member(data))})
        except (BundleError, KeyError, TypeError, ValueError, AttributeError):
            expected = len(data)
        if expected != len(data):
            message = f"{where}: damaged: it has {len(data)} bytes of {expected}"
            details["expected_bytes"] = expected
    return BundleCorrupt(message, hint=_COPY_HINT, details=details)


def _check_members(manifest: Manifest, members: Mapping[str, memoryview], where: str) -> None:
    present = members.keys() - {MANIFEST, SIGNATURE}
    extra = present - manifest.members.keys()
    faults = [f"{name} is missing" for name in sorted(manifest.members.keys() - present)]
    faults += [f"{name} is not in the manifest" for name in sorted(extra)]
    for name in sorted(present & manifest.members.keys()):
        member, data = manifest.members[name], members[name]
        if member.size != len(data):
            faults.append(f"{name} has {len(data)} bytes, the manifest says {member.size}")
        elif hashlib.sha256(data).hexdigest() != member.sha256:
            faults.append(f"{name} has another hash than the manifest says")
    for index in range(manifest.golden):
        counts = (("inputs", len(manifest.inputs)), ("outputs", len(manifest.outputs)))
        wanted = [f"golden/{index}/{kind}/{k}.npy" for kind, n in counts for k in range(n)]
        faults += [f"{name} is missing" for name in wanted if name not in members]
        if len(faults) > 20:
            break
    if faults:
        raise BundleCorrupt(
            f"{where}: " + "; ".join(faults[:20]), details={"extra_members": sorted(extra)}
        )
