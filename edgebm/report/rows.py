"""The figures of a report as short text: the same words in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgebm.errors import BundleFormat, BundleIncompatible

REPORT_VERSION = 1
Report = Mapping[str, Any]
NONE = "-"

_KEYS = (
    *("name", "created_with", "host", "target", "recipe", "model", "data", "metric"),
    *("constraints", "constraints_met", "missed", "before", "after", "verdict"),
    *("candidates", "layers", "notes", "skips", "steps", "warnings"),
)

_RUNTIMES = {
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "onnxruntime-cuda": "ONNX Runtime CUDA",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary. `change` compares `after` with `before`; `better` judges it.

    `better` is True, False, or None where neither is better or one side is unknown.
    """

    label: str
    before: str
    after: str
    change: str
    better: bool | None = None


def check_report(report: object) -> Report:
    """`report` as it was given.

    Raises:
        BundleIncompatible: it was written by another version.
        BundleFormat: it is no report, or parts are missing; lists them all.
    """
    if not isinstance(report, Mapping):
        raise BundleFormat("report.json is not a JSON object")
    version = report.get("report_version")
    if version != REPORT_VERSION:
        raise BundleIncompatible(
            f"report.json has report_version {version!r}, this edgebm reads {REPORT_VERSION}",
            hint="use the edgebm that made the bundle, or compress the model again",
        )
    missing = [key for key in _KEYS if key not in report]
    if missing:
        raise BundleFormat(f"report.json lacks {', '.join(missing)}")
    return report


def per_target(report: Report) -> list[Report]:
    """One report for each target, the first as it is; `missed` stays with the first."""
    further = report.get("further_targets", {})
    others = [{**report, **part, "target": name, "missed": []} for name, part in further.items()]
    return [report, *others]


def timed_on(report: Report) -> Mapping[str, Any]:
    """The machine that latency and memory were measured on: a board, or the host."""
    found: Mapping[str, Any] = report.get("measured_on") or report["host"]
    return found


def summary_rows(report: Report) -> list[Row]:
    """Before, after and their ratio: accuracy, latency, size, memory."""
    first, *rest = _rows(report["before"], report["after"], report["metric"])
    if report["constraints_met"] and first.better is False:
        # A loss within the limit is what was asked for.
        first = replace(first, better=None)
    return [first, *rest]


def comparison_rows(first: Report, second: Report) -> list[Row]:
    """What two bundles do, the first one as "before"."""
    rows = [
        Row("chosen", candidate_name(first["after"]), candidate_name(second["after"]), ""),
        Row("target", str(first["target"]), str(second["target"]), ""),
        Row("recipe", str(first["recipe"]["name"]), str(second["recipe"]["name"]), ""),
    ]
    metric = first["metric"]
    if metric["name"] != second["metric"]["name"]:
        metric = {"name": "metric", "unit": "", "higher_is_better": None}
    layers = [layer_counts(chosen_layers(report)) for report in (first, second)]
    rows += _rows(first["after"], second["after"], metric)
    return [*rows, Row("layers", layers[0], layers[1], "")]


def chosen_layers(report: Report) -> Mapping[str, int]:
    """How many layers of the chosen candidate compute in each precision."""
    chosen = report["after"]["candidate"]
    found = (c["layers"] for c in report["candidates"] if c["id"] == chosen)
    return next(found, {})


def metric_label(metric: Report) -> str:
    """What a metric is called in tables and charts: of `judge.py:spearman`, the function alone."""
    return str(metric["name"]).rpartition(":")[2]


def _rows(before: Mapping[str, Any], after: Mapping[str, Any], metric: Report) -> list[Row]:
    rows = [_metric_row(before["metric"], after["metric"], metric)]
    for key, label in (("p50_ms", "latency, p50"), ("p99_ms", "latency, p99")):
        unknown = "not enough calls" if key == "p99_ms" and after["p50_ms"] else "not measured"
        change, better = _ratio(before[key], after[key], "faster", "slower")
        rows.append(Row(label, ms(before[key], unknown), ms(after[key], unknown), change, better))
    change, better = _ratio(before["size_bytes"], after["size_bytes"], "smaller", "larger")
    rows.append(Row("size", size(before["size_bytes"]), size(after["size_bytes"]), change, better))
    memory = (before["peak_memory_mib"], after["peak_memory_mib"])
    change, better = _ratio(*memory, "less", "more")
    rows.append(Row("peak memory", mib(memory[0]), mib(memory[1]), change, better))
    return rows


