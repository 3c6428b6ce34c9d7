"""Finds the sentences that mean the same, on the device: numpy, tokenizers and edgebm, no torch.

    python device.py search.edgebm --index sentences.npz --build sentences.txt
    python device.py search.edgebm --index sentences.npz --query "a man plays a guitar"
    python device.py search.edgebm --index sentences.npz < queries.txt

Without --build and --query each line of stdin is a query. tokenizer.json of the model's folder
lies beside the bundle. Answers go to stdout, what there is to say about the run to stderr.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from index import Index, hashes, load_index, unit
from texts import LENGTHS, Lines, TextModel, end

import edgebm

CHUNK = 4096  # lines that are tokenized and grouped at a time


def build(model: TextModel, sentences: Path, made_with: tuple[str, str]) -> Index:
    """The vectors of all lines of a file; says how long that took and what was cut or left out."""
    lines = Lines(str(sentences))
    found = lines.read_file(sentences)
    begun, parts = time.perf_counter(), []
    for at in range(0, len(found), CHUNK):
        some = found[at : at + CHUNK]
        vectors, cut = model.run([text for _, text in some])
        parts.append(unit(vectors))
        for place in np.flatnonzero(cut):
            print(f"{sentences}, line {some[place][0]}: cut off, too long", file=sys.stderr)
    seconds = time.perf_counter() - begun
    print(
        f"{len(found)} sentences in {seconds:.1f} s ({len(found) / seconds:.0f} a second), "
        f"{lines.damaged} lines left out that are no UTF-8, {lines.blank} blank",
        file=sys.stderr,
    )
    numbers = np.array([number for number, _ in found], np.int64)
    return Index(np.concatenate(parts), [text for _, text in found], numbers, made_with)


def answer(model: TextModel, index: Index, queries: Iterable[str], count: int) -> None:
    """Print the nearest sentences of each query, as the queries come."""
    for query in queries:
        vectors, cut = model.run([query])
        print(f"{query}{'  [cut off, too long]' if cut[0] else ''}")
        for score, number, text in index.nearest(vectors[0], count):
            print(f"  {score:.3f}  line {number:6}  {text}")
        sys.stdout.flush()


def lengths(text: str) -> tuple[int, ...]:
    """`16,32,64` as numbers; for argparse."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 3:
        raise ValueError("a bucket holds two marks and one word at least")
    return found


def main() -> int:
    """Load, then build the index or answer queries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--index", type=Path, required=True, help=".npz to write or to search")
    parser.add_argument("--build", type=Path, metavar="FILE", help="sentences, one a line")
    parser.add_argument("--query", action="append", help="may repeat; default: lines of stdin")
    parser.add_argument("-k", type=int, default=5, help="sentences to show for each query")
    parser.add_argument("--tokenizer", type=Path, help="default: tokenizer.json by the bundle")
    parser.add_argument("--lengths", type=lengths, default=LENGTHS, help="buckets, in tokens")
    parser.add_argument("--batch", type=int, default=1, help="sentences for one call of --build")
    options = parser.parse_args()
    if options.k < 1 or options.batch < 1:
        parser.error("-k and --batch must be 1 or more")
    if options.build and options.query:
        parser.error("--build writes an index and --query reads one: two calls")
    tokenizer = options.tokenizer or options.bundle.with_name("tokenizer.json")
    with edgebm.load(options.bundle) as session:
        batch = options.batch if options.build else 1
        model = TextModel(session, tokenizer, options.lengths, batch)
        made_with = hashes(options.bundle, tokenizer)
        if options.build:
            build(model, options.build, made_with).save(options.index)
        else:
            index = load_index(options.index, made_with)
            lines = Lines("stdin")
            typed = (text for _, text in lines.read(sys.stdin.buffer))
            answer(model, index, options.query or typed, options.k)
        report = session.report()
        print(f"{report['runtime']}, {report['precision']}: {model.tally}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(end(main))
