"""Spearman's rank correlation, latency and size of bundles, as a table: before and after.

    python figures.py search/fp32.edgebm search/search.edgebm --folder search

All read the test pairs of STS-B as the device does, each sentence in its bucket, on one thread and
in turns. `--folder` is what train.py wrote.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pairs import Pairs, load_pairs, spearman
from texts import F32, TextModel, end

import edgebm

TURN = 100  # sentences that each bundle reads before the next one has its turn


def vectors_of(models: list[TextModel], texts: list[str]) -> list[F32]:
    """The vectors [n, width] of each model, which take turns."""
    parts: list[list[F32]] = [[] for _ in models]
    for at in range(0, len(texts), TURN):
        for model, made in zip(models, parts, strict=True):
            made.append(model.run(texts[at : at + TURN])[0])
    return [np.concatenate(made) for made in parts]


def scores_of(models: list[TextModel], pairs: Pairs) -> list[float]:
    """Spearman's rank correlation times 100 of each model."""
    first, second = vectors_of(models, pairs.first), vectors_of(models, pairs.second)
    return [spearman(a, b, pairs.scores) for a, b in zip(first, second, strict=True)]


def row_of(bundle: Path, model: TextModel, score: float) -> dict[str, Any]:
    """What one bundle reached."""
    report = model.session.report()
    return {
        "bundle": bundle.name,
        "runs_on": f"{report['runtime']} {report['precision']}, {report['threads']} thread",
        "spearman": score,
        "p50_ms": {
            tokens: float(np.median(times))
            for (_, tokens), times in sorted(model.tally.calls_ms.items())
        },
        "size_bytes": bundle.stat().st_size,
        "cut": model.tally.cut,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as columns, for a README; how much faster than the first one."""
    first = rows[0]
    lines = ["| " + " | ".join(["", *(row["bundle"] for row in rows)]) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    cells = {
        "Spearman x100, test pairs": [f"{row['spearman']:.2f}" for row in rows],
        "runs on": [row["runs_on"] for row in rows],
    }
    for tokens in first["p50_ms"]:
        times = [row["p50_ms"][tokens] for row in rows]
        cells[f"p50, {tokens} tokens"] = [
            f"{time:.2f} ms" + ("" if place == 0 else f", {times[0] / time:.2f} times as fast")
            for place, time in enumerate(times)
        ]
    cells["size"] = [f"{row['size_bytes'] / 1e6:.1f} MB" for row in rows]
    return "\n".join(lines + [f"| {name} | {' | '.join(cell)} |" for name, cell in cells.items()])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, help="the first is what it was before")
    parser.add_argument("--folder", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    pairs = load_pairs(options.folder / "test.jsonl")
    tokenizer = options.folder / "model" / "tokenizer.json"
    with ExitStack() as held:
        sessions = [held.enter_context(edgebm.load(path, threads=1)) for path in options.bundles]
        models = [TextModel(session, tokenizer) for session in sessions]
        scores = scores_of(models, pairs)
        rows = [row_of(*each) for each in zip(options.bundles, models, scores, strict=True)]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(end(main))
