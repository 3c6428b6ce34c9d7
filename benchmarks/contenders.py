"""Who takes part in the accuracy comparison, and how each is built, asked and called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from own_tools import bound_call, compress, has_integers, quantize, source_digest
from peer_accuracy import accuracy_peers
from peer_tools import Feeds, OnnxRuntime, OpenVino, Peer, Source, size_of
from tasks import Task, answers

import edgebm

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
ENGINES = {".xml": OpenVino, ".onnx": OnnxRuntime}
BUNDLE = ".edgebm"


@dataclass(frozen=True)
class Contender:
    """A name, what decides its answers beside model and samples, and how it is built.

    ``make`` leaves the artifact in a folder of its own and returns at least ``seconds``,
    ``size_bytes`` and ``file``, the name to load it by. ``precision`` is what the other tools'
    float layers run in.
    """

    name: str
    depends: str
    make: Callable[[Path], dict[str, Any]]
    precision: str = "f32"

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "_" for c in self.name)


def source_of(task: Task, folder: Path) -> Source:
    """The task as the other tools take it, with ``folder`` for what they write."""
    calibration = task.samples("calibration_300")
    return Source(task.model, task.shapes, calibration, folder, task.is_transformer)


def contenders(
    task: Task, recipes: Sequence[str], labelled: Sequence[str], threads: int
) -> list[Contender]:
    """Everybody who takes part in one task; the float models come first.

    edgebm runs each of ``recipes`` on the samples alone, and each of ``labelled`` with the
    validation set as well.
    """
    peers = accuracy_peers(task, source_of(task, Path()))
    found = [peer_contender(task, p) for p in peers]
    own = source_digest()
    for recipe in dict.fromkeys((*recipes, *task.recipes)):
        make = _compressor(task, recipe, threads, labelled=False)
        found.append(Contender(f"edgebm {recipe}", own, make))
        for runtime, title in RUNTIMES.items() if has_integers(recipe) else ():
            forced = _quantizer(task, recipe, runtime)
            found.append(Contender(f"edgebm {recipe}, all integers, {title}", own, forced))
    for recipe in labelled if task.samples("validation").exists() else ():
        make = _compressor(task, recipe, threads, labelled=True)
        found.append(Contender(f"edgebm {recipe}, with labels", own, make))
    return found


def peer_contender(task: Task, peer: Peer) -> Contender:
    """Another tool's setting as it takes part here."""

    def make(folder: Path) -> dict[str, Any]:
        built = peer.build(source_of(task, folder))
        size = size_of(built.path)
        return {"seconds": built.seconds, "size_bytes": size, "file": built.path.name}

    return Contender(peer.name, "", make, peer.precision)


def _compressor(
    task: Task, recipe: str, threads: int, *, labelled: bool
) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        out = folder / "model.edgebm"
        return {**compress(task, recipe, threads, out, labelled=labelled), "file": out.name}

    return make


def _quantizer(task: Task, recipe: str, runtime: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: quantize(task, recipe, runtime, folder)


def answer(task: Task, path: Path, threads: int, precision: str = "f32") -> dict[str, Any]:
    """The outputs of an artifact for every test sample, one call each."""
    inputs = task.read("test")[0]
    if path.suffix == BUNDLE:
        with edgebm.load(path) as session:
            return answers(session.run, inputs)
    return answers(_opened(task, path, threads, first(inputs), precision).run, inputs)


def call_of(
    task: Task, path: Path, threads: int, feeds: Feeds, precision: str = "f32"
) -> Callable[[], object]:
    """A call of an artifact on tensors bound once."""
    if path.suffix == BUNDLE:
        return bound_call(str(path), feeds)
    return _opened(task, path, threads, feeds, precision).call


def _opened(
    task: Task, path: Path, threads: int, feeds: Feeds, precision: str
) -> OpenVino | OnnxRuntime:
    engine = ENGINES[path.suffix](path, source_of(task, path.parent), threads, precision)
    engine.bind(feeds)
    return engine


def first(inputs: Feeds) -> dict[str, Any]:
    """The first sample, with a batch axis of 1."""
    return {name: array[:1] for name, array in inputs.items()}
