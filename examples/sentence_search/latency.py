"""Latency of bundles that read texts, by bucket and in turns, as a table: before and after.

    python latency.py search/fp32.edgebm search/search.edgebm search/test.jsonl

Each text of the file (.txt, or .jsonl with `text` and maybe `text_pair`) is read by every bundle
on one thread, a hundred texts at a time by turns, so that what else the machine does befalls all.
`../text_classify` uses this, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from texts import F32, Lines, TextModel, end

import edgebm
from edgebm.errors import DataError

TURN = 100  # texts that each bundle reads before the next one has its turn


@contextmanager
def opened(bundles: Sequence[Path], tokenizer: Path) -> Iterator[list[TextModel]]:
    """All bundles on one thread, with the same tokenizer."""
    with ExitStack() as held:
        sessions = [held.enter_context(edgebm.load(path, threads=1)) for path in bundles]
        yield [TextModel(session, tokenizer) for session in sessions]


def in_turns(models: Sequence[TextModel], texts: Sequence[str]) -> list[F32]:
    """The rows [n, width] that each model gives for the texts."""
    parts: list[list[F32]] = [[] for _ in models]
    for at in range(0, len(texts), TURN):
        for model, made in zip(models, parts, strict=True):
            made.append(model.run(texts[at : at + TURN])[0])
    return [np.concatenate(made) for made in parts]


def p50_ms(model: TextModel) -> dict[int, float]:
    """Median milliseconds of a call with one text, by its bucket in tokens."""
    calls = sorted(model.tally.calls_ms.items())
    return {tokens: float(np.median(times)) for (_, tokens), times in calls}


def table(bundles: Sequence[Path], models: Sequence[TextModel], scores: dict[str, str]) -> str:
    """One column a bundle, for a README; `scores` are rows by their name, cells joined."""
    reports = [model.session.report() for model in models]
    cells = dict(scores)
    cells["runs on"] = " | ".join(
        f"{each['runtime']} {each['precision']}, {each['threads']} thread" for each in reports
    )
    before, *after = (p50_ms(model) for model in models)
    for tokens, time in before.items():
        later = (
            f"{each[tokens]:.2f} ms, {time / each[tokens]:.2f} times as fast" for each in after
        )
        cells[f"p50 of a text, {tokens} tokens"] = " | ".join([f"{time:.2f} ms", *later])
    cells["size"] = " | ".join(f"{path.stat().st_size / 1e6:.1f} MB" for path in bundles)
    head = [
        f"| | {' | '.join(path.name for path in bundles)} |",
        "|---" * (len(bundles) + 1) + "|",
    ]
    return "\n".join([*head, *(f"| {name} | {cell} |" for name, cell in cells.items())])


def texts_of(path: Path) -> list[str]:
    """The texts of a `.txt` or `.jsonl` file.

    Raises:
        DataError: it cannot be read, or a line of a .jsonl file holds no text.
    """
    lines = Lines(str(path)).read_file(path)
    if path.suffix != ".jsonl":
        return [text for _, text in lines]
    found = []
    for number, line in lines:
        try:
            record = json.loads(line)
            found.append(str(record["text"]))
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(
                f"{path}, line {number} is no JSON object with a text",
                hint='a line is {"text": "..."}',
            ) from cause
        if "text_pair" in record:
            found.append(str(record["text_pair"]))
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, help="the first is what it was before")
    parser.add_argument("texts", type=Path, help=".txt or .jsonl")
    parser.add_argument("--tokenizer", type=Path, help="default: tokenizer.json by the first")
    parser.add_argument("--json", type=Path, help="also write the medians here")
    options = parser.parse_args()
    tokenizer = options.tokenizer or options.bundles[0].with_name("tokenizer.json")
    texts = texts_of(options.texts)
    with opened(options.bundles, tokenizer) as models:
        in_turns(models, texts)
        print(table(options.bundles, models, {}))
        if options.json:
            rows = [p50_ms(model) for model in models]
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(end(main))
