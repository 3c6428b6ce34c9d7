"""What the table says of each example, read from the files that its run left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from edgebm.report.read import read_report

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}
METRICS = {"top1": "top-1"}
# The bundle of driving_signs, seen from the folder of robot_node.
SIGNS = "../driving_signs/signs.edgebm"


class Figure(TypedDict):
    """Something measured, in float and as compressed; `before` is None where float was not run."""

    name: str
    before: float | None
    after: float
    unit: str


class Row(TypedDict):
    """What the table says of one example; sizes in bytes."""

    quality: list[Figure]
    speed: list[Figure]
    size_bytes: tuple[int, int]
    runs: tuple[str, str]


def runs_on(run: Mapping[str, Any]) -> str:
    """Such as "OpenVINO int8"."""
    return f"{RUNTIMES.get(run['runtime'], run['runtime'])} {run['precision']}"


def row_of(bundle: Path, what: str, quality: list[Figure] | None = None) -> Row:
    """The row of a bundle by its own report; `what` one call is about, such as "image"."""
    report = read_report(bundle)
    before, after, metric = report["before"], report["after"], report["metric"]
    name = str(metric["name"])
    own: Figure = {
        "name": METRICS.get(name, name),
        "before": before["metric"],
        "after": after["metric"],
        "unit": "%" if metric["unit"] == "points" else str(metric["unit"]),
    }
    speed: Figure = {
        "name": what,
        "before": before["p50_ms"],
        "after": after["p50_ms"],
        "unit": "ms",
    }
    return {
        "quality": [own] if quality is None else quality,
        "speed": [speed],
        "size_bytes": (before["size_bytes"], after["size_bytes"]),
        "runs": (runs_on(before), runs_on(after)),
    }


def driving_signs(out: Path) -> Row:
    return row_of(out / "signs.edgebm", "image")


def medical(bundle: str, what: str) -> Callable[[Path], Row]:
    """The row of one of the two medical examples."""

    def read(out: Path) -> Row:
        shares = json.loads((out / "figures.json").read_text())
        quality: list[Figure] = [
            {"name": name, "before": shares[name][0], "after": shares[name][1], "unit": "%"}
            for name in ("sensitivity", "specificity")
        ]
        return row_of(out / bundle, what, quality)

    return read


def voice_commands(out: Path) -> Row:
    judged = {
        (each["bundle"], each["recording"]): each
        for each in json.loads((out / "judged.json").read_text())
    }

    def both(name: str, recording: str, key: str, unit: str) -> Figure:
        values = [judged[f"{bundle}.edgebm", recording][key] for bundle in ("fp32", "int8")]
        return {"name": name, "before": values[0], "after": values[1], "unit": unit}

    factors = [
        json.loads((out / f"{bundle}.json").read_text())["real_time_factor"]["wall"]
        for bundle in ("fp32", "int8")
    ]
    row = row_of(out / "int8.edgebm", "10 ms of sound")
    row["quality"] = [
        both(
            "false rejects",
            "keywords",
            "missed",
            f"of {judged['int8.edgebm', 'keywords']['words']}",
        ),
        both("false accepts", "others", "false_per_hour", "an hour"),
    ]
    row["speed"].append(
        {"name": "real-time factor", "before": factors[0], "after": factors[1], "unit": ""}
    )
    return row


def sentence_search(out: Path) -> Row:
    """Latency of each bucket, by the sentences of the test pairs in turns."""
    before, after = json.loads((out / "figures.json").read_text())
    row = row_of(out / "search.edgebm", "sentence")
    row["quality"] = [
        {
            "name": "Spearman x 100",
            "before": before["spearman"],
            "after": after["spearman"],
            "unit": "",
        }
    ]
    row["speed"] = buckets(before["p50_ms"], after["p50_ms"])
    row["runs"] = (runs_on(before), runs_on(after))
    return row


def buckets(before: Mapping[str, float], after: Mapping[str, float]) -> list[Figure]:
    """Latency of a text in each bucket."""
    return [
        {"name": f"{tokens} tokens", "before": time, "after": after[tokens], "unit": "ms"}
        for tokens, time in before.items()
    ]


def text_classify(out: Path) -> Row:
    """Accuracy of the test sentences, which chose nothing."""
    before, after = json.loads((out / "figures.json").read_text())["accuracy"]
    quality: list[Figure] = [{"name": "top-1", "before": before, "after": after, "unit": "%"}]
    row = row_of(out / "sentiment.edgebm", "sentence", quality)
    row["speed"] = buckets(*json.loads((out / "latency.json").read_text()))
    return row


def translate(out: Path) -> Row:
    """BLEU and speed of both precisions on each runtime; the sizes are those of both parts."""
    rows = {
        (each["bundles"], each["beam"]): each
        for each in json.loads((out / "figures.json").read_text())["rows"]
    }

    def both(name: str, runtime: str, beam: int, key: str, unit: str) -> Figure:
        before, after = (rows[f"{runtime} {kind}", beam][key] for kind in ("f32", "int8"))
        return {"name": name, "before": before, "after": after, "unit": unit}

    parts = [row_of(out / f"{part}-int8.edgebm", "step") for part in ("decoder", "encoder")]
    row = parts[0]
    before, after = (sum(part["size_bytes"][k] for part in parts) for k in (0, 1))
    chosen = read_report(out / "decoder-int8.edgebm")["after"]["runtime"]
    row["quality"] = [
        both(f"BLEU, {name}", chosen, beam, "bleu", "")
        for name, beam in (("greedy", 1), ("beam of 4", 4))
    ]
    row["speed"] = [
        both(f"greedy, {RUNTIMES[runtime]}", runtime, 1, "decoder_tokens_per_s", "tokens/s")
        for runtime in ("openvino", "onnxruntime")
    ]
    row["size_bytes"] = (before, after)
    return row


def robot_node(out: Path) -> Row:
    """The bundle is that of `driving_signs`, whose row has its accuracy."""
    told = json.loads((out / "figures.json").read_text())
    row = row_of(out / SIGNS, "image")
    sent, lost = (told["frames"][name] for name in ("sent", "lost_without_a_report"))
    row["quality"] = [
        {
            "name": "frames lost without a report",
            "before": None,
            "after": lost,
            "unit": f"of {sent} in {told['seconds'] / 60:.0f} minutes",
        }
    ]
    row["speed"] = [
        {"name": f"{what} {which}", "before": None, "after": told[key][which], "unit": "ms"}
        for what, key in (("in node", "node_ms"), ("camera to subscriber", "age_ms"))
        for which in ("p50", "p99")
    ]
    return row
