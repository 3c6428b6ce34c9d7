"""The choice, on hand-made figures: what is taken, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from graphs import random_model

from edgebm.data.agreement import Agreement
from edgebm.errors import BackendFailed
from edgebm.runtime.turns import P99_CALLS, Measurement
from edgebm.search.candidates import Artifact, Candidate, enumerate_candidates
from edgebm.search.choose import Choice, Chooser, Limits
from edgebm.search.judge import Score
from edgebm.search.promise import promise_note
from edgebm.spec import EngineConfig

UNKNOWN = -2.0  # in place of a metric: time was over before it was scored
FAILS = -1.0  # in place of a metric: the runtime fails when it is scored
MODEL = random_model("g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }")


def candidate(
    kind: str,
    *,
    runtime: str = "openvino",
    threads: int = 1,
    kb: int = 100,
    precision: str = "f32",
) -> Candidate:
    artifact = Artifact(runtime, kind, {"model": bytes(kb * 1000)}, MODEL)
    return Candidate(artifact, EngineConfig(precision=precision, threads=threads))


def timed(p50: float, *, calls: int = 0, p99: float = 0.0) -> Measurement:
    slow = max(1, calls // 50)
    values = [p50] * (calls - slow) + [p99 or p50] * slow if calls else []
    return Measurement(turns_ms=[p50] * 3, calls_ms=values)


@dataclass
class Fixed:
    """A judge of fixed values: accurate is within `allowed` of the float model's."""

    allowed: float = 1.0
    name: str = "top1"
    unit: str = "points"
    higher_is_better: bool = True
    floor: str = ""
    is_relative: bool = False

    def accepts(self, before: Score, after: Score) -> tuple[bool, str]:
        assert before.value is not None
        assert after.value is not None
        drop = before.value - after.value
        return drop <= self.allowed, f"top1 drops {drop:g} points; {self.allowed:g} are allowed"


@dataclass
class World:
    """Candidates with their figures; counts what is scored and what earns a p99."""

    entries: Sequence[tuple[Candidate, Measurement, float]]
    limits: Limits = field(default_factory=Limits)
    prefer: str = "latency"
    scored: list[str] = field(default_factory=list)
    earned: list[str] = field(default_factory=list)

    def choose(self) -> Choice:
        values = {c.answers_id: value for c, _, value in self.entries}

        def score(each: Candidate) -> Score | None:
            if values[each.answers_id] == UNKNOWN:
                return None
            self.scored.append(each.answers_id)
            if values[each.answers_id] == FAILS:
                raise BackendFailed("no kernel for this sample")
            return Score(values[each.answers_id], Agreement({}, 1))

        chooser = Chooser(
            Fixed(),  # type: ignore[arg-type]
            self.limits,
            score,
            self.earned.append,
            self.prefer,
        )
        return chooser.choose(
            [c for c, _, _ in self.entries], {c.id: m for c, m, _ in self.entries}
        )


FLOAT = candidate("float", kb=400)


def statuses(choice: Choice) -> dict[str, str]:
    return {o.candidate.id: o.status for o in choice.outcomes}


def test_the_fastest_accurate_one_wins() -> None:
    quick, good = candidate("int8", runtime="onnxruntime"), candidate("int8")
    world = World([(FLOAT, timed(4.0), 90.0), (good, timed(2.0), 89.5), (quick, timed(1.0), 80.0)])
    choice = world.choose()
    assert choice.chosen.candidate is good
    assert choice.missed == []
    assert statuses(choice) == {
        FLOAT.id: "slower", good.id: "chosen", quick.id: "inaccurate",
    }  # fmt: skip
    whys = {o.candidate.id: o.why for o in choice.outcomes}
    assert whys[quick.id] == "top1 drops 10 points; 1 are allowed"
    assert whys[FLOAT.id] == "2.00 times the chosen one's latency"


def test_scoring_stops_at_the_first_that_passes() -> None:
    first, second = candidate("int8"), candidate("int8", runtime="onnxruntime")
    world = World(
        [(FLOAT, timed(4.0), 90.0), (second, timed(2.0), 90.0), (first, timed(1.0), 90.0)]
    )
    world.choose()
    assert world.scored == [FLOAT.answers_id, first.answers_id]


def test_thread_counts_share_one_score() -> None:
    one, two = candidate("int8", threads=1), candidate("int8", threads=2)
    world = World([(FLOAT, timed(4.0), 90.0), (one, timed(2.0), 50.0), (two, timed(1.0), 50.0)])
    choice = world.choose()
    assert world.scored == [FLOAT.answers_id, one.answers_id]
    assert choice.chosen.candidate is FLOAT


