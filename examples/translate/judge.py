"""BLEU and speed of float and int8, by the search that runs on the device.

    python judge.py translate --data PATH
    python judge.py translate --data PATH --runtimes openvino onnxruntime

The second form takes what `COMPARE=1 sh compress.sh` wrote, and compares both precisions on each
runtime; the first takes the bundles as they were chosen. Turns of some sentences alternate between
the contenders, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from corpus import read
from sacrebleu.metrics.bleu import BLEU
from text import Text
from translator import Translator

import edgebm

TEST = "test_2016_flickr"
TURN = 50  # sentences
PAUSE_S = 0.05  # threads of a runtime go on spinning for a while


@dataclass
class Contender:
    """One precision on one runtime, with one width of the beam."""

    label: str
    runs: str
    beam: int
    translator: Translator
    lines: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def row(self, english: list[str], metric: BLEU) -> dict[str, Any]:
        """Its figures; steps in ms."""
        times = self.translator.times
        p50, p99 = np.percentile(times.step_ns, [50, 99]) / 1e6
        return {
            "bundles": self.label,
            "runs": self.runs,
            "beam": self.beam,
            "bleu": metric.corpus_score(self.lines, [english]).score,
            "decoder_tokens_per_s": times.per_second(times.step_ns),
            "all_tokens_per_s": times.per_second(times.sentence_ns),
            "step_p50_ms": float(p50),
            "step_p99_ms": float(p99),
            "mean_score": float(np.mean(self.scores)),
        }


def contenders(chosen: argparse.Namespace, stack: ExitStack) -> list[Contender]:
    """Every pair of bundles, opened once, greedy and with a beam."""
    text = Text(chosen.folder / "tokenizer.json")
    kinds: list[tuple[str, str, str]] = [(name, name, "auto") for name in chosen.bundles]
    if chosen.runtimes:
        kinds = [
            (f"{runtime} {precision}", "all", f"host/{runtime}/{precision}/t1")
            for runtime in chosen.runtimes
            for precision in ("f32", "int8")
        ]
    found = []
    for label, suffix, target in kinds:
        encoder, decoder = (
            stack.enter_context(
                edgebm.load(chosen.folder / f"{part}-{suffix}.edgebm", target, threads=1)
            )
            for part in ("encoder", "decoder")
        )
        reports = encoder.report(), decoder.report()
        runs = ", ".join(f"{each['runtime']} {each['precision']}" for each in reports)
        for beam in chosen.beams:
            stream = stack.enter_context(decoder.stream())
            found.append(Contender(label, runs, beam, Translator(encoder, stream, text, beam)))
    return found


def translate(found: list[Contender], german: list[str]) -> None:
    """All sentences by all contenders, in turns."""
    for first in range(0, len(german), TURN):
        for each in found:
            time.sleep(PAUSE_S)
            for sentence in german[first : first + TURN]:
                translation = each.translator(sentence)
                each.lines.append(translation.text)
                if translation.found:
                    each.scores.append(translation.found.score)


def show(rows: list[dict[str, Any]]) -> None:
    """A table for people."""
    print(
        "| bundles | encoder, decoder | beam | BLEU | tokens/s, decoder | with all else | "
        "step p50, p99 |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['bundles']} | {row['runs']} | {row['beam']} | {row['bleu']:.2f} | "
            f"{row['decoder_tokens_per_s']:.0f} | {row['all_tokens_per_s']:.0f} | "
            f"{row['step_p50_ms']:.3f}, {row['step_p99_ms']:.3f} ms |"
        )


def main() -> None:
    """Translate the test set with everything, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what train.py and compress.sh wrote")
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEBM_DATA"))
    parser.add_argument("--bundles", nargs="+", default=["fp32", "int8"], metavar="NAME")
    parser.add_argument("--runtimes", nargs="+", help="openvino, onnxruntime: needs COMPARE=1")
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 4], metavar="N")
    parser.add_argument("--limit", type=int, help="so many sentences only")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("name the folder of the data: --data PATH or EDGEBM_DATA=PATH")
    pairs = read(chosen.data, TEST)[: chosen.limit]
    metric = BLEU()
    with ExitStack() as stack:
        found = contenders(chosen, stack)
        translate(found, pairs.german)
        rows = [each.row(pairs.english, metric) for each in found]
    show(rows)
    print(f"\n{len(pairs)} sentences of {TEST}; {metric.get_signature()}")
    if chosen.json:
        figures = {"sentences": len(pairs), "signature": str(metric.get_signature()), "rows": rows}
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
