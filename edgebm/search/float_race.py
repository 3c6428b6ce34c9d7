"""The original against a student, both in float: does cutting pay on this machine?"""

from __future__ import annotations

from edgebm.runtime.journal import Journal
from edgebm.search.assemble import all_candidates, build_floats
from edgebm.search.deadline import Deadline
from edgebm.search.job import Job, Progress
from edgebm.search.measuring import Measuring
from edgebm.search.records import Records
from edgebm.target import Target

_RACE_S = 15.0
_FASTER = 1.02  # times as fast: what is less may be noise


def float_race(
    job: Job, target: Target, progress: Progress, journal: Journal, deadline: Deadline
) -> tuple[float, float] | None:
    """Milliseconds of the original and of the student in f32, each on its best runtime.

    None where the target is not this machine, or one of them was not timed.

    Args:
        job: of a student.
        target: whose runtimes and threads are tried.
        progress: of the measurement.
        journal: keeps the turns.
        deadline: of the run.

    Raises:
        BackendFailed: no runtime takes the model.
        OutOfTime: the time of the run is over.
    """
    if not target.is_host:
        return None
    records = Records(journal, job.face, job.sample())
    floats = build_floats(job, target, deadline, [])
    candidates = [c for c in all_candidates(job, target, floats) if c.config.precision == "f32"]
    race = Measuring(job, target, records, deadline, progress).race(candidates)
    race.run(
        min(_RACE_S, job.options.measure_s),
        lambda done, total: progress("measure the cut model", done, total),
    )
    times: dict[bool, list[float]] = {False: [], True: []}
    for candidate in candidates:
        if (ms := race.results[candidate.id].p50_ms) is not None:
            times[candidate.artifact.pruned].append(ms)
    return (min(times[False]), min(times[True])) if all(times.values()) else None


def not_faster(float_ms: tuple[float, float] | None) -> str:
    """Why cutting does not pay, with the figures; empty where it does, or nothing was timed."""
    if float_ms is None or float_ms[0] >= _FASTER * float_ms[1]:
        return ""
    return (
        f"in float it takes {float_ms[1]:.3g} ms where the original takes {float_ms[0]:.3g}: "
        "cutting does not pay on this target"
    )
