"""What other tools offer where plain INT8 is not accurate enough, or weights are to shrink."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from peer_tools import Built, OpenVino, Peer, Source, fixed_onnx, peers_for
from tasks import Arrays, Task, hits

REFERENCE = "ONNX Runtime float"
FLOATS = ("OpenVINO float", REFERENCE)
Item = tuple[dict[str, NDArray[Any]], NDArray[Any]]


def validation_items(task: Task) -> list[Item]:
    """The labelled samples one at a time: inputs with a batch axis of 1, and label [1, ...]."""
    inputs, labels = task.read("validation")
    cut = lambda index: {name: array[index : index + 1] for name, array in inputs.items()}  # noqa: E731
    return [(cut(index), labels[index : index + 1]) for index in range(len(labels))]


def validator(task: Task) -> Callable[[Any, Iterable[Item]], tuple[float, list[Any]]]:
    """The validation function that NNCF asks for: the metric and what it is made of.

    Where the metric is a mean over samples, each sample's own part ranks the layers; elsewhere
    the outputs do.
    """

    def validate(model: Any, items: Iterable[Item]) -> tuple[float, list[Any]]:
        rows: list[Arrays] = []
        labels = []
        for inputs, label in items:
            answer = model(inputs)
            rows.append({port.get_any_name(): answer[port].copy() for port in model.outputs})
            labels.append(label)
        stacked = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        truth = np.concatenate(labels)
        each: list[Any] = [list(row.values()) for row in rows]
        if task.is_top1:
            each = [100.0 * float(hit) for hit in hits(stacked, truth)]
        return task.value(stacked, truth), each

    return validate


def build_nncf_control(source: Source, task: Task) -> Built:
    """``nncf.quantize_with_accuracy_control``: layers go back to float until the drop is kept."""
    import nncf

    model = ov.convert_model(fixed_onnx(source))
    calibration = nncf.Dataset(source.samples())
    validation = nncf.Dataset(validation_items(task), lambda item: item[0])
    options = {"model_type": nncf.ModelType.TRANSFORMER} if source.transformer else {}
    begin = time.perf_counter()
    quantized = nncf.quantize_with_accuracy_control(
        model, calibration, validation, validator(task), max_drop=task.max_drop, **options
    )
    seconds = time.perf_counter() - begin
    path = source.folder / "nncf_control.xml"
    ov.save_model(quantized, path, compress_to_fp16=False)
    return Built(path, seconds)


def build_nncf_weights(source: Source, mode: str, *, data: bool) -> Built:
    """``nncf.compress_weights``; with samples also what its documentation has for 4 bits."""
    import nncf

    model = ov.convert_model(fixed_onnx(source))
    options: dict[str, Any] = {}
    if data:
        samples = nncf.Dataset(source.samples())
        options = {"dataset": samples, "awq": True, "scale_estimation": True}
    begin = time.perf_counter()
    packed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode[mode], **options)
    seconds = time.perf_counter() - begin
    path = source.folder / f"nncf_{mode.lower()}{'_data' if data else ''}.xml"
    ov.save_model(packed, path, compress_to_fp16=False)
    return Built(path, seconds)


def accuracy_peers(task: Task, source: Source) -> list[Peer]:
    """The peers of the speed comparison that run in f32, and what is named above."""
    dynamic = () if task.is_transformer else ("ONNX Runtime dynamic",)
    found = [p for p in peers_for(source) if p.precision == "f32" and p.name not in dynamic]
    if task.samples("validation").exists():
        control = lambda s: build_nncf_control(s, task)  # noqa: E731
        found.append(Peer("NNCF accuracy control", OpenVino, control))
    if task.is_transformer:
        for name, mode, data in (
            ("NNCF weights INT8", "INT8_ASYM", False),
            ("NNCF weights INT4", "INT4_ASYM", False),
            ("NNCF weights INT4, with data", "INT4_ASYM", True),
        ):
            build = lambda s, mode=mode, data=data: build_nncf_weights(s, mode, data=data)  # noqa: E731
            found.append(Peer(name, OpenVino, build))
    return found
