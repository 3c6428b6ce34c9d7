"""Plain tables for the device commands: click and the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; no line ends with a space."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def facts(pairs: Mapping[str, object]) -> str:
    """One `name  value` line for each pair."""
    width = max(map(len, pairs), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs.items())


def signature(found: Mapping[str, Any]) -> str:
    """What is known of the signatures of a bundle (`Proof.facts`), in a few words."""
    if found["signature"] == "valid":
        until = f", until {found['expires']}" if found["expires"] else ""
        return f"valid: by {', '.join(found['signed_by'])}, release {found['release']}{until}"
    if found["signature"] == "not checked":
        return f"not checked: it says by {', '.join(found['claimed_by'])}"
    return str(found["signature"])


def file_size(size: int) -> str:
    """A number of bytes for people, such as "1.25 MB"."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
