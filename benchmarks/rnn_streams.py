"""Recurrent networks one frame at a time: what a step costs, and whether it answers right.

A step of edgebm's stream is compared with the vendor's own call on the same artifact: tensors
bound once, in the faster of two ways (by its public method, and below that method's checks), and
the states copied from outputs to inputs. The other tools and float are called so too. They get
the single-step graph that ``--streaming`` makes, since none of them makes one.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from peer_tools import Source, build_openvino, build_ort_dynamic, fixed_onnx, size_of
from rnn_own import MODEL, Own
from session_overhead import Calls, in_turns
from spoken import DYNAMIC, Spoken, counted, files_of, frames_model
from streams import growth_kib, with_copy

import edgebm
from edgebm.backends.onnxruntime import executed_cells
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.engines import Buffers, Files, aligned_zeros, open_engine
from edgebm.runtime.engines.openvino_request import OpenVinoRequest
from edgebm.runtime.selftest import relative_error, tolerance
from edgebm.runtime.session import Session
from edgebm.spec import EngineConfig, Manifest, TensorSpec

FLOATS = ("OpenVINO float", "ONNX Runtime float")
PEERS: dict[str, tuple[str, Callable[[Source], Path]]] = {
    FLOATS[0]: ("openvino", lambda source: build_openvino(source).path),
    FLOATS[1]: ("onnxruntime", fixed_onnx),
    DYNAMIC: ("onnxruntime", lambda source: build_ort_dynamic(source).path),
}
WAYS = ("public", "bare")
Array = NDArray[Any]


class Stepper:
    """An artifact of single steps with its tensors bound once, for a batch of one."""

    def __init__(
        self, manifest: Manifest, runtime: str, files: Files, config: EngineConfig
    ) -> None:
        inputs, outputs = manifest.inputs, manifest.outputs
        engine = open_engine(runtime, files, config, inputs, outputs)
        made = {s.name: aligned_zeros(alone(s), np.dtype(s.dtype)) for s in outputs}
        # Typed Any: the vendors' own calls are no part of the protocol.
        self._request: Any = engine.request(
            {s.name: alone(s) for s in inputs}, Buffers(outputs=made)
        )
        given = dict(zip((s.name for s in inputs), self._request.inputs, strict=True))
        fed = {state.input for state in manifest.states}
        self._frames = [array for name, array in given.items() if name not in fed]
        self._pairs = [(given[s.input], made[s.output]) for s in manifest.states]
        self.cells = executed_cells(dict(files)) if runtime == "onnxruntime" else engine.cells()

    def calls(self, frame: Array) -> Calls:
        """The vendor's call with the copy of the states, in both ways."""
        (self._frames[0])[...] = frame
        return {way: with_copy(call, self._pairs) for way, call in _ways(self._request).items()}


def alone(spec: TensorSpec) -> tuple[int, ...]:
    """The shape with every free axis 1."""
    return tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)


def _ways(request: Any) -> Calls:
    """The vendor's call by its public method, and below that method's checks."""
    if isinstance(request, OpenVinoRequest):
        calls = request._request.infer, request._infer  # noqa: SLF001
    else:
        public = partial(request.session.run_with_iobinding, request._binding)  # noqa: SLF001
        calls = public, request._run  # noqa: SLF001
    return dict(zip(WAYS, calls, strict=True))


