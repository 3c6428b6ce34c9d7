"""What a compression would do, in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebm.report.blame import printable, shortened
from edgebm.report.rows import runtime_name

_SHOWN = 12  # nodes of one reason


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """For each target what would be integers, what would not and why, and the candidates; time."""
    model, data = plan["model"], plan["data"]
    _say(console, f"{model['source']}, recipe {plan['recipe']['name']}: nothing was done yet")
    _say(
        console,
        f"{data['calibration_samples']} samples to calibrate on, {data['evaluation_samples']} to "
        f"evaluate on ({_judge(plan)})",
    )
    for target in plan["targets"]:
        _print_target(target, console)
    _print_estimate(plan["estimate"], console)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2 min 5 s` or `1 h 3 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _judge(plan: Mapping[str, Any]) -> str:
    words = {
        "metric": "with labels",
        "agreement": "without labels: beside the float model",
        "program": "your program judges",
    }
    return words[str(plan["judged_by"])]


def _print_target(target: Mapping[str, Any], console: Console) -> None:
    console.print()
    _say(console, f"for {target['target']}", "bold")
    for placement in target["placements"]:
        ops = Counter(str(node["op"]) for node in placement["quantized"])
        counts = ", ".join(f"{count} {op}" for op, count in ops.most_common())
        what = "keep their weights as integers" if placement["weights_only"] else "on integers"
        nodes = f"{len(placement['quantized'])} nodes {what} ({counts})"
        _say(console, f"  {_title(placement)}: {nodes}")
    if not target["placements"]:
        _say(console, "  nothing is quantized")
    _print_refused(target["placements"], console)
    _print_skips(target, console)
    for failure in target["failures"]:
        _say(console, f"  {failure}", "red")
    how = "timed and scored" if target["timed"] else "scored in order of preference, not timed"
    _say(console, f"  {len(target['candidates'])} candidates, {how}:")
    for line in _candidate_lines(target["candidates"]):
        _say(console, f"    {line}")


def _title(placement: Mapping[str, Any]) -> str:
    return f"{runtime_name(placement['runtime'])} {placement['kind']}"


def _print_refused(placements: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Each reason once, with the nodes and the placements that it is for."""
    nodes: dict[str, dict[str, None]] = {}
    where: dict[str, dict[str, None]] = {}
    for placement in placements:
        for node in placement["refused"]:
            label = f"{shortened(node['name'], 60)} ({node['op']})"
            nodes.setdefault(node["reason"], {})[label] = None
            where.setdefault(node["reason"], {})[_title(placement)] = None
    for reason, names in nodes.items():
        _say(console, f"  in float: {reason} [{', '.join(where[reason])}]")
        _say(console, f"    {_listed(list(names))}")


def _print_skips(target: Mapping[str, Any], console: Console) -> None:
    """What steps leave alone, each reason once; what is in float for it was told before."""
    told = {node["name"] for each in target["placements"] for node in each["refused"]}
    nodes: dict[str, list[str]] = {}
    for skip in target["skips"]:
        if skip["node"] not in told:
            name = [] if skip["node"] == "?" else [shortened(skip["node"], 60)]
            nodes.setdefault(f"{skip['step']}: {skip['reason']}", []).extend(name)
    for reason, names in nodes.items():
        _say(console, f"  {reason}")
        if names:
            _say(console, f"    {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _candidate_lines(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """`OpenVINO int8 on 1, 2 threads`, a line for each runtime and precision."""
    threads: dict[str, list[str]] = {}
    for each in candidates:
        note = " (only timed: it needs samples)" if each["only_timed"] else ""
        name = f"{runtime_name(each['runtime'])} {each['precision']}{note}"
        threads.setdefault(name, []).append(str(each["threads"]))
    return [
        name
        if counts == ["0"]
        else f"{name} on {', '.join(counts)} thread{'' if counts == ['1'] else 's'}"
        for name, counts in threads.items()
    ]


def _print_estimate(estimate: Mapping[str, Any], console: Console) -> None:
    console.print()
    table = Table(box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.title = Text("how long it will take, an estimate", style="bold")
    table.add_column("stage")
    table.add_column("time", justify="right")
    table.add_column("how that was reckoned", overflow="fold")
    # What takes no time is in --json; here it would hide the rest.
    for stage in (each for each in estimate["stages"] if each["seconds"] >= 0.05):
        name = str(stage["name"]).replace("_", " ")
        table.add_row(Text(name), duration(stage["seconds"]), Text(str(stage["how"])))
    console.print(table)
    _say(
        console,
        f"about {duration(estimate['seconds'])} in all, where the machine is as busy as now",
    )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True)
