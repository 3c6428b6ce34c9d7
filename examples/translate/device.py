"""Translates German into English. Needs numpy, tokenizers and edgebm, no torch.

    python device.py translate --text "Ein Hund läuft durch den Schnee."
    python device.py translate --beam 4 --stats < german.txt

`translate` is a folder with `encoder-int8.edgebm`, `decoder-int8.edgebm` and `tokenizer.json`.
Each line of standard input gives a line of standard output; what had to be left out of one is
told on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from text import Text, TranslateError
from translator import Times, Translator

import edgebm


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="bundles and tokenizer.json")
    parser.add_argument("--text", help="translate this, and not standard input")
    parser.add_argument("--beam", type=_rows, default=1, metavar="N", help="hypotheses, 1 to 16")
    parser.add_argument("--precision", default="int8", help="which bundles: int8 or fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stats", action="store_true", help="tell how fast it was")
    return parser.parse_args()


def _rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 16")
    return int(text)


def sentences(chosen: argparse.Namespace) -> Iterator[str]:
    """The one given, or standard input line by line, as it comes.

    Raises:
        TranslateError: a line is not UTF-8.
    """
    if chosen.text is not None:
        yield from chosen.text.splitlines() or [""]
        return
    for number, raw in enumerate(sys.stdin.buffer, 1):
        yield decoded(raw, number).rstrip("\r\n")


def decoded(raw: bytes, number: int) -> str:
    """A line of the input as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise TranslateError(
            f"line {number} is not UTF-8 (byte {cause.start}): convert the text, with iconv for "
            "instance"
        ) from cause


def translate(translator: Translator, lines: Iterator[str]) -> None:
    """Prints a line for each line."""
    for number, line in enumerate(lines, 1):
        translation = translator(line)
        print(translation.text, flush=True)
        for loss in translation.losses:
            print(f"line {number}: {loss}", file=sys.stderr)


def tell(times: Times, runs: str) -> None:
    """How fast it was, on standard error."""
    if not times.step_ns:
        print(f"nothing was translated ({runs})", file=sys.stderr)
        return
    p50, p99 = np.percentile(times.step_ns, [50, 99]) / 1e6
    print(
        f"{runs}\n{len(times.sentence_ns)} sentences, {times.tokens} subwords: "
        f"{times.per_second(times.step_ns):.0f} a second in the decoder, "
        f"{times.per_second(times.sentence_ns):.0f} with all else\n"
        f"a step: p50 {p50:.3f} ms, p99 {p99:.3f} ms",
        file=sys.stderr,
    )


def run(chosen: argparse.Namespace) -> None:
    """Load, translate, tell."""
    text = Text(chosen.folder / "tokenizer.json")
    names = (f"{part}-{chosen.precision}.edgebm" for part in ("encoder", "decoder"))
    read, write = (edgebm.load(chosen.folder / name, threads=chosen.threads) for name in names)
    if not write.states:
        raise TranslateError(
            f"decoder-{chosen.precision}.edgebm keeps no states: it is another model; compress.sh "
            "makes the two that are needed"
        )
    with read, write, write.stream() as stream:
        translator = Translator(read, stream, text, chosen.beam)
        translate(translator, sentences(chosen))
        if chosen.stats:
            reports = read.report(), write.report()
            runs = "; ".join(f"{each['runtime']} {each['precision']}" for each in reports)
            tell(translator.times, f"encoder and decoder: {runs}")


def main() -> int:
    """Translate until the input ends or Ctrl-C."""
    try:
        run(options())
    except TranslateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except edgebm.EdgebmError as error:
        print(f"error: {error}\n{error.hint or ''}".rstrip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
