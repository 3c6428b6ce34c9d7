"""The recurrent networks on spoken digits as a task, and what the other tools make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender, peer_contender, source_of
from datasets import WORK
from numpy.typing import NDArray
from peer_tools import OnnxRuntime, Peer, build_ort_dynamic, peers_for
from tasks import Task, top1

from edgebm.backends.onnxruntime import executed_cells
from edgebm.runtime.engines import open_engine
from edgebm.spec import EngineConfig, TensorSpec

NAMES = ("lstm128", "gru128", "lstm512", "gru512", "bilstm512")
DYNAMIC, AS_EXPORTED = "ONNX Runtime dynamic", "ONNX Runtime dynamic, file as exported"
SHAPE = (1, 100, 40)
Labelled = tuple[dict[str, NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Spoken(Task):
    """One network. Its test part are the clips, and behind them the shifted copies of each."""

    def samples(self, part: str) -> Path:
        return WORK / f"speech_{part}.npz"

    def read(self, part: str) -> Labelled:
        inputs, labels = super().read(part)
        if part != "test":
            return inputs, labels
        copies, wanted = super().read("shifted")
        with np.load(self.samples("test")) as stored:
            count = len(stored[self.labels])
        each = len(wanted) // count
        rows = (np.arange(len(labels)) * count // len(labels))[:, None] * each + np.arange(each)
        joined = {k: np.concatenate([v, copies[k][rows.ravel()]]) for k, v in inputs.items()}
        return joined, np.concatenate([labels, wanted[rows.ravel()]])

    def clips(self) -> int:
        """How many samples of its test part are no shifted copies."""
        return len(super().read("test")[1])


def spoken(name: str, limit: int | None = None) -> Spoken:
    """The task of one network; ``limit`` keeps that many test clips, for a quick look."""
    return Spoken(name, "top-1 %", top1, {"features": SHAPE}, 0.34, limit=limit)


def frames_model(name: str) -> Path:
    """The network with scores for each frame, the source of a model of single steps."""
    return WORK / f"{name}_frames.onnx"


def missing(name: str) -> str:
    """What a network lacks to take part, as a sentence; empty if nothing."""
    files = [WORK / f"{name}.onnx", frames_model(name)]
    files += [spoken(name).samples(part) for part in ("calibration_300", "test", "shifted")]
    if lacking := [str(path) for path in files if not path.exists()]:
        return f"{', '.join(lacking)} missing; 'python benchmarks/speech.py {name}' writes it"
    return ""


def other_tools(task: Spoken) -> list[Contender]:
    """Both runtimes' floats first, then every setting of the other tools that this CPU has."""
    peers = peers_for(source_of(task, Path()))
    whole = lambda source: build_ort_dynamic(source, prepare=False)  # noqa: E731
    peers.append(Peer(AS_EXPORTED, OnnxRuntime, whole))
    return [peer_contender(task, peer) for peer in peers]


def cells_of(path: Path, precision: str) -> dict[str, str]:
    """What each recurrent layer of another tool's file runs in, by the runtime's own graph."""
    files = files_of(path)
    if path.suffix == ".onnx":
        return executed_cells(files)
    face = TensorSpec("features", "float32", SHAPE), TensorSpec("logits", "float32", (1, 10))
    config = EngineConfig(precision=precision)
    return open_engine("openvino", files, config, face[:1], face[1:]).cells()


def files_of(path: Path) -> dict[str, bytes]:
    """A file of another tool as edgebm's engines take it."""
    if path.suffix == ".onnx":
        return {"model.onnx": path.read_bytes()}
    return {"model.xml": path.read_bytes(), "model.bin": path.with_suffix(".bin").read_bytes()}


def counted(cells: Mapping[str, str]) -> str:
    """Such as "2 int8"."""
    counts = Counter(cells.values())
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
