"""Spots spoken digits in a WAV file or on a microphone. Needs numpy and edgebm, no torch.

    python device.py voice/int8.edgebm --wav voice/demo.wav
    arecord -f S16_LE -r 8000 -c 1 -t raw | python device.py voice/int8.edgebm --mic

Prints one line for each detection: seconds after the first sample, the word, its score.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from audio import AudioError, microphone_chunks, wav_chunks
from features import I16, RATE
from spotter import THRESHOLD, Listener

import edgebm


def sizes(text: str) -> list[int]:
    """Such as "800" or "1,7,333"."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="what compress.sh wrote")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", type=Path, help="mono, 16 bits; above 8 kHz it is converted")
    source.add_argument("--mic", action="store_true", help="raw int16 at 8 kHz on standard input")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="0 to 1")
    parser.add_argument(
        "--chunk",
        type=sizes,
        default=[800],
        metavar="SAMPLES",
        help="samples read at once; several (1,7,333) are used in turn. No result depends on it",
    )
    parser.add_argument("--scores", type=Path, help="write the scores of all frames to this .npy")
    parser.add_argument("--json", type=Path, help="write the real-time factor to this file, too")
    return parser.parse_args()


def listen(listener: Listener, chunks: Iterator[I16]) -> int:
    """Prints detections as they come; gives the number of samples heard."""
    heard = 0
    for chunk in chunks:
        heard += len(chunk)
        for found in listener.push(chunk):
            print(f"{found.time_s:9.3f} s  {found.word:<6}{found.score:.6f}", flush=True)
    return heard


def main() -> int:
    """Listen until the source ends or Ctrl-C."""
    chosen = options()
    try:
        chunks = (
            microphone_chunks(sys.stdin.buffer, chosen.chunk)
            if chosen.mic
            else wav_chunks(chosen.wav, chosen.chunk)
        )
        with edgebm.load(chosen.bundle, threads=chosen.threads) as session:
            with session.stream() as stream:
                listener = Listener(stream, chosen.threshold, keep=chosen.scores is not None)
                begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
                heard = listen(listener, chunks)
                spent_s = time.perf_counter() - begin_s
                cpu_s = time.process_time() - begin_cpu_s
            variant = session.report()
    except AudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except edgebm.EdgebmError as error:
        print(f"error: {error}\n{error.hint or ''}".rstrip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if chosen.scores:
        np.save(chosen.scores, np.array(listener.scores, np.float32))
    if chosen.wav:
        seconds = heard / RATE
        factors = {"wall": spent_s / seconds, "processor": cpu_s / seconds}
        print(
            f"{seconds:.1f} s of audio in {spent_s:.3f} s on {variant['runtime']}: "
            f"real-time factor {factors['wall']:.4f} (processor time {factors['processor']:.4f})",
            file=sys.stderr,
        )
        if chosen.json:
            chosen.json.write_text(json.dumps({"real_time_factor": factors}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