def test_float_wins_where_nothing_beats_it() -> None:
    slow = candidate("int8")
    choice = World([(slow, timed(5.0), 90.0), (FLOAT, timed(4.0), 90.0)]).choose()
    assert choice.chosen is choice.baseline
    assert choice.chosen.candidate is FLOAT
    assert statuses(choice)[slow.id] == "slower"
    assert choice.missed == []


def test_the_baseline_is_the_fastest_f32_float() -> None:
    other = candidate("float", runtime="onnxruntime")
    bf16 = candidate("float", precision="bf16")
    choice = World(
        [(FLOAT, timed(4.0), 90.0), (other, timed(3.0), 90.0), (bf16, timed(2.0), 90.0)]
    ).choose()
    assert choice.baseline.candidate is other
    assert choice.chosen.candidate is bf16


def test_a_size_limit() -> None:
    small, big = candidate("int8", kb=90), candidate("int8", runtime="onnxruntime", kb=150)
    world = World(
        [(FLOAT, timed(4.0), 90.0), (small, timed(2.0), 90.0), (big, timed(1.0), 90.0)],
        Limits(max_size_mb=0.1),
    )
    choice = world.choose()
    assert choice.chosen.candidate is small
    over = next(o for o in choice.outcomes if o.candidate is big)
    assert over.status == "over_limit"
    assert over.why == "size is 0.150 MB, 0.050 over max_size_mb 0.1"
    assert big.answers_id not in world.scored, "no run is spent on what cannot be taken"


def test_a_latency_limit_is_about_the_p99() -> None:
    jumpy, steady = candidate("int8"), candidate("int8", runtime="onnxruntime")
    world = World(
        [
            (FLOAT, timed(4.0), 90.0),
            (jumpy, timed(1.0, calls=P99_CALLS, p99=9.0), 90.0),
            (steady, timed(2.0, calls=P99_CALLS), 90.0),
        ],
        Limits(max_latency_ms=3.0),
    )
    choice = world.choose()
    assert choice.chosen.candidate is steady
    assert jumpy.id in world.earned
    why = next(o.why for o in choice.outcomes if o.candidate is jumpy)
    assert why == "p99 is 9.000 ms, 6.000 over max_latency_ms 3"


def test_without_enough_calls_the_p50_is_shown_as_such() -> None:
    only = candidate("int8")
    choice = World(
        [(FLOAT, timed(8.0), 90.0), (only, timed(5.0), 90.0)], Limits(max_latency_ms=3.0)
    ).choose()
    assert choice.chosen.candidate is only
    assert choice.missed == [
        "p50 (too few calls for p99) is 5.000 ms, 2.000 over max_latency_ms 3"
    ]


def test_when_nothing_keeps_every_limit_the_least_bad_is_taken() -> None:
    wrong, large = candidate("int8", kb=50), candidate("int8", runtime="onnxruntime", kb=300)
    world = World(
        [(FLOAT, timed(4.0), 90.0), (wrong, timed(1.0), 10.0), (large, timed(2.0), 89.9)],
        Limits(max_size_mb=0.1),
    )
    choice = world.choose()
    assert choice.chosen.candidate is large, "accurate comes before small"
    assert choice.chosen.status == "chosen"
    assert choice.chosen.why == "nothing keeps every limit; this comes closest"
    assert choice.missed == ["size is 0.300 MB, 0.200 over max_size_mb 0.1"]
    assert statuses(choice)[wrong.id] == "inaccurate"
    assert all(o.status and o.why for o in choice.outcomes)


def test_fewer_missed_limits_are_less_bad() -> None:
    quick, slow = candidate("int8", kb=300), candidate("int8", runtime="onnxruntime", kb=90)
    world = World(
        [(FLOAT, timed(9.0), 90.0), (quick, timed(5.0), 90.0), (slow, timed(6.0), 90.0)],
        Limits(max_latency_ms=3.0, max_size_mb=0.1),
    )
    choice = world.choose()
    assert choice.chosen.candidate is slow
    assert len(choice.missed) == 1


def test_failed_and_dropped_candidates_keep_their_reason() -> None:
    broken, late = candidate("int8"), candidate("int8", runtime="onnxruntime")
    dropped = timed(6.0)
    dropped.dropped = "1.50 times the fastest after 2 turns"
    world = World(
        [
            (broken, Measurement(failed="openvino failed running: no kernel"), 90.0),
            (FLOAT, timed(4.0), 90.0),
            (late, dropped, 90.0),
        ]
    )
    choice = world.choose()
    assert choice.chosen.candidate is FLOAT
    by_id = {o.candidate.id: o for o in choice.outcomes}
    assert (by_id[broken.id].status, by_id[broken.id].why) == (
        "failed", "openvino failed running: no kernel",
    )  # fmt: skip
    assert (by_id[late.id].status, by_id[late.id].why) == ("dropped", dropped.dropped)
    assert broken.answers_id not in world.scored


