"""edgebm's own contenders: what ``compress`` chooses, and each runtime's integers by force."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peer_tools import Feeds
from tasks import Task

import edgebm
from edgebm.recipe import load_recipe
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.engines import open_engine
from edgebm.search.build import BUILD

FILES = {"openvino": "model.xml", "onnxruntime": "model.onnx"}


def source_digest() -> str:
    """A digest of edgebm's own code, recipes and targets: what its answers depend on."""
    root = Path(edgebm.__file__).parent
    found = hashlib.sha256()
    for folder in (root, root.parent / "recipes", root.parent / "targets"):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".yaml")):
            found.update(path.relative_to(root.parent).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def has_integers(recipe: str) -> bool:
    """Whether layers compute in integers, and not only store their weights so."""
    return any(step.kind == "quantize_activations" for step in load_recipe(recipe).steps)


def compress(
    task: Task, recipe: str, threads: int, out: Path, *, labelled: bool
) -> dict[str, Any]:
    """``edgebm.compress`` for this machine on the samples that the peers get.

    ``labelled`` adds the validation set and the allowed drop, as NNCF's accuracy control has them.
    """
    judged: dict[str, Any] = {}
    if labelled:
        judged = {
            "eval": task.samples("validation"),
            # By its name it knows of single answers, which int8-accurate asks about.
            "metric": "top1" if task.is_top1 else task.value,
            "max_drop": task.max_drop,
        }
    begin = time.perf_counter()
    result = edgebm.compress(
        task.model,
        target="host",
        recipe=recipe,
        data=task.samples("calibration_300"),
        shapes={name: [shape] for name, shape in task.shapes.items()},
        threads=threads,
        out=out,
        force=True,
        **judged,
    )
    seconds = time.perf_counter() - begin
    report = result.report
    chosen = report["after"]["candidate"]
    candidates = {each["id"]: each for each in report["candidates"]}
    return {
        "seconds": seconds,
        "size_bytes": candidates[chosen]["size_bytes"],
        "detail": chosen,
        "layers": candidates[chosen]["layers"],
        "constraints_met": result.constraints_met,
        "steps": {step["name"]: step["seconds"] for step in report["steps"]},
    }


def quantize(task: Task, recipe: str, runtime: str, folder: Path) -> dict[str, Any]:
    """The integers of ``recipe`` for one runtime, whether or not they pay; nothing is chosen."""
    begin = time.perf_counter()
    graph = edgebm.quantize(
        task.model, task.samples("calibration_300"), runtime=runtime, recipe=load_recipe(recipe)
    )
    seconds = time.perf_counter() - begin
    files = BUILD[runtime](graph)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    size = sum(map(len, files.values()))
    return {"seconds": seconds, "size_bytes": size, "file": FILES[runtime]}


def bound_call(path: str, feeds: Feeds) -> Callable[[], object]:
    """The bundle's artifact on tensors bound once, as the peers are called.

    What `session.run` adds to that is in ``session_overhead.py``.
    """
    bundle = read_bundle(path)
    manifest, variant = bundle.manifest, bundle.manifest.variants[0]
    engine = open_engine(
        variant.runtime, bundle.files(variant), variant.config, manifest.inputs, manifest.outputs
    )
    request = engine.request({name: value.shape for name, value in feeds.items()})
    for buffer, spec in zip(request.inputs, manifest.inputs, strict=True):
        np.copyto(buffer, feeds[spec.name])
    return request.infer
