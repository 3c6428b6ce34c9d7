"""What every example runs, from its data to its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rows import (
    SIGNS,
    Row,
    driving_signs,
    medical,
    robot_node,
    sentence_search,
    text_classify,
    translate,
    voice_commands,
)


@dataclass(frozen=True)
class Step:
    """A program of the example's folder; "{out}" in its arguments is the folder of results,
    "{weights}" that of an encoder to begin with.

    `makes`: the file in that folder which says that the step was done. `variables`: of its
    environment.
    """

    program: str
    arguments: tuple[str, ...]
    makes: str
    variables: Mapping[str, str] = field(default_factory=dict)


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
    "sentence_search": Example(
        "search by meaning, a tokenizer and length buckets on the device",
        "Transformer",
        "search.edgebm",
        (
            Step("train.py", ("--from", "{weights}", "--out", "{out}"), "model"),
            Step("compress.sh", ("{out}",), "search.edgebm"),
            Step(
                "figures.py",
                (
                    "{out}/fp32.edgebm",
                    "{out}/search.edgebm",
                    "--folder",
                    "{out}",
                    "--json",
                    "{out}/figures.json",
                ),
                "figures.json",
            ),
        ),
        sentence_search,
    ),
    "text_classify": Example(
        "sentiment of sentences, with the same buckets",
        "Transformer",
        "sentiment.edgebm",
        (
            Step("train.py", ("--from", "{weights}", "--out", "{out}", "--bf16"), "model"),
            Step("compress.sh", ("{out}",), "sentiment.edgebm"),
            Step(
                "../medical_ecg/figures.py",
                (
                    *(
                        f"{{out}}/{name}"
                        for name in ("fp32.edgebm", "sentiment.edgebm", "test.npz")
                    ),
                    "--json",
                    "{out}/figures.json",
                ),
                "figures.json",
            ),
            Step(
                "../sentence_search/latency.py",
                (
                    *(
                        f"{{out}}/{name}"
                        for name in ("fp32.edgebm", "sentiment.edgebm", "test.jsonl")
                    ),
                    "--json",
                    "{out}/latency.json",
                ),
                "latency.json",
            ),
        ),
        text_classify,
    ),
    "translate": Example(
        "German to English, the cache as the state of a stream, greedy and beam search",
        "Transformer",
        "decoder-int8.edgebm",
        (
            Step("train.py", ("--out", "{out}", "--bf16"), "decoder.onnx"),
            Step("compress.sh", ("{out}",), "decoder-all.edgebm", {"COMPARE": "1"}),
            Step(
                "judge.py",
                ("{out}", "--runtimes", "openvino", "onnxruntime", "--json", "{out}/figures.json"),
                "figures.json",
            ),
        ),
        translate,
    ),
    "robot_node": Example(
        "camera, model and consumer as three processes over Zenoh",
        "CNN",
        SIGNS,
        (
            Step(
                "../driving_signs/train.py",
                ("--out", "{out}/../driving_signs", "--bf16"),
                "../driving_signs/signs.onnx",
            ),
            Step(
                "../driving_signs/compress.sh",
                ("{out}/../driving_signs", "--threads", "1"),
                "../driving_signs/signs.edgebm",
            ),
            Step(
                "launch.py",
                (
                    "{out}/../driving_signs/signs.edgebm",
                    "--frames",
                    "{out}/../driving_signs/camera.npz",
                    "--seconds",
                    "300",
                    "--json",
                    "{out}/figures.json",
                ),
                "figures.json",
            ),
        ),
        robot_node,
    ),
}
