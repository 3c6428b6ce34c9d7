"""`edgebm run`: the session from the shell."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgebm.cli.options import trust_option
from edgebm.cli.output import emit_json, json_option, output_faults, refuse, write_file
from edgebm.cli.sequences import is_stream, stream_through
from edgebm.cli.text import table
from edgebm.errors import DataError
from edgebm.runtime.npy import npz_bytes
from edgebm.runtime.session import Session, load
from edgebm.spec import TensorSpec

Arrays = dict[str, NDArray[Any]]
EXAMPLE = """\
\b
Examples:
  edgebm run model.edgebm -i input.npz -o output.npz
  edgebm run model.edgebm -i image.npy --json
  edgebm run recurrent.edgebm -i frames.npz -o answers.npz
"""
# Longer outputs are given as figures only; -o has every value.
_PRINTED_VALUES = 1000
_WRITE_ONE = "write it with np.savez('input.npz', **{'input name': array})"


@click.command(epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--input",
    "source",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help=".npz with one array for each input, or .npy for a model with one input. Arrays with "
    "one axis more, or with more rows than a model of batch 1 takes, are run one by one. For a "
    "model with states one axis more is time, [samples, time, ...]: each sample is a stream of "
    "its own, which carries the states from frame to frame. States that are left out start at the "
    "model's initial values; those given are where each stream starts.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write outputs as .npz."
)
@click.option("--target", default="auto", show_default=True, help="Target or runtime to use.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: as measured.")
@trust_option
@click.option("--force", is_flag=True, help="Replace the output file if it is there.")
@json_option
def command(
    *,
    bundle: Path,
    source: Path,
    out: Path | None,
    target: str,
    threads: int | None,
    trust: tuple[Path, ...] | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run BUNDLE on the arrays of a file and print or write the outputs."""
    if out is not None:
        refuse(output_faults(out, option="--out", force=force, inputs=(bundle, source)))
    with load(bundle, target=target, threads=threads, trust=trust) as session:
        states = {state.input for state in session.states}
        arrays = read_arrays(source, session.inputs, states)
        start = time.perf_counter()
        answer = stream_through if is_stream(session, arrays) else run_through
        outputs, calls = answer(session, arrays)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        if out is not None:
            write_file(out, npz_bytes(outputs), force=force)
        result = _result(session, outputs, calls, elapsed_ms)
    if as_json:
        emit_json(result)
        return
    for warning in session.report()["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_table(outputs))
    click.echo(f"{calls} call(s) in {elapsed_ms:.2f} ms on {result['runtime']}", err=True)


def run_through(session: Session, arrays: Arrays) -> tuple[Arrays, int]:
    """The outputs of every sample, each answered by itself, and the number of calls."""
    feeds, stacked = split(arrays, session.inputs)
    answers = [session.run(feed) for feed in feeds]
    outputs = answers[0] if stacked is None else _join(answers, session.outputs, stacked)
    return outputs, len(feeds)


def read_arrays(
    source: Path, specs: Sequence[TensorSpec], states: Set[str] = frozenset()
) -> Arrays:
    """Arrays of a `.npy` or `.npz` file by input name; labels are left out.

    One unnamed array is the only input, or the only one that is not among `states`.

    Raises:
        DataError: no such file, not such a file, an array of objects, or one array for several
            inputs.
    """
    try:
        loaded = np.load(io.BytesIO(source.read_bytes()), allow_pickle=False)
        arrays = {"arr_0": loaded} if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except OSError as cause:
        raise DataError(
            f"{source} cannot be read: {cause.strerror or cause}", hint=_WRITE_ONE
        ) from cause
    except Exception as cause:  # zipfile, zlib and numpy each have errors of their own
        # numpy's own words about pickles tell the reader to trust the file.
        objects = "allow_pickle" in str(cause)
        why = "it holds no plain numeric arrays" if objects else str(cause)
        raise DataError(
            f"{source} cannot be read as .npy or .npz: {why}", hint=_WRITE_ONE
        ) from cause
    if "labels" not in {spec.name for spec in specs}:
        arrays.pop("labels", None)
    if set(arrays) != {"arr_0"}:
        return arrays
    names = [spec.name for spec in specs if spec.name not in states]
    if len(names) != 1:
        raise DataError(f"{source} holds one unnamed array, the model has the inputs {names}")
    return {names[0]: arrays["arr_0"]}


def split(arrays: Arrays, specs: Sequence[TensorSpec]) -> tuple[list[Arrays], bool | None]:
    """One feed for each call, and how to join the answers.

    Returns:
        Feeds, and None for one call with the arrays as they are, True if samples had an axis of
        their own, False if they were rows of the batch axis.

    Raises:
        DataError: the arrays have different numbers of samples.
    """
    known = {spec.name: spec for spec in specs}
    ways = {name: _way(known[name], x) for name, x in arrays.items() if name in known}
    many = {name: way for name, way in ways.items() if way is not None}
    if not many:
        return [arrays], None
    counts = {len(arrays[name]) for name in ways}
    if len(counts) != 1 or len(set(ways.values())) != 1 or counts == {0}:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in ways)
        raise DataError(f"the arrays are not the same number of samples: {shapes}")
    stacked = next(iter(many.values()))
    feeds = [
        {name: x[i] if stacked else x[i : i + 1] for name, x in arrays.items()}
        for i in range(counts.pop())
    ]
    return feeds, stacked


def _way(spec: TensorSpec, array: NDArray[Any]) -> bool | None:
    if array.ndim == len(spec.shape) + 1:
        return True
    rows = array.ndim == len(spec.shape) > 0 and spec.shape[0] == 1 and len(array) != 1
    return False if rows else None


def _join(answers: Sequence[Arrays], specs: Sequence[TensorSpec], stacked: bool) -> Arrays:
    joined = {}
    for spec in specs:
        parts = [answer[spec.name] for answer in answers]
        try:
            rows = not stacked and parts[0].ndim > 0 and parts[0].shape[0] == 1
            joined[spec.name] = np.concatenate(parts) if rows else np.stack(parts)
        except ValueError as cause:
            raise DataError(
                f"output {spec.name!r} has another shape for each sample",
                hint="run the samples one at a time",
            ) from cause
    return joined


def _result(session: Session, outputs: Arrays, calls: int, elapsed_ms: float) -> dict[str, Any]:
    report = session.report()
    described = {
        name: {
            "dtype": str(x.dtype),
            "shape": list(x.shape),
            "values": x.tolist() if x.size <= _PRINTED_VALUES else None,
        }
        for name, x in outputs.items()
    }
    return {
        "outputs": described,
        "calls": calls,
        "elapsed_ms": elapsed_ms,
        "runtime": f"{report['target']}/{report['runtime']} {report['runtime_version']}",
        "report": report,
    }


def _table(outputs: Arrays) -> str:
    rows = []
    for name, x in outputs.items():
        first = " ".join(f"{value:.5g}" for value in x.ravel()[:4].astype(np.float64))
        low, high = (x.min(), x.max()) if x.size else ("", "")
        rows.append((name, x.dtype, list(x.shape), low, high, first))
    return table(("output", "dtype", "shape", "min", "max", "first values"), rows)
