"""The results on recurrent networks as text, beside what they have to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accuracy_table import db, line, listed
from peer_table import NO_WORSE
from spoken import DYNAMIC

# How many times as fast as the faster float runtime.
SPEED = {"lstm512": 3.3, "gru512": 1.8, "bilstm512": 2.0}
LOST, AGREED = 1, 99.0  # clips of the test set at most, percent of clips and copies at least
OVER_US, CELL_ERROR = 5.0, 0.06
Row = Mapping[str, Any]


def sequences_table(result: Row) -> str:
    """One network at one number of threads, the fastest first; below it the goals."""
    count, clips = result["threads"], result["clips"]
    head = ["", "p50 ms", "float / it", "MB", f"right of {clips}", "agrees %"]
    head += [f"agrees % of {result['copies']} copies", "SQNR dB", "recurrent layers"]
    lines = [f"### {result['task']}, {_threads(count)}", "", line(head), "|" + "---|" * len(head)]
    for row in sorted(result["rows"], key=lambda row: row["p50_ms"]):
        cells = [_name(row), f"{row['p50_ms']:.3f}", f"{1 / row['ratio_to_float']:.2f}"]
        cells += [f"{row['size_bytes'] / 1e6:.2f}", f"{row['right']}", f"{row['agrees']:.1f}"]
        cells += [f"{row['agrees_copies']:.2f}", db(row["sqnr_db"]), row["cells"]]
        lines.append(line(cells))
    failed = [f"{name}: {why}" for name, why in result["failed"].items()]
    lines += ["", *sequence_goals(result), *listed("Failed:", failed)]
    return "\n".join([*lines, *listed("", result["notes"])])


def sequence_goals(result: Row) -> Iterator[str]:
    """A sentence for each goal, about what `compress` has chosen."""
    rows = {row["name"]: row for row in result["rows"]}
    own, task = next(row for row in result["rows"] if row["chosen"]), result["task"]
    others = {name: row for name, row in rows.items() if not name.startswith("edgebm")}
    if task in SPEED:
        times = 1 / own["ratio_to_float"]
        yield _goal(f"{times:.2f} times as fast as float", f"{SPEED[task]}", times >= SPEED[task])
    if task == "lstm512" and DYNAMIC in rows:
        times = rows[DYNAMIC]["ratio_to_edgebm"]
        yield _goal(f"{times:.2f} times as fast as {DYNAMIC}", "more than 1", times > 1)
    if task == "lstm128":
        best = min(others.values(), key=lambda row: row["ratio_to_edgebm"])
        times = best["ratio_to_edgebm"]
        yield _goal(
            f"{times:.2f} times as fast as the fastest of the others, {best['name']} "
            f"({best['right']} right, {best['agrees_copies']:.1f} % of the copies agree)",
            f"{NO_WORSE}",
            times >= NO_WORSE,
        )
    lost, agreed = own["lost"], own["agrees_all"]
    yield _goal(
        f"{lost} clips lost, {agreed:.2f} % of clips and copies agree",
        f"at most {LOST}, at least {AGREED:g} %",
        lost <= LOST and agreed >= AGREED,
    )


def streams_table(result: Row) -> str:
    """Steps of one network, the fastest first; below it what was compared with what."""
    head = ["", "us / step", "float / it", "MB", "recurrent layers"]
    lines = [f"### {result['task']}, one step at a time, 1 thread", ""]
    lines += [line(head), "|" + "---|" * len(head)]
    for row in sorted(result["rows"], key=lambda row: row["us"]):
        cells = [_name(row), f"{row['us']:.1f}", f"{result['float_us'] / row['us']:.2f}"]
        lines.append(line([*cells, f"{row['size_bytes'] / 1e6:.2f}", row["cells"]]))
    failed = [f"{name}: {why}" for name, why in result["failed"].items()]
    lines += ["", *stream_goals(result), *listed("Failed:", failed)]
    return "\n".join([*lines, *listed("", result["notes"])])


def stream_goals(result: Row) -> Iterator[str]:
    """A sentence for each goal, about what `compress --streaming` has chosen."""
    over, error, limit = result["over_us"], result["error"], result["tolerance"]
    yield _goal(
        f"a step of {result['chosen']} is {over:+.1f} us over the vendor's {result['way']} call "
        "with the same copy of the states",
        f"at most {OVER_US:g} us",
        over <= OVER_US,
    )
    yield _goal(
        f"relative error {error:.2g} against the float model's run of whole sequences",
        f"at most the stored tolerance, {limit:.2g}",
        error <= limit,
    )
    yield _goal(
        f"{result['unequal']} of {result['clips']} streams differ from calls of `run` with the "
        "states handed on",
        "none",
        not result["unequal"],
    )
    yield (
        f"- memory grew by {result['grown_kib']} KiB over {result['steps']} steps; the mean score "
        f"over the steps is right for {result['right']} of {result['clips']} clips, float's "
        f"for {result['float_right']}; the worst clip has a relative error of "
        f"{result['worst_error']:.2g}"
    )


def cells_table(rows: Sequence[Row]) -> str:
    """The relative error of single INT8 cells."""
    head = ["cell", "bias", "ran in", "relative error", "last step"]
    lines = ["### One INT8 cell with random weights, hidden 512, 100 steps, OpenVINO", ""]
    lines += [line(head), "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["op"], row["bias"], row["ran"], f"{row['error']:.4f}", f"{row['last']:.4f}"]
        lines.append(line(cells))
    worst = max(row["error"] for row in rows)
    met = worst <= CELL_ERROR and all(row["ran"] == "int8" for row in rows)
    goal = _goal(f"{worst:.3f} at most", f"{CELL_ERROR}, in int8", met)
    return "\n".join([*lines, "", goal])


def _goal(seen: str, wanted: str, met: object) -> str:
    return f"- {'met' if met else 'MISSED'}: {seen} (goal: {wanted})"


def _name(row: Row) -> str:
    if not row["name"].startswith("edgebm"):
        return str(row["name"])
    return f"**{row['name']}**{', chosen' * row['chosen']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
