"""A few calls of the float model on one sample: how fast this machine is, now."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from edgebm.backends.runtimes import runs_as
from edgebm.errors import BackendUnavailable
from edgebm.exec.collect import FloatRunner, collect
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.quant.observe import observer
from edgebm.search.build import values_to_observe
from edgebm.search.job import Job, Progress
from edgebm.search.judge import AgreementJudge, EvaluationJudge
from edgebm.target import Target

_SAMPLES = 3
_CALLS, _LONGEST_S = 9, 1.0
_IMPORTS = "import edgebm.runtime.trial_process, {runtime}"


@dataclass(frozen=True, slots=True)
class Probe:
    """Seconds of what a compression does many times.

    Attributes:
        load_s: open the float model on ONNX Runtime.
        call_s: one call of it, all threads.
        read_s: read one sample.
        sweep_s: one call that hands every observed value to its observer.
        settle_s: choose the ranges from what was observed.
        process_s: start a process that imports one runtime, by runtime.
        judged_by: "metric", "agreement" or "program".
    """

    load_s: float
    call_s: float
    read_s: float
    sweep_s: float
    settle_s: float
    process_s: dict[str, float]
    judged_by: str


def probe(job: Job, targets: Sequence[Target], progress: Progress) -> Probe:
    """Time a few calls.

    Raises:
        DataError: the model does not run on a sample.
    """
    runtimes: list[str] = list(dict.fromkeys(r for target in targets for r in target.runtimes))
    here = list(dict.fromkeys(map(runs_as, runtimes)))
    total = len(here) + 3
    progress("estimate", 0, total)
    read_s = _reading(job)
    progress("estimate", 1, total)
    load_s, call_s = _calling(job)
    progress("estimate", 2, total)
    sweep_s, settle_s = _sweeping(job, runtimes)
    process_s: dict[str, float] = {}
    for done, runtime in enumerate(here, start=3):
        progress("estimate", done, total)
        process_s[runtime] = _starting(runtime)
    progress("estimate", total, total)
    return Probe(load_s, call_s, read_s, sweep_s, settle_s, process_s, _judged_by(job))


def _reading(job: Job) -> float:
    count = min(_SAMPLES + 1, len(job.calls))
    samples = job.calls.feeds(0, count)
    next(samples)  # opens the file
    start = time.perf_counter()
    rest = sum(1 for _ in samples)
    return (time.perf_counter() - start) / max(1, rest)


def _calling(job: Job) -> tuple[float, float]:
    outputs = [spec.name for spec in job.face.outputs]
    loads: list[float] = []
    while len(loads) < 2:  # the first one also wakes the runtime
        start = time.perf_counter()
        runner = FloatRunner(job.model, outputs)
        loads.append(time.perf_counter() - start)
    feeds = job.sample()
    runner.run(feeds)
    times: list[float] = []
    while len(times) < _CALLS and sum(times) < _LONGEST_S:
        start = time.perf_counter()
        runner.run(feeds)
        times.append(time.perf_counter() - start)
    return min(loads), statistics.median(times)


def _sweeping(job: Job, runtimes: Sequence[str]) -> tuple[float, float]:
    """One sample's share of calibration, and its end; both 0 where nothing is calibrated."""
    step = next((s for s in job.steps if isinstance(s, QuantizeActivations)), None)
    wanted = values_to_observe(job.model, runtimes, job.is_ignored) if step else frozenset()
    if step is None or not wanted:
        return 0.0, 0.0
    watchers = {name: observer(step.observer) for name in wanted}
    sinks = {name: watcher.update for name, watcher in watchers.items()}
    times: list[float] = []
    # Calibration on a few samples, whose result is thrown away; the first one loads the model.
    samples = islice(job.calibration.feeds(), _SAMPLES)
    collect(job.model, samples, sinks, lambda: times.append(time.perf_counter()))
    start = time.perf_counter()
    for watcher in watchers.values():
        watcher.result()
    settle_s = time.perf_counter() - start
    if len(times) < 2:
        return 0.0, settle_s
    return (times[-1] - times[0]) / (len(times) - 1), settle_s


def _starting(runtime: str) -> float:
    """Seconds until a process of its own has imported `runtime`, as each trial does."""
    command = [sys.executable, "-c", _IMPORTS.format(runtime=runtime)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise BackendUnavailable(
            f"{runtime} does not load: {last}", hint="'edgebm doctor' shows what is missing"
        )
    return time.perf_counter() - start


def _judged_by(job: Job) -> str:
    judge = job.judged_by(dict)
    if isinstance(judge, EvaluationJudge):
        return "program"
    return "agreement" if isinstance(judge, AgreementJudge) else "metric"
