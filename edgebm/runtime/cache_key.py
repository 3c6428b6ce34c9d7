"""What a compiled model depends on. Where one of these facts differs, it is not used."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgebm.errors import EngineStale
from edgebm.runtime.cpu import arch, cpu_identity
from edgebm.spec import EngineConfig, Manifest, Variant

FORMAT = 1  # of the files, their headers and their keys
Facts = Mapping[str, Any]
# Variables that change what OpenVINO and its kernels compile to.
_SWITCHES = ("DNNL_", "ONEDNN_", "OPENVINO_", "OV_")
_MACHINE_ID = Path("/etc/machine-id")


def model_facts(manifest: Manifest, variant: Variant, config: EngineConfig) -> dict[str, Any]:
    """Which model, and how it shall be run: what a bundle and its caller choose.

    The artifact is named by the hashes in the manifest, which reading the bundle has checked.
    """
    members = {short: manifest.members[name] for short, name in variant.files.items()}
    return {
        "artifact": {short: [m.sha256, m.size] for short, m in members.items()},
        "inputs": [asdict(spec) for spec in manifest.inputs],
        "outputs": [asdict(spec) for spec in manifest.outputs],
        "runtime": variant.runtime,
        "config": asdict(config),
    }


def place_facts(vendor: Facts) -> dict[str, Any]:
    """Where it runs: this edgebm, the vendor's exact build, processor, system and device.

    Raises:
        EngineStale: the processor cannot be told from another one.
    """
    if not cpu_identity():
        raise EngineStale("the system does not say which processor this is")
    return {
        "format": FORMAT,
        # The package that is running, whatever is installed beside it.
        "edgebm": str(getattr(sys.modules.get("edgebm"), "__version__", "")),
        "vendor": dict(vendor),
        "processor": cpu_identity(),
        "system": {
            "name": platform.system(),
            "arch": arch(),
            "libc": _libc(),
            "pointer_bytes": struct.calcsize("P"),
            "byte_order": sys.byteorder,
        },
        # A disk image that is copied to other devices does not take its cache along.
        "device": _machine_id(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(_SWITCHES)},
    }


def digest(facts: Facts) -> bytes:
    """SHA-256 of facts, the same for equal facts in any order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


def differing(old: Facts, new: Facts) -> list[str]:
    """The facts that are not equal, such as "vendor.version"."""
    names = []
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names += [f"{key}.{inner}" for inner in differing(one, other)]
        elif one != other:
            names.append(key)
    return names


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library, which has no such name
        return "other"


def _machine_id() -> str:
    try:
        return _MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # containers have none
        return ""