def compare_streams(task: Spoken, bundles: Own, options: argparse.Namespace) -> dict[str, Any]:
    """Everybody on one network, on one thread; who fails is named with the reason."""
    kind = bundles.chosen["1"]
    path = bundles.bundle(kind, 1)
    clips = task.read("test")[0]["features"][: task.clips()]
    frame = np.ascontiguousarray(clips[:1, :1])
    rows, failed = _steppers(bundles)
    with edgebm.load(path) as session, session.stream() as stream:
        calls: Calls = {"step": partial(stream.step, frame)}
        for row in rows:
            made = row.pop("stepper").calls(frame)
            calls |= {f"{row['name']}, {way}": call for way, call in made.items()}
        turns = in_turns(calls, options.turns, options.calls)
        us = {name: median(each) for name, each in turns.items()}
        for row in rows:
            found = {way: us[f"{row['name']}, {way}"] for way in WAYS}
            row["way"] = min(found, key=lambda way: found[way])
            row["us"], row["chosen"] = found[row["way"]], row["name"] == f"edgebm {kind}"
        vendor = next(row for row in rows if row["chosen"])
        return {
            "task": task.name,
            "chosen": kind,
            "rows": rows,
            "failed": {**failed, **{f"edgebm {k}": why for k, why in bundles.failed.items()}},
            "notes": bundles.notes,
            "float_us": min(row["us"] for row in rows if row["name"] in FLOATS),
            "step_us": us["step"],
            "way": vendor["way"],
            "over_us": us["step"] - vendor["us"],
            "steps": options.steps,
            "grown_kib": growth_kib(session, frame, options.steps),
            "tolerance": tolerance(read_bundle(path).manifest.variants[0], "scores"),
            **_answers(task, session, clips),
        }


def _steppers(bundles: Own) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Everybody's artifact, opened, with its size and what its layers run in."""
    rows, failed = [], {}
    for kind, facts in bundles.facts.items():
        bundle = read_bundle(bundles.bundle(kind, 1))
        manifest, variant = bundle.manifest, bundle.manifest.variants[0]
        files = bundle.files(variant)
        own = Stepper(manifest, variant.runtime, files, variant.config)
        size, cells = facts["size_bytes"], facts["cells"]
        rows.append(_row(f"edgebm {kind}", own, size, cells))
    shapes = {spec.name: alone(spec) for spec in manifest.inputs}
    folder = bundles.folder
    source = Source(folder / MODEL, shapes, folder / "none", folder, transformer=False)
    for name, (runtime, build) in PEERS.items():
        try:
            path = build(source)
            stepper = Stepper(manifest, runtime, files_of(path), EngineConfig())
            rows.append(_row(name, stepper, size_of(path), stepper.cells))
        except Exception as error:  # noqa: BLE001, PERF203 - that a tool fails is a result
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}".split("\n")[0]
    return rows, failed


def _row(name: str, stepper: Stepper, size: int, cells: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "stepper": stepper, "size_bytes": size, "cells": counted(cells)}


def _answers(task: Spoken, session: Session, clips: Array) -> dict[str, Any]:
    """The scores of all steps [n, 100, 10], against the float model's run of whole clips."""
    labels = task.read("test")[1][: len(clips)]
    whole = ort.InferenceSession(frames_model(task.name), providers=["CPUExecutionProvider"])
    want = np.concatenate([whole.run(None, {"features": clip[None]})[0] for clip in clips])
    got, unequal = np.empty_like(want), 0
    for index, clip in enumerate(clips):
        got[index], same = _stepped(session, clip)
        unequal += not same
    right = [int((each.mean(1).argmax(1) == labels).sum()) for each in (got, want)]
    each = [relative_error(mine, theirs) for mine, theirs in zip(got, want, strict=True)]
    return {
        "clips": len(clips),
        "error": relative_error(got, want),
        "worst_error": max(each),
        "unequal": unequal,
        "right": right[0],
        "float_right": right[1],
    }


def _stepped(session: Session, clip: Array) -> tuple[Array, bool]:
    """A stream's scores of one clip [100, 40], and whether `run` gives the very same."""
    pairs = [(state.input, state.output) for state in session.states]
    with session.stream() as stream:
        states = stream.states
        steps, same = [], True
        for frame in clip[:, None, None]:
            scores = stream.step(frame)["scores"]
            ran = session.run({"features": frame, **states})
            states = {before: ran[after] for before, after in pairs}
            same = same and np.array_equal(scores, ran["scores"])
            steps.append(scores[0, 0])
    return np.stack(steps), same
