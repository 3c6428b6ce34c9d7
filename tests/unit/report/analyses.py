"""Made-up analyses, as large and as hostile as wanted."""

from __future__ import annotations

from typing import Any

import numpy as np

NASTY = "<script>alert(1)</script> & $x_1$ \"q\" 'q' 深度 \x1b[31m\n"


def histogram(low: float, high: float, seed: int = 0) -> dict[str, Any]:
    values = np.clip(np.random.default_rng(seed).normal(size=2000), low, high)
    return {"low": low, "high": high, "counts": np.histogram(values, 64, (low, high))[0].tolist()}


def activation(**changes: Any) -> dict[str, Any]:
    given = {
        "value": "v",
        "low": -2.0,
        "high": 3.0,
        "seen_low": -2.0,
        "seen_high": 3.0,
        "common_low": -1.5,
        "common_high": 2.0,
        "clipped": 0.0,
        "db": 40.0,
        "channels": 8,
        "spread": 1.5,
        "median_peak": 2.0,
        **changes,
    }
    low, high = min(given["low"], given["seen_low"]), max(given["high"], given["seen_high"])
    return {**given, "histogram": histogram(low, high)}


def weight(**changes: Any) -> dict[str, Any]:
    given = {"low": -1.0, "high": 1.0, "channels": 8, "spread": 2.0, "db": 40.0, **changes}
    return {**given, "histogram": histogram(-1.0, 1.0, 1)}


def layer(name: str, alone: float | None, without: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "op": "Conv",
        "alone_db": alone,
        "without_db": without,
        "local_db": 30.0,
        "weight": weight(),
        "activation": activation(),
        "float_us": None,
        "int8_us": None,
        "lifted": False,
        **changes,
    }


def analysis(layers: list[dict[str, Any]], full_db: float | None = 20.0) -> dict[str, Any]:
    return {
        "samples": 8,
        "grid": "w7a8",
        "runtime": "openvino",
        "full_db": full_db,
        "layers": layers,
        "repair": None,
    }


def even(count: int, full_db: float = 20.0) -> dict[str, Any]:
    """`count` layers that are all as bad."""
    alone = full_db + 10 * float(np.log10(count))
    return analysis([layer(f"l{i}", alone, full_db + 0.1) for i in range(count)], full_db)


REPAIR: dict[str, Any] = {
    "candidate": "openvino/int8/t2",
    "lifted": ["l0"],
    "before": {"value": 90.12, "p50_ms": 0.441},
    "after": {"value": 92.31, "p50_ms": 0.486},
    "kept_gain": 0.87,
    "tried": [
        {"lifted": 2, "value": 91.0, "accepted": False},
        {"lifted": 1, "value": 92.31, "accepted": True},
    ],
}
CLASSES: dict[str, Any] = {
    "measure": "recall",
    "labels": ["stop", "yield", "ahead"],
    "counts": [40, 12, 7],
    "before": [99.0, 95.0, 50.0],
    "after": [98.5, 70.0, 50.0],
    "worst": {"class": "yield", "before": 95.0, "after": 70.0, "drop": 25.0},
}