def _metric_row(before: float | None, after: float | None, metric: Report) -> Row:
    unit = str(metric["unit"])
    texts = (metric_text(before, unit), metric_text(after, unit))
    if before is None or after is None:
        # Without labels the float model is the measure itself.
        reference = "the reference" if before is None and after is not None else texts[0]
        return Row(metric_label(metric), reference, texts[1], "")
    change = after - before
    digits = 2 if unit else 4
    if not round(change, digits):
        return Row(metric_label(metric), *texts, "no change")
    text = f"{change:+.{digits}f} {unit}".rstrip()
    higher = metric["higher_is_better"]
    better = None if higher is None else (change > 0) == bool(higher)
    return Row(metric_label(metric), *texts, text, better)


def _ratio(
    before: float | None, after: float | None, less: str, more: str
) -> tuple[str, bool | None]:
    if not before or not after:
        return "", None
    if 0.995 < before / after < 1.005:
        return "the same", None
    if before > after:
        return f"{before / after:.2f}x {less}", True
    return f"{after / before:.2f}x {more}", False


def metric_text(value: float | None, unit: str = "") -> str:
    """A metric with its unit. Points are differences: `92.31` alone is the value, of 100."""
    if value is None:
        return NONE
    if not unit:
        return f"{value:.4f}"
    return f"{value:.2f} {'' if unit == 'points' else unit}".rstrip()


def ms(value: float | None, unknown: str = NONE) -> str:
    """Milliseconds with three significant digits."""
    if value is None:
        return unknown
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def size(value: int | None) -> str:
    """Bytes in kB or MB (powers of 1000, as disks and `--max-size-mb` count)."""
    if value is None:
        return NONE
    if value < 1000:
        return f"{value} B"
    return f"{value / 1e3:.1f} kB" if value < 1_000_000 else f"{value / 1e6:.2f} MB"


def mib(value: float | None) -> str:
    """Memory in MiB."""
    return NONE if value is None else f"{value:.1f} MiB"


def runtime_name(runtime: str) -> str:
    """The vendor's spelling."""
    return _RUNTIMES.get(runtime, runtime)


def candidate_name(candidate: Mapping[str, Any]) -> str:
    """`OpenVINO int8, 2 threads`."""
    threads = candidate["threads"]
    text = f"{runtime_name(str(candidate['runtime']))} {candidate['precision']}"
    return f"{text}, {threads} thread{'' if threads == 1 else 's'}" if threads else text


def layer_counts(layers: Mapping[str, int]) -> str:
    """`23 int8, 4 f32`, the most frequent first."""
    ranked = sorted(layers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ranked) or NONE


def is_float(candidate: Mapping[str, Any]) -> bool:
    """A baseline: nothing in it was quantized."""
    return str(candidate["precision"]).removeprefix("pruned+") in {"f32", "f16", "bf16"}


def floor_value(report: Report) -> float | None:
    """The worst metric that `max_drop` allows; None without that limit or a float metric."""
    limit, reference = report["constraints"].get("max_drop"), report["before"]["metric"]
    if limit is None or reference is None:
        return None
    return float(reference - limit if report["metric"]["higher_is_better"] else reference + limit)


def floor_text(report: Report) -> str:
    """What the accuracy must keep, and the other limits that were set: a few sentences."""
    limits = report["constraints"]
    texts = {"max_latency_ms": "latency (p99) up to {:g} ms", "max_size_mb": "size up to {:g} MB"}
    others = [texts[key].format(limits[key]) for key in texts if limits.get(key) is not None]
    sentences = [
        str(report["metric"]["floor"]),
        *([f"Limits: {'; '.join(others)}"] if others else []),
    ]
    return " ".join(text[:1].upper() + text[1:].rstrip(".") + "." for text in sentences if text)
