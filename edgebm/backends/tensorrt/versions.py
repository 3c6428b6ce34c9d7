"""Versions of TensorRT: those the rules are known for, and how people write them."""

from __future__ import annotations

import re

from edgebm.errors import UsageError

Version = tuple[int, int]

OLDEST: Version = (10, 3)
NEWEST: Version = (11, 4)
KNOWN: tuple[Version, ...] = (
    *((10, minor) for minor in range(3, 17)),
    *((11, minor) for minor in range(5)),
)
# Patch and build numbers decide nothing here: 10.3.0.26 is 10.3.
_WRITTEN = re.compile(r"(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d{1,6}){0,2}")


def version_text(version: Version) -> str:
    """`10.3` for (10, 3)."""
    return f"{version[0]}.{version[1]}"


def parse_version(text: str) -> Version:
    """The version that `text` names: `10.3`, `10.3.0` or `10.3.0.26`.

    Raises:
        UsageError: it reads as no version, is outside of 10.3 to 11.4, or was never released.
    """
    found = _WRITTEN.fullmatch(text.strip())
    known = ", ".join(map(version_text, KNOWN))
    if found is None or found[2] is None:
        major = int(found[1]) if found else None
        if major is not None and major < OLDEST[0]:
            raise _too_old(text)
        raise UsageError(
            f"'{text}' is no version of TensorRT such as {version_text(OLDEST)}",
            hint=f"known are {known}",
        )
    version = (int(found[1]), int(found[2]))
    if version in KNOWN:
        return version
    if version[0] < OLDEST[0]:
        raise _too_old(text)
    if version < OLDEST:
        where = f"older than {version_text(OLDEST)}, the oldest that is handled"
    elif version > NEWEST:
        where = f"newer than {version_text(NEWEST)}, the newest whose rules are known"
    else:
        where = "not among the releases that are known"
    raise UsageError(f"TensorRT {text} is {where}", hint=f"known are {known}")


def _too_old(text: str) -> UsageError:
    return UsageError(
        f"TensorRT {text} is not handled: it is older than {version_text(OLDEST)}, which comes "
        "with JetPack 6.1 (JetPack 5 and 6.0 have 8.x)",
        hint="update to JetPack 6.1 or newer, or run the model on ONNX Runtime there",
    )
