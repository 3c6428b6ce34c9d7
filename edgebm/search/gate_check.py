"""Whether the chosen candidates reach the user's gates: the last look before a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from edgebm.data.classes import Assessment
from edgebm.data.metrics import Metric
from edgebm.data.significance import wilson
from edgebm.data.two_classes import OF_TWO
from edgebm.errors import GateFailed
from edgebm.search.found import Found
from edgebm.search.gate import GateResult, QualityGate
from edgebm.search.job import Job, Progress
from edgebm.search.judge import MetricJudge, ticking
from edgebm.search.runner import Runner
from edgebm.search.stateful import view_of


def check_gates(job: Job, found: Sequence[Found], progress: Progress) -> None:
    """Hold the chosen candidate of each target against the job's gates, and note the figures.

    A metric that is not the one candidates were judged by takes a run over the evaluation samples.

    Raises:
        GateFailed: a figure is not reached; names all of them. Nothing may be written then.
        BackendError: the runtime fails on the samples.
    """
    failed = []
    for each in found:
        each.gates = tuple(_checked(job, each, gate, progress) for gate in job.options.gates)
        where = "" if len(found) == 1 else f"{each.target.name}: "
        failed += [where + result.sentence for result in each.gates if not result.passed]
    if failed:
        raise GateFailed(
            "; ".join(failed),
            hint="no bundle was written; give a model that reaches this in float, more or more "
            "typical calibration samples, -r int8-accurate, or a smaller --max-drop",
            details={"gates": {e.target.name: [asdict(g) for g in e.gates] for e in found}},
        )


def _checked(job: Job, found: Found, gate: QualityGate, progress: Progress) -> GateResult:
    value, samples, low, high = _figure(job, found, gate, progress)
    passed = gate.passed(value)
    metric = gate.metric
    sentence = f"{metric.name} is {metric.text(value)}"
    if samples is not None and low is not None and high is not None:
        sentence += f" ({samples} samples, 95 % interval {low:.1f} to {high:.1f})"
    sentence += f" with {found.choice.chosen.candidate.id}; the gate asks for {gate.text}"
    return GateResult(
        gate.text, value, gate.limit, metric.unit, passed, sentence, samples, low, high
    )


def _figure(
    job: Job, found: Found, gate: QualityGate, progress: Progress
) -> tuple[float, int | None, float | None, float | None]:
    """The value, and of a share of one class its samples and the interval."""
    assessed = _assessed(job, found, gate.metric, progress)
    label = OF_TWO.get(gate.metric.name)
    if label is None or assessed.classes is None:
        return assessed.value, None, None, None
    count = assessed.classes.counts[assessed.classes.labels.index(label)]
    low, high = wilson(round(assessed.value / 100 * count), count)
    return assessed.value, count, 100 * low, 100 * high


def _assessed(job: Job, found: Found, metric: Metric, progress: Progress) -> Assessment:
    judge, score = found.judge, found.choice.chosen.score
    if isinstance(judge, MetricJudge):
        if metric.function is None:
            metric = replace(metric, output=judge.metric.output)
        if metric == judge.metric and score is not None and score.assessment is not None:
            return score.assessment
    labels = job.evaluation.labels
    view = view_of(job.face, job.states, job.evaluation, labels)

    def tick(done: int, count: int) -> None:
        progress(f"gate {metric.name}", done, count)

    with Runner(found.provable, job.face) as runner:
        feeds = job.evaluation.feeds()
        outputs = ticking(job.as_run(runner.run), feeds, len(job.evaluation), tick)
        return metric.assess(map(view.measured, outputs), labels)
