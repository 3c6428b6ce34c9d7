"""The results of the accuracy comparison as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EQUAL_DB = 150.0
RATIOS = ("ratio_to_float", "ratio_to_edgebm")


def table(result: Mapping[str, Any]) -> str:
    """One task as a markdown table, the best score first; below it what needs a sentence."""
    rows = sorted(result["rows"], key=lambda row: (-row["score"], row["name"]))
    top1, timed = any("p" in row for row in rows), any("ratio_to_float" in row for row in rows)
    head = ["", result["metric"], "drop", "worst SQNR dB", *["McNemar p"] * top1]
    head += ["latency / float", "latency / edgebm"] * timed + ["MB", "float / size", "seconds"]
    lines = [f"### {result['task']}", "", line(head), "|" + "---|" * len(head)]
    for row in rows:
        cells = [_name(row), f"{row['score']:.2f}", f"{row['drop']:+.2f}", _worst(row["sqnr_db"])]
        cells += [_chance(row["p"])] if top1 else []
        cells += [_ratio(row, key) for key in RATIOS] if timed else []
        cells += [f"{row['size_bytes'] / 1e6:.2f}", f"{row['size_ratio']:.2f}"]
        lines.append(line([*cells, f"{row['seconds']:.1f}"]))
    counts = [_integers(row) for row in rows if row.get("layers")]
    failed = [f"{name}: {why}" for name, why in result["failed"].items()]
    return "\n".join([*lines, *_parts(rows), *listed("", counts), *listed("Failed:", failed)])


def _parts(rows: list[dict[str, Any]]) -> list[str]:
    """SQNR of each output or column, where there is more than one."""
    names = list(rows[0]["sqnr_db"])
    if len(names) < 2:
        return []
    head = ["", line(["SQNR dB", *names]), "|" + "---|" * (len(names) + 1)]
    body = (line([row["name"], *(db(row["sqnr_db"][n]) for n in names)]) for row in rows)
    return [*head, *body]


def listed(title: str, sentences: list[str]) -> list[str]:
    """A list in markdown, with an empty line before; nothing where there are no sentences."""
    return ["", *[title] * bool(title), *(f"- {each}" for each in sentences)] if sentences else []


def _integers(row: Mapping[str, Any]) -> str:
    return f"{row['name']}: {', '.join(f'{n} {kind}' for kind, n in row['layers'].items())}"


def line(cells: list[str]) -> str:
    """A row of a table in markdown."""
    return f"| {' | '.join(cells)} |"


def _name(row: Mapping[str, Any]) -> str:
    name = f"**{row['name']}**" if row["name"].startswith("edgebm") else row["name"]
    missed = "" if row.get("constraints_met", True) else ", limit missed"
    return f"{name} ({row['detail']}{missed})" if row.get("detail") else name


def _worst(decibels: Mapping[str, float]) -> str:
    return db(min(decibels.values()))


def db(value: float) -> str:
    """Decibels, or that the answers are those of the float model."""
    return "equal" if value >= EQUAL_DB else f"{value:.1f}"


def _chance(p: float) -> str:
    return f"{p:.2f}" if p >= 0.01 else f"{p:.0e}"


def _ratio(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if row.get(key) else ""
