"""Write a bundle: equal content gives equal bytes, and the file appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgebm.errors import UsageError
from edgebm.runtime.bundle import sample_member
from edgebm.runtime.container import MANIFEST, SIGNATURE, pack
from edgebm.runtime.files import write_atomically
from edgebm.runtime.npy import npy_bytes
from edgebm.runtime.schema import read_manifest
from edgebm.runtime.strict_json import parse_json
from edgebm.spec import Manifest, Member

_ELSEWHERE = "choose another folder"
Arrays = Sequence[NDArray[Any]]


def write_bundle(
    path: Path, manifest: Manifest, members: Mapping[str, bytes], *, force: bool = False
) -> Path:
    """Write `manifest` and `members` to `path` and return it.

    `manifest.members` is filled in here. The bytes depend on the arguments only.

    Raises:
        UsageError: the path exists (without `force`), is a directory or cannot be written, or a
            member's name is not allowed.
        BundleFormat: the manifest would be refused by the reader.
    """
    path = Path(path)
    check_destination(path, force=force)
    if taken := sorted({MANIFEST, SIGNATURE} & members.keys()):
        raise UsageError(f"the member names {taken} are the container's own")
    hashes = {
        name: Member(hashlib.sha256(data).hexdigest(), len(data))
        for name, data in sorted(members.items())
    }
    raw = _manifest_bytes(replace(manifest, members=hashes))
    read_manifest(parse_json(raw, MANIFEST), str(path))
    write_atomically(path, pack({MANIFEST: raw, **members}))
    return path


def check_destination(path: Path, *, force: bool = False, inputs: Iterable[object] = ()) -> None:
    """Refuse an output path before hours of work, not after.

    Raises:
        UsageError: it exists (without `force`), is one of the files among `inputs` or a
            directory, or its folder is missing or not writable.
    """
    given = [Path(each) for each in inputs if isinstance(each, str | Path)]
    if any(path.is_file() and each.exists() and path.samefile(each) for each in given):
        raise UsageError(f"{path} is an input", hint="give the bundle a name of its own")
    if path.is_dir():
        raise UsageError(f"{path} is a directory", hint="name a file, such as model.edgebm")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="use --force to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", hint="make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {path.parent} is not writable", hint=_ELSEWHERE)
    try:
        # Some file systems tell only when it is tried.
        tempfile.TemporaryFile(prefix=f".{path.name[:40]}.", dir=path.parent).close()
    except OSError as cause:
        raise UsageError(
            f"no file can be made in {path.parent}: {cause.strerror}", hint=_ELSEWHERE
        ) from cause


def golden_members(inputs: Sequence[Arrays], outputs: Sequence[Arrays]) -> dict[str, bytes]:
    """Members for golden samples: `inputs[i][k]` is input `k` of sample `i`; outputs alike."""
    members = {}
    for kind, samples in (("inputs", inputs), ("outputs", outputs)):
        for i, arrays in enumerate(samples):
            for k, array in enumerate(arrays):
                members[f"golden/{i}/{kind}/{k}.npy"] = npy_bytes(array)
    return members


def sample_members(arrays: Arrays) -> dict[str, bytes]:
    """Members for the sample that candidates are timed on: `arrays[k]` is input `k`."""
    return {sample_member(k): npy_bytes(array) for k, array in enumerate(arrays)}


def _manifest_bytes(manifest: Manifest) -> bytes:
    text = json.dumps(
        manifest.to_dict(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    return (text + "\n").encode("utf-8")
