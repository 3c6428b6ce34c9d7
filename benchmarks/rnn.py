"""Recurrent networks: edgebm against NNCF + OpenVINO and ONNX Runtime; float, bf16 and INT8.

``python benchmarks/rnn.py`` compares LSTMs and GRUs on spoken digits, with whole clips and one
frame at a time, and the error of single INT8 cells with random weights. ``speech.py`` trains the
networks; those that are missing are skipped. What was built and answered stays in
``benchmarks/out/rnn`` and ``benchmarks/out/accuracy`` with a key of all that it depends on; times
are taken anew in every run. What has to be reached stands beside the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy import digest
from datasets import WORK
from own_tools import source_digest
from peer_table import environment
from rnn_cell import cell_errors
from rnn_own import Own, Wish, own
from rnn_sequences import compare_sequences
from rnn_streams import compare_streams
from rnn_table import cells_table, sequences_table, streams_table
from spoken import NAMES, Spoken, frames_model, missing, spoken

from edgebm.errors import UnsupportedModel

FOLDER = WORK / "rnn"
PARTS = ("sequences", "streams", "cells")


def bundles_of(task: Spoken, options: argparse.Namespace, *, streaming: bool) -> Own:
    """What edgebm makes of one network, with whole clips or one frame at a time."""
    model = frames_model(task.name) if streaming else task.model
    fixed = f"{digest(model, task.samples('calibration_300'))} {source_digest()}"
    threads = [1] if streaming else options.threads
    wish = Wish(task, threads, fixed, options.measure_s, streaming)
    folder = FOLDER / f"{task.name}{'_stream' * streaming}"
    if options.fresh:
        (folder / "own.json").unlink(missing_ok=True)
    return own(wish, model, folder)


def sequences(task: Spoken, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tables and figures of one network with whole clips."""
    bundles = bundles_of(task, options, streaming=False)
    for result in compare_sequences(task, bundles, options):
        yield sequences_table(result), result


def streams(task: Spoken, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same one frame at a time; a network that needs later frames is told of and left out."""
    try:
        bundles = bundles_of(task, options, streaming=True)
    except UnsupportedModel as error:
        yield f"{task.name}, one frame at a time: refused: {error}", {"refused": str(error)}
        return
    result = compare_streams(task, bundles, options)
    yield streams_table(result), result


def results(options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The part, a table in markdown and the figures of everything that was asked for."""
    compared = {"sequences": sequences, "streams": streams}
    for name in options.names or NAMES:
        if lacking := missing(name):
            yield "skipped", f"{name} is skipped: {lacking}", {"task": name, "why": lacking}
            continue
        for part in (each for each in compared if each in options.parts):
            for text, result in compared[part](spoken(name, options.limit), options):
                yield part, text, result
    if "cells" in options.parts:
        rows = list(cell_errors())
        yield "cells", cells_table(rows), {"rows": rows}


def main() -> None:
    """Run the comparisons that were named, print them, and store figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="default: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--turn-s", type=float, default=0.15, help="seconds of calls in a turn")
    parser.add_argument("--calls", type=int, default=1000, help="steps of a stream in a turn")
    parser.add_argument("--steps", type=int, default=100_000, help="to see if memory grows")
    parser.add_argument("--measure-s", type=float, default=60.0, help="of edgebm compress")
    parser.add_argument("--limit", type=int, help="test clips, for a quick look (default: 300)")
    parser.add_argument("--fresh", action="store_true", help="build and ask all anew")
    parser.add_argument("--json", type=Path, default=FOLDER / "result.json")
    parser.add_argument("--markdown", type=Path, default=FOLDER / "result.md")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"environment": environment()}
    tables = [environment()]
    print(tables[0], flush=True)
    for part, text, result in results(options):
        print("", text, sep="\n", flush=True)
        found.setdefault(part, []).append(result)
        tables.append(text)
        options.json.write_text(json.dumps(found, indent=1))
        options.markdown.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
