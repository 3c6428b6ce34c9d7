"""Spearman's rank correlation, latency and size of bundles, as a table: before and after.

    python figures.py search/fp32.edgebm search/search.edgebm --folder search

All read the test pairs of STS-B as the device does, each sentence in its bucket, on one thread and
in turns. `--folder` is what train.py wrote.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from latency import in_turns, opened, p50_ms, table
from pairs import load_pairs, spearman
from texts import end


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, help="the first is what it was before")
    parser.add_argument("--folder", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    pairs = load_pairs(options.folder / "test.jsonl")
    with opened(options.bundles, options.folder / "model" / "tokenizer.json") as models:
        sides = zip(in_turns(models, pairs.first), in_turns(models, pairs.second), strict=True)
        scores = [spearman(first, second, pairs.scores) for first, second in sides]
        told = " | ".join(f"{score:.2f}" for score in scores)
        print(table(options.bundles, models, {"Spearman x100, test pairs": told}))
        rows = [
            {
                "bundle": path.name,
                **{key: model.session.report()[key] for key in ("runtime", "precision")},
                "spearman": score,
                "p50_ms": p50_ms(model),
                "size_bytes": path.stat().st_size,
                "cut": model.tally.cut,
            }
            for path, model, score in zip(options.bundles, models, scores, strict=True)
        ]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(end(main))