def test_a_candidate_that_fails_on_the_samples_is_not_the_end() -> None:
    broken, good = candidate("int8"), candidate("int8", runtime="onnxruntime")
    world = World(
        [(FLOAT, timed(4.0), 90.0), (broken, timed(1.0), FAILS), (good, timed(2.0), 90.0)]
    )
    choice = world.choose()
    assert choice.chosen.candidate is good
    assert statuses(choice)[broken.id] == "failed"
    assert choice.outcomes[1].why == "no kernel for this sample"
    limited = World(
        [(FLOAT, timed(4.0), 90.0), (broken, timed(1.0), FAILS)], Limits(max_size_mb=0.01)
    ).choose()
    assert limited.chosen.candidate is FLOAT
    assert statuses(limited)[broken.id] == "failed"


def test_a_float_model_that_fails_is() -> None:
    with pytest.raises(BackendFailed, match="no kernel"):
        World([(FLOAT, timed(4.0), FAILS), (candidate("int8"), timed(1.0), 90.0)]).choose()


def test_a_dropped_candidate_can_still_be_the_one_that_keeps_the_limits() -> None:
    """It is slower, not wrong: with a size limit it may be all there is."""
    small = candidate("int8", kb=50)
    dropped = timed(9.0)
    dropped.dropped = "2.25 times the fastest after 2 turns"
    choice = World(
        [(FLOAT, timed(4.0), 90.0), (small, dropped, 90.0)], Limits(max_size_mb=0.1)
    ).choose()
    assert choice.chosen.candidate is small
    assert choice.chosen.status == "chosen"
    assert choice.missed == []


def test_where_nothing_is_timed_the_order_is_the_preference() -> None:
    first, second = candidate("int8"), candidate("int8", runtime="onnxruntime")
    nothing = Measurement()
    choice = World(
        [(first, nothing, 90.0), (second, nothing, 90.0), (FLOAT, nothing, 90.0)]
    ).choose()
    assert choice.chosen.candidate is first
    assert "not timed here" in choice.chosen.why
    assert {o.why for o in choice.outcomes if o is not choice.chosen} == {
        "later in the order of preference"
    }
    assert set(statuses(choice).values()) == {"chosen", "not_measured"}
    inaccurate = World([(first, nothing, 10.0), (second, nothing, 90.0), (FLOAT, nothing, 90.0)])
    assert inaccurate.choose().chosen.candidate is second


def test_names_of_candidates() -> None:
    assert candidate("float").id == "openvino/f32/t1"
    assert candidate("float", precision="bf16").precision == "bf16"
    assert candidate("int8", precision="bf16", threads=4).id == "openvino/int8+bf16/t4"
    assert candidate("int8+attention").precision == "int8+attention"
    assert candidate("float").is_float_baseline
    assert not candidate("float", precision="bf16").is_float_baseline
    assert candidate("int8", kb=3).artifact.size_bytes == 3000


def test_every_artifact_at_every_thread_count() -> None:
    artifacts = [candidate("int8", runtime=r).artifact for r in ("openvino", "onnxruntime")]
    found = enumerate_candidates(
        artifacts, threads=(1, 2), precisions=("f32", "bf16"), static_shapes=()
    )
    assert sorted(c.id for c in found) == [
        "onnxruntime/int8/t1", "onnxruntime/int8/t2",
        "openvino/int8+bf16/t1", "openvino/int8+bf16/t2", "openvino/int8/t1", "openvino/int8/t2",
    ]  # fmt: skip


@pytest.mark.parametrize("calls", [0, P99_CALLS - 1])
def test_a_p99_has_to_be_earned(calls: int) -> None:
    assert Measurement(turns_ms=[1.0], calls_ms=[1.0] * calls).p99_ms is None
    assert Measurement().p50_ms is None


def test_percentiles() -> None:
    values = [float(k) for k in range(1000)]
    found = Measurement(turns_ms=[3.0, 1.0, 2.0], calls_ms=values)
    assert found.p99_ms == 990.0
    assert found.p50_ms == 2.0


