"""How long a small float model takes on the target: what a layer of some width would cost."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable
from importlib.metadata import version

from edgebm.errors import BackendError, BackendFailed
from edgebm.ir.face import face as face_of
from edgebm.ir.model import Model
from edgebm.runtime.journal import Journal
from edgebm.runtime.turns import call_times
from edgebm.search.build import build_float
from edgebm.search.candidates import Candidate, Face
from edgebm.search.made_up import made_up_samples
from edgebm.search.records import machine
from edgebm.search.runner import Runner
from edgebm.spec import EngineConfig
from edgebm.target import Target

_SECONDS, _CALLS, _TURNS = 0.01, 200, 3


def small_model_timer(target: Target, journal: Journal) -> Callable[[Model], float] | None:
    """A function from a canonical model with fixed shapes to milliseconds of one call.

    It runs in f32, on the fastest of the target's runtimes, with the smallest of its thread
    counts. What is known of an equal model is not measured again. None where the target is not
    this machine.
    """
    if not target.is_host:
        return None
    config = EngineConfig(precision="f32", threads=min(target.threads))

    def time_ms(model: Model) -> float:
        content = hashlib.sha256(model.to_bytes()).hexdigest()
        versions = [[runtime, version(runtime)] for runtime in target.runtimes]
        parts = {**machine(), "model": content, "runtimes": versions, "threads": config.threads}
        known = journal.find("layer", parts)
        if known is None:
            known = _fastest(model, target.runtimes, config)
            journal.keep("layer", parts, known, "a layer of some width")
        return float(known)

    return time_ms


def _fastest(model: Model, runtimes: tuple[str, ...], config: EngineConfig) -> float:
    """Milliseconds of the fastest runtime.

    Raises:
        BackendFailed: no runtime runs it.
    """
    found = [_timed(model, runtime, config) for runtime in runtimes]
    times = [each for each in found if isinstance(each, float)]
    if not times:
        raise BackendFailed("no runtime runs a single layer: " + "; ".join(map(str, found)))
    return min(times)


def _timed(model: Model, runtime: str, config: EngineConfig) -> float | BackendError:
    """Milliseconds of the best turn, since noise only adds; or why the model does not run."""
    face = Face(*(tuple(side) for side in face_of(model)))
    feeds = next(iter(made_up_samples(model, face, {}, None, seed=0).feeds(0, 1)))
    try:
        with Runner(Candidate(build_float(model, runtime), config), face) as runner:
            infer = runner.bound(feeds).infer
            turns = [call_times(infer, _SECONDS, _CALLS) for _ in range(_TURNS)]
    except BackendError as error:
        return error
    return min(map(statistics.median, turns))
