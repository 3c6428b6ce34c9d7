"""What every example runs from its data to its figures, and what the table says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from edgebm.report.read import read_report

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}
METRICS = {"top1": "top-1"}


class Figure(TypedDict):
    """Something measured, in float and as compressed."""

    name: str
    before: float
    after: float
    unit: str


class Row(TypedDict):
    """What the table says of one example; sizes in bytes."""

    quality: list[Figure]
    speed: list[Figure]
    size_bytes: tuple[int, int]
    runs: tuple[str, str]


@dataclass(frozen=True)
class Step:
    """A program of the example's folder; "{out}" in its arguments is the folder of results.

    `makes`: the file in that folder which says that the step was done.
    """

    program: str
    arguments: tuple[str, ...]
    makes: str


@dataclass(frozen=True)
class Example:
    """One application: its steps, training first, and how its figures are read when all are done.

    `bundle`: the compressed one, in the folder of results.
    """

    title: str
    model: str
    bundle: str
    steps: tuple[Step, ...]
    read: Callable[[Path], Row]


def side(report: Mapping[str, Any], which: str) -> str:
    """Such as "OpenVINO int8": what runs before or after."""
    run = report[which]
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
        "runs": (side(report, "before"), side(report, "after")),
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


_ONE_THREAD = ("{out}", "--threads", "1")

EXAMPLES: Mapping[str, Example] = {
    "driving_signs": Example(
        "traffic signs from a camera's bytes, a frame loop with a deadline",
        "CNN",
        "signs.edgebm",
        (
            Step("train.py", ("--out", "{out}", "--bf16"), "signs.onnx"),
            Step("compress.sh", _ONE_THREAD, "signs.edgebm"),
        ),
        driving_signs,
    ),
    "medical_xray": Example(
        "pneumonia in X-rays, a gate, what both models look at",
        "CNN",
        "xray.edgebm",
        (
            Step("train.py", ("--out", "{out}"), "xray.onnx"),
            Step("compress.sh", _ONE_THREAD, "xray.edgebm"),
            Step(
                "../medical_ecg/figures.py",
                (
                    *(f"{{out}}/{name}" for name in ("xray.onnx", "xray.edgebm", "test.npz")),
                    "--json",
                    "{out}/figures.json",
                ),
                "figures.json",
            ),
        ),
        medical("xray.edgebm", "image"),
    ),
    "medical_ecg": Example(
        "abnormal heartbeats, a gate",
        "LSTM",
        "beats.edgebm",
        (
            Step("train.py", ("--out", "{out}"), "beats.onnx"),
            Step("compress.sh", _ONE_THREAD, "beats.edgebm"),
            Step(
                "figures.py",
                (
                    *(f"{{out}}/{name}" for name in ("beats.onnx", "beats.edgebm", "test.npz")),
                    "--json",
                    "{out}/figures.json",
                ),
                "figures.json",
            ),
        ),
        medical("beats.edgebm", "beat"),
    ),
    "voice_commands": Example(
        "spoken digits spotted in a stream of sound",
        "GRU",
        "int8.edgebm",
        (
            Step("train.py", ("--out", "{out}"), "frames.onnx"),
            Step("recordings.py", ("--out", "{out}"), "demo.wav"),
            Step("compress.sh", ("{out}",), "int8.edgebm"),
            Step(
                "judge.py",
                (
                    "{out}/fp32.edgebm",
                    "{out}/int8.edgebm",
                    "--folder",
                    "{out}",
                    "--json",
                    "{out}/judged.json",
                ),
                "judged.json",
            ),
            *(
                Step(
                    "device.py",
                    (
                        f"{{out}}/{name}.edgebm",
                        "--wav",
                        "{out}/demo.wav",
                        "--json",
                        f"{{out}}/{name}.json",
                    ),
                    f"{name}.json",
                )
                for name in ("fp32", "int8")
            ),
        ),
        voice_commands,
    ),
}
