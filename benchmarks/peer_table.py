"""The results of the comparison as text."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from edgebm.runtime.cpu import cpu_name

NO_WORSE = 0.97
TOOLS = ("edgebm", "nncf", "openvino", "onnxruntime", "numpy")


def table(result: Mapping[str, Any]) -> str:
    """One comparison as a markdown table, fastest first; ratio = its latency / edgebm's."""
    rows = sorted(result["rows"], key=lambda row: row["p50_ms"])
    own = next((row["p50_ms"] for row in rows if row["name"] == "edgebm"), None)
    lines = [
        f"### {result['task']}, {result['threads']} thread{'s' * (result['threads'] > 1)}",
        "",
        f"| | {result['metric']} | p50 ms | ratio to edgebm | MB | quantize s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{row['p50_ms'] / own:.2f}" if own else ""
        name = (
            f"**{row['name']}** ({row['detail'].split(';')[0]})" if row["detail"] else row["name"]
        )
        cells = (f"{row['score']:.2f}", f"{row['p50_ms']:.3f}", ratio)
        size, seconds = row["size_bytes"] / 1e6, row["seconds"]
        lines.append(f"| {name} | {' | '.join(cells)} | {size:.2f} | {seconds:.1f} |")
    return "\n".join(lines)


def verdict(result: Mapping[str, Any], limit: float) -> str:
    """Whether edgebm is no slower than the fastest peer that keeps the accuracy."""
    rows = {row["name"]: row for row in result["rows"]}
    if "edgebm" not in rows:
        return ""
    own = rows.pop("edgebm")
    reference = rows["ONNX Runtime float"]["score"]
    kept = [row for row in rows.values() if row["score"] >= reference - limit]
    best = min(kept, key=lambda row: row["p50_ms"])
    ratio = best["p50_ms"] / own["p50_ms"]
    word = "no worse" if ratio >= NO_WORSE else "SLOWER"
    return (
        f"edgebm: {own['score'] - reference:+.2f} points of float; {ratio:.2f} times as fast as "
        f"the best peer that keeps {limit} points ({best['name']}): {word}."
    )


def environment() -> str:
    """Date, CPU and versions."""
    names = ", ".join(f"{tool} {version(tool)}" for tool in TOOLS)
    cores = len(os.sched_getaffinity(0))
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    return f"{today} · {cpu_name()}, {cores} cores · Python {platform.python_version()}, {names}"
