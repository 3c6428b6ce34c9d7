"""How long a compression will take: what a probe timed, times how often it will be done.

The factors that no probe gives are of the order of what was seen on a machine of two cores;
the whole is meant to be right within a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgebm.backends.runtimes import grids_of, is_gpu, runs_as
from edgebm.ir.annotate import has_ranges, quant_of, range_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.traits import weight_index
from edgebm.passes.catalog import AnyStep
from edgebm.passes.choose_ranges import ChooseRanges
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.distill import Distill
from edgebm.passes.gptq import Gptq
from edgebm.passes.gru_reset_before import GruResetBefore, turnable
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.passes.qat import Qat
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.smooth_activations import SmoothActivations
from edgebm.recipe import Recipe
from edgebm.runtime.turns import P99_CALLS, TURNS, calls_in_turn, turn_seconds
from edgebm.search.candidates import Candidate
from edgebm.search.half import STEP as CHECK_HALF
from edgebm.search.half import wants_half
from edgebm.search.job import Job
from edgebm.search.probe import Probe
from edgebm.search.sensitivity import MOST_SECONDS, SAMPLES
from edgebm.search.simulate import is_simulated
from edgebm.target import Target

Stage = tuple[str, float, str]  # its name, seconds, and how that was reckoned
_SURVIVE = 0.5  # of the candidates that are not dropped after two turns
_OPEN = 1.5  # times the load in float: an artifact is read, and compiled for its shapes
_TRIAL_CALLS = 5
_INTEGER = 0.5  # times a float call
_SIMULATE = 5.0  # times a float call: Q/DQ nodes computed one by one
_SMOOTH, _AGREEMENT, _FEW = 64, 64, 8  # samples that smoothing, agreement and errors look at
_TRIED = 4  # ranges of an activation that differ, today's among them
_SCORED = 2  # the float model, and the first candidate that passes
_PAGE = 3.0  # times the start of a process: the pictures of the report
_MULTIPLY, _MEMORY = 2e10, 1e9  # operations a second of numpy, in products and one by one


@dataclass(frozen=True, slots=True)
class Work:
    """What will be done for one target.

    Attributes:
        job: model and samples.
        target: the device.
        candidates: those that will be measured.
        seconds: what the steps took that were done already, by kind.
        placing_s: what it took to write the integers into graphs.
        decided: the graph with its decisions.
    """

    job: Job
    target: Target
    candidates: Sequence[Candidate]
    seconds: Mapping[str, float]
    placing_s: float
    decided: Model

    @property
    def steps(self) -> list[AnyStep]:
        """The steps of the recipe that run on samples."""
        return [step for step in self.job.steps if runs_on_samples(step, self.job)]

    @property
    def calibration(self) -> int:
        return len(self.job.calibration)

    @property
    def trials(self) -> list[Candidate]:
        """One candidate of each kind that is tried out in a process of its own."""
        here = (c for c in self.candidates if not is_simulated(c, self.target))
        runs = {c.answers_id: c for c in here}
        return list(runs.values())


def runs_on_samples(step: AnyStep, job: Job) -> bool:
    """Whether `step` needs samples, or takes them where there are some."""
    if isinstance(step, CorrectBias):
        return step.method != "analytic" and not job.made_up
    return step.needs_samples


def stages(work: Work, speed: Probe) -> list[Stage]:
    """Every stage of the search for one target, in order."""
    done = [(name, spent, "as long as it took now") for name, spent in work.seconds.items()]
    found = [*done, *(_step(step, work, speed) for step in work.steps)]
    if wants_half(work.job, work.target):
        found += [_half(work, speed)]
    found += [_grid(work, speed), _build(work, speed), _try_out(work, speed)]
    if work.target.is_host:
        found += [_measure(work, speed)]
    found += [_evaluate(work, speed), _repair(work, speed)]
    if work.target.is_host:
        found += [_measure_p99(work, speed)]
    few = min(_FEW, len(work.job.calls))
    seconds = 2 * speed.load_s + few * (1 + _SIMULATE) * speed.call_s
    found += [("compare layers", seconds, f"{few} samples, twice")]
    found += [
        ("inspect", 2 * speed.load_s, "the float model and the chosen one, opened once more")
    ]
    if work.job.recipe.explain:
        found += [
            ("explain", _blame_s(work, speed), "every layer alone and left out, in simulation")
        ]
    if work.job.recipe.shrinking and not work.job.made_up:
        found += [_students(work.job.recipe, sum(seconds for _, seconds, _ in found))]
    return found


def _students(recipe: Recipe, search_s: float) -> Stage:
    """What cutting and teaching take at most, and the search of each student."""
    tries = recipe.sparsity_search.tries if recipe.sparsity_search else 1
    taught_s = sum(s.planned_s for s in recipe.shrinking if isinstance(s, Distill))
    each = f"each taught for {taught_s / 60:g} minutes and searched like the whole model"
    how = f"at most {tries} students, {each}"
    return ("prune and teach", tries * (taught_s + search_s), how)


def write_stage(speed: Probe, targets: int) -> Stage:
    """Golden samples, self-test and report page."""
    page = _PAGE * max(speed.process_s.values())
    return ("write", page + targets * 3 * _OPEN * speed.load_s, "golden samples and the page")


def _step(step: AnyStep, work: Work, speed: Probe) -> Stage:
    count = work.calibration
    if isinstance(step, QuantizeActivations):
        seconds = speed.load_s + count * speed.sweep_s + speed.settle_s
        return (step.kind, seconds, f"{count} samples at {_short(speed.sweep_s)}")
    if isinstance(step, (GruResetBefore, LearnRounding, Qat)):
        return _training(step, work, speed)
    if isinstance(step, SmoothActivations):
        count = min(_SMOOTH, count) if _may_smooth(work.job.model) else 0
    one = speed.call_s + speed.read_s
    if isinstance(step, CorrectBias):
        count, one = min(step.samples, count), 2 * _SIMULATE * speed.call_s + speed.read_s
    seconds = count * one + (speed.load_s if count else 0.0)
    if isinstance(step, Gptq):
        per_sample, rest = _gptq_seconds(work.decided, _rows(work.job))
        seconds += count * per_sample + rest
        return (step.kind, seconds, f"{count} samples, and rounding each matrix")
    if isinstance(step, CorrectBias):
        few = min(step.samples, count)
        # Each layer beside its float twin, the outputs, and on half the samples both once more.
        seconds = 6 * speed.load_s + few * (2.5 + 3 * _SIMULATE) * speed.call_s
        return (step.kind, seconds, f"{few} samples, three times")
    if isinstance(step, ChooseRanges):
        calls = _TRIED * min(step.samples, count) * _ranges(work.decided)
        seconds += 2 * speed.load_s + calls * _SIMULATE * speed.call_s
        return (step.kind, seconds, f"{count} samples, and {calls} calls of the simulated model")
    return (step.kind, seconds, f"{count} samples at {_short(one)}")


def _training(step: GruResetBefore | LearnRounding | Qat, work: Work, speed: Probe) -> Stage:
    if isinstance(step, LearnRounding):
        return (step.kind, step.seconds, "training of each stage, where torch is installed")
    if isinstance(step, Qat):
        return (step.kind, step.planned_s, "training with all rounding in place")
    grus = sum(map(turnable, work.decided.nodes("GRU")))
    seconds = step.seconds + 3 * grus * work.calibration * speed.call_s if grus else 0.0
    return (step.kind, seconds, f"training of {grus} cells")


def _ranges(decided: Model) -> int:
    """Activations that are to be quantized."""
    values = [*decided.graph.graph.inputs, *(v for n in decided.nodes() for v in n.outputs)]
    return sum(range_of(value) is not None for value in values)


def _may_smooth(model: Model) -> bool:
    """Whether some product reads more than one vector a sample."""
    reads = (n.inputs[0] for n in model.nodes("MatMul", "Gemm") if weight_index(n) == 1)
    return any(value is not None and len(value.shape or ()) > 2 for value in reads)


def _rows(job: Job) -> int:
    """Vectors that a layer sees of one sample: the positions of the longest input."""
    return max(math.prod(array.shape[:2]) for array in job.sample().values())


def _gptq_seconds(decided: Model, rows: int) -> tuple[float, float]:
    """For each sample, and once: second moments, and rounding with them."""
    per_sample = once = 0.0
    for node in decided.nodes("MatMul", "Gemm"):
        weight = const(node.inputs[1])
        if weight is None or weight.ndim != 2 or quant_of(node.inputs[1]) is None:
            continue
        inputs, outputs = sorted(weight.shape)  # which is which hardly matters here
        per_sample += 2 * rows * inputs**2 / _MULTIPLY
        once += inputs * 128 * outputs / _MEMORY + 4 * inputs**3 / _MULTIPLY
    return per_sample, once


def _half(work: Work, speed: Probe) -> Stage:
    """Every value of the model and of its decided form, on every calibration sample."""
    each = len(work.job.calibration) * (_SIMULATE * speed.call_s + speed.read_s)
    return (CHECK_HALF, 2 * (speed.load_s + each), f"{len(work.job.calibration)} samples, twice")


def _grid(work: Work, speed: Probe) -> Stage:
    grids = grids_of(work.target.runtimes, frozenset(work.target.features))
    if len(grids) == 1 or not has_ranges(work.decided):
        return ("choose grid", 0.0, "nothing to choose")
    few = min(_FEW, work.calibration)
    each = 3 * speed.load_s + few * (1 + _SIMULATE) * speed.call_s
    return ("choose grid", len(grids) * each, f"{len(grids)} grids on {few} samples")


def _build(work: Work, speed: Probe) -> Stage:
    kinds = {(c.artifact.runtime, c.artifact.kind, c.artifact.promise) for c in work.candidates}
    seconds = work.placing_s + len(kinds) * speed.load_s
    return ("build", seconds, f"{len(kinds)} artifacts")


def _try_out(work: Work, speed: Probe) -> Stage:
    each = [
        speed.process_s[runs_as(c.artifact.runtime)]
        + _OPEN * speed.load_s
        + _TRIAL_CALLS * _call(c, work.target, speed)
        for c in work.trials
    ]
    return ("try out", sum(each), f"{len(each)} processes, one after the other")


def _measure(work: Work, speed: Probe) -> Stage:
    """Two turns of all, then turns of those that are left, until there are 12 or time is over."""
    turns = [turn_seconds(_call(c, work.target, speed)) for c in work.candidates]
    opening = len(turns) * _OPEN * speed.load_s
    two = opening + 2 * sum(turns)
    all_turns = two + (TURNS - 2) * _SURVIVE * sum(turns)
    seconds = min(all_turns, max(two, work.job.options.measure_s))
    return ("measure", seconds, f"{len(turns)} candidates in turns, slow ones dropped")


def _evaluate(work: Work, speed: Probe) -> Stage:
    lengths = work.job.evaluation.lengths
    total = len(lengths)
    simulated = work.target.missing() or any(map(is_gpu, work.target.runtimes))
    slow = _SIMULATE if simulated else 1.0
    compared = total if speed.judged_by == "agreement" else min(_AGREEMENT, total)
    calls = 2 * sum(lengths[:compared]) + (sum(lengths) if speed.judged_by == "metric" else 0)
    each = _OPEN * speed.load_s + calls * (slow * speed.call_s + speed.read_s)
    how = {
        "metric": f"{_SCORED} candidates on {total} samples",
        "agreement": f"{_SCORED} candidates beside the float model on {total} samples",
        "program": f"{_SCORED} candidates without your program, whose time is not known",
    }[speed.judged_by]
    return ("evaluate", _SCORED * each, f"{how}; each more that fails takes {_short(each)}")


def _repair(work: Work, speed: Probe) -> Stage:
    """Only where integers turn out not to be accurate enough, which no plan can know."""
    recipe = work.job.recipe.repair
    if recipe is None or not has_ranges(work.decided):
        return ("repair", 0.0, "the recipe has none")
    each = _try_out(work, speed)[1] / max(1, len(work.trials))
    each += _evaluate(work, speed)[1] / _SCORED
    return (
        "repair",
        0.0,
        f"only if integers are not accurate enough: then {_short(_blame_s(work, speed))} to rank "
        f"the layers, and up to {recipe.tries} times {_short(each)}",
    )


def _blame_s(work: Work, speed: Probe) -> float:
    """To put each layer on integers alone, and to leave each out."""
    layers = max((len(c.artifact.integer_nodes) for c in work.candidates), default=0)
    samples = min(SAMPLES, work.calibration)
    return min(MOST_SECONDS, 2 * layers * samples * _SIMULATE * speed.call_s)


def _measure_p99(work: Work, speed: Probe) -> Stage:
    calls = max(0.0, P99_CALLS - TURNS * calls_in_turn(speed.call_s))
    if 2 * P99_CALLS * speed.call_s > work.job.options.measure_s:
        return ("measure p99", 0.0, "too slow for the calls that it needs within the budget")
    each = turn_seconds(speed.call_s) / calls_in_turn(speed.call_s)
    return ("measure p99", 2 * calls * each, f"{calls:.0f} more calls of two candidates")


def _call(candidate: Candidate, target: Target, speed: Probe) -> float:
    """A call on fewer threads than were probed is slower, but not by as much."""
    most = max(target.threads)
    threads = (most / min(most, candidate.config.threads)) ** 0.5
    integer = 1.0 if candidate.artifact.kind == "float" else _INTEGER
    return float(speed.call_s * threads * integer)


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
