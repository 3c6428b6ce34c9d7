"""What is said where no candidate keeps the limits, on the figures of `test_choose`."""

from __future__ import annotations

from test_choose import FLOAT, World, candidate, timed

from edgebm.runtime.turns import P99_CALLS
from edgebm.search.choose import Limits
from edgebm.search.missed import missed_sentences


def said(world: World, recipe: str = "int8") -> list[str]:
    return missed_sentences(world.choose(), world.limits, recipe)


def test_nothing_where_every_limit_is_kept() -> None:
    assert said(World([(FLOAT, timed(4.0), 90.0), (candidate("int8"), timed(2.0), 90.0)])) == []


def test_a_fast_one_that_is_inaccurate_is_named_with_what_may_mend_it() -> None:
    world = World(
        [(FLOAT, timed(4.0), 90.0), (candidate("int8"), timed(2.0), 80.0)],
        Limits(max_latency_ms=3.0),
    )
    (sentence,) = said(world)
    assert sentence.startswith(
        "p50 (too few calls for p99) is 4.000 ms, 1.000 over max_latency_ms 3: "
        "openvino/int8/t1 takes 2.000 ms (p50), but top1 drops 10 points; 1 are allowed; "
        "try -r int8-accurate, or --ignored"
    )
    assert "int8-accurate" not in said(world, "int8-accurate")[0]
    assert "--max-drop" in said(world, "int8-accurate")[0]


def test_the_fastest_of_any_accuracy_is_named_where_none_is_fast_enough() -> None:
    world = World(
        [
            (FLOAT, timed(4.0), 90.0),
            (candidate("int8"), timed(2.9, calls=P99_CALLS, p99=3.1), 80.0),
        ],
        Limits(max_latency_ms=1.0),
    )
    (sentence,) = said(world)
    assert "3.000 over max_latency_ms 1" in sentence
    assert (
        "the fastest candidate of any accuracy, openvino/int8/t1, takes 3.100 ms (p99)" in sentence
    )


def test_the_chosen_one_may_itself_be_the_fastest() -> None:
    world = World(
        [(FLOAT, timed(4.0), 90.0), (candidate("int8"), timed(2.0), 90.0)],
        Limits(max_latency_ms=1.0),
    )
    assert "no candidate of any accuracy is faster" in said(world)[0]


def test_a_size_that_weights_of_four_bits_may_reach() -> None:
    world = World(
        [(FLOAT, timed(4.0), 90.0), (candidate("int8", kb=100), timed(2.0), 90.0)],
        Limits(max_size_mb=0.06),
    )
    assert said(world) == [
        "size is 0.100 MB, 0.040 over max_size_mb 0.06: no candidate of any accuracy is smaller; "
        "try -r w4, which stores weights in 4 bits, or a smaller model"
    ]
    assert "w4" not in said(world, "w4")[0]


def test_a_small_one_that_is_inaccurate() -> None:
    world = World(
        [(FLOAT, timed(4.0), 90.0), (candidate("int8", kb=50), timed(2.0), 80.0)],
        Limits(max_size_mb=0.06),
    )
    (sentence,) = said(world)
    assert "openvino/int8/t1 has 0.050 MB, but top1 drops 10 points" in sentence


def test_two_limits_that_no_candidate_keeps_together() -> None:
    quick = candidate("int8", kb=300)
    small = candidate("int8", runtime="onnxruntime", kb=90)
    world = World(
        [(FLOAT, timed(9.0), 90.0), (quick, timed(2.0), 90.0), (small, timed(6.0), 90.0)],
        Limits(max_latency_ms=3.0, max_size_mb=0.1),
    )
    (sentence,) = said(world)
    assert "the two limits together are too tight" in sentence


def test_what_cannot_run_is_no_measure() -> None:
    broken = candidate("int8", kb=10)
    failed = timed(0.5)
    failed.failed = "no kernel"
    world = World([(FLOAT, timed(4.0), 90.0), (broken, failed, 90.0)], Limits(max_size_mb=0.06))
    assert "no candidate of any accuracy is smaller" in said(world)[0]