def test_what_was_not_scored_in_time_is_passed_over() -> None:
    first, second = candidate("int8"), candidate("int8", runtime="onnxruntime")
    choice = World(
        [(FLOAT, timed(4.0), 90.0), (first, timed(1.0), UNKNOWN), (second, timed(2.0), 90.0)]
    ).choose()
    assert choice.chosen.candidate is second
    assert statuses(choice) == {
        FLOAT.id: "slower", first.id: "not_evaluated", second.id: "chosen",
    }  # fmt: skip
    assert choice.chosen.why.endswith("of those evaluated before the run ended")


def test_what_was_not_timed_in_time_is_passed_over() -> None:
    late = candidate("int8")
    choice = World([(late, Measurement(), 90.0), (FLOAT, timed(4.0), 90.0)]).choose()
    assert choice.chosen.candidate is FLOAT
    assert statuses(choice)[late.id] == "not_measured"


@pytest.mark.parametrize("float_time", [Measurement(), timed(4.0)])
def test_without_any_score_the_float_model_is_taken_as_it_is(float_time: Measurement) -> None:
    other, bf16 = candidate("int8"), candidate("float", precision="bf16")
    world = World(
        [(other, timed(1.0), UNKNOWN), (bf16, timed(2.0), UNKNOWN), (FLOAT, float_time, UNKNOWN)]
    )
    choice = world.choose()
    assert choice.chosen is choice.baseline
    assert choice.chosen.candidate is FLOAT
    assert choice.chosen.score is None
    assert "as it is" in choice.chosen.why
    assert statuses(choice)[other.id] == statuses(choice)[bf16.id] == "not_evaluated"
    assert choice.missed == []


def test_without_any_score_limits_are_still_judged() -> None:
    world = World(
        [(candidate("int8"), timed(1.0), UNKNOWN), (FLOAT, timed(4.0), UNKNOWN)],
        Limits(max_size_mb=0.3),
    )
    choice = world.choose()
    assert choice.chosen.candidate is FLOAT
    assert "over max_size_mb" in choice.missed[0]


def test_where_small_is_preferred_the_smallest_accurate_one_wins() -> None:
    small, crude = candidate("w8", kb=110), candidate("w4", kb=60)
    world = World(
        [(FLOAT, timed(1.0), 90.0), (small, timed(3.0), 89.5), (crude, timed(2.0), 70.0)],
        prefer="size",
    )
    choice = world.choose()
    assert choice.chosen.candidate is small
    assert choice.chosen.why == "the smallest that keeps every limit"
    assert statuses(choice) == {FLOAT.id: "larger", small.id: "chosen", crude.id: "inaccurate"}
    whys = {o.candidate.id: o.why for o in choice.outcomes}
    assert whys[FLOAT.id] == "3.64 times the chosen one's size"


def test_of_about_the_same_size_the_fastest_wins() -> None:
    first, second = candidate("w4", kb=60), candidate("w4", runtime="onnxruntime", kb=65)
    third = candidate("w4-packed", runtime="onnxruntime", kb=67)
    world = World(
        [
            (FLOAT, timed(1.0), 90.0),
            (first, timed(3.0), 90.0),
            (second, timed(2.0), 90.0),
            (third, timed(1.5), 90.0),
        ],
        prefer="size",
    )
    choice = world.choose()
    assert choice.chosen.candidate is second, "within a tenth; the third is beyond that"
    assert statuses(choice)[first.id] == "slower"
    assert statuses(choice)[third.id] == "larger"


def test_a_promise_is_timed_and_never_taken() -> None:
    promised = candidate("int8")
    promised = replace(promised, artifact=replace(promised.artifact, promise=True))
    world = World([(FLOAT, timed(4.0), 90.0), (promised, timed(1.0), 90.0)])
    choice = world.choose()
    assert choice.chosen.candidate is FLOAT
    assert statuses(choice)[promised.id] == "needs_samples"
    assert world.scored == [FLOAT.answers_id]
    assert "needs samples (-d)" in choice.outcomes[1].why
    assert promise_note(choice) == (
        "with samples (-d), static INT8 could run in 1 ms (openvino/int8/t1), "
        "4.0 times as fast as what was chosen"
    )


def test_a_promise_that_gains_nothing_says_that() -> None:
    promised = candidate("int8")
    promised = replace(promised, artifact=replace(promised.artifact, promise=True))
    choice = World([(FLOAT, timed(1.0), 90.0), (promised, timed(1.5), 90.0)]).choose()
    assert promise_note(choice) == (
        "with samples (-d), static INT8 would be no faster: 1.5 ms (openvino/int8/t1)"
    )
    assert promise_note(World([(FLOAT, timed(1.0), 90.0)]).choose()) == ""
