"""A plan against what is really built: same candidates, same nodes, same reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_models import (
    FRAMES,
    IDS,
    IMAGES,
    RNG,
    X,
    cnn,
    recurrent,
    short_recipe,
    small,
    transformer,
)

from edgebm.backends.dialects import cpu_grids
from edgebm.ir.model import Model
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.recipe import Recipe, load_recipe
from edgebm.runtime.turns import turn_seconds
from edgebm.search.assemble import Graphs, all_candidates, build_floats
from edgebm.search.candidates import Artifact
from edgebm.search.estimate import Work, stages
from edgebm.search.job import Options
from edgebm.search.plan import plan_target
from edgebm.search.prepare import prepare
from edgebm.search.probe import Probe
from edgebm.search.target import Search
from edgebm.target import load_target

CASES: dict[str, tuple[Callable[[], Model], Any, str]] = {
    "cnn": (cnn, {"image": IMAGES}, "int8"),
    "transformer": (transformer, {"ids": IDS}, "int8"),
    "small": (small, X, "int8"),
    "weights": (transformer, {"ids": IDS}, "w8"),
    "four bits": (transformer, {"ids": IDS}, "w4"),
    "without samples": (small, None, "int8"),
    "float": (small, X, "fp32"),
    "recurrent": (recurrent, FRAMES, "int8"),
}


@pytest.mark.parametrize("target", ["host", "cpu-x86-avx2", "raspberry-pi-5"])
@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_what_is_built(name: str, target: str) -> None:
    build, data, recipe = CASES[name]
    board = load_target(target)
    planned = plan_target(prepare(build(), short_recipe(recipe), Options(), data=data), board)
    job = prepare(build(), short_recipe(recipe), Options(), data=data)
    search = Search(job, board, lambda step, done, total: None)
    decided = search.decisions.passes()
    floats = build_floats(job, board, search.deadline, search.failures)
    graphs = Graphs(decided, search.decisions.turned(decided))
    search._build(graphs, search.decisions.grids(decided), floats)
    artifacts = [*search.integers, *floats]
    assert [_facts(each) for each in planned.artifacts] == [_facts(each) for each in artifacts]
    assert [c.id for c in planned.work.candidates] == [
        c.id for c in all_candidates(job, board, artifacts)
    ]
    assert planned.failures == search.failures
    assert not any(each.files for each in planned.artifacts)


def _facts(artifact: Artifact) -> Any:
    return (
        artifact.runtime,
        artifact.kind,
        artifact.integer_nodes,
        dict(artifact.reasons),
        dict(artifact.weight_bits),
        artifact.promise,
    )


def test_the_model_is_left_as_it_was() -> None:
    job = prepare(cnn(), load_recipe("int8"), Options(), data={"image": IMAGES})
    before = job.model.to_bytes()
    plan_target(job, load_target("host"))
    assert job.model.to_bytes() == before


SPEED = Probe(
    load_s=0.5,
    call_s=0.01,
    read_s=0.001,
    sweep_s=0.02,
    settle_s=0.1,
    process_s={"openvino": 1.0, "onnxruntime": 0.6},
    judged_by="agreement",
)


def work(recipe: str | Recipe = "int8", *, target: str = "host", **options: Any) -> Work:
    plan = load_recipe(recipe) if isinstance(recipe, str) else recipe
    samples = {"ids": RNG.integers(0, 200, (200, 12))}
    job = prepare(transformer(), plan, Options(**options), data=samples)
    return plan_target(job, load_target(target)).work


def seconds(of: Work, speed: Probe = SPEED) -> dict[str, float]:
    return {name: spent for name, spent, _ in stages(of, speed)}


def test_calibration_grows_with_the_samples() -> None:
    many, few = seconds(work()), seconds(work(subset_size=20))
    assert many["quantize_activations"] - few["quantize_activations"] == pytest.approx(140 * 0.02)
    # Smoothing looks at 64 samples at the most.
    assert many["smooth_activations"] - few["smooth_activations"] == pytest.approx(44 * 0.011)


def test_measuring_ends_with_the_budget() -> None:
    whole, short = work(threads=(1,)), work(threads=(1,), measure_s=0.1)
    slow = replace(SPEED, call_s=0.05)
    assert seconds(short, slow)["measure"] < seconds(whole, slow)["measure"] <= 60.0
    # Two turns of each are taken however little time there is.
    assert seconds(short, slow)["measure"] > 2 * len(short.candidates) * turn_seconds(0.025)


def test_another_board_is_not_timed() -> None:
    found = seconds(work(target="raspberry-pi-5"))
    assert not {"measure", "measure p99"} & set(found)
    assert found["evaluate"] > 0


def test_a_program_of_the_user_is_not_in_the_estimate() -> None:
    texts = {
        judge: next(
            (spent, how)
            for name, spent, how in stages(work(), replace(SPEED, judged_by=judge))
            if name == "evaluate"
        )
        for judge in ("agreement", "metric", "program")
    }
    assert "your program" in texts["program"][1]
    assert "float model" in texts["agreement"][1]
    assert texts["program"][0] <= texts["metric"][0]


def test_rounding_with_second_moments_costs_its_share() -> None:
    steps = (QuantizeWeightsOnly(bits=4, block_size=32),)
    plain = seconds(work(replace(load_recipe("w4"), steps=steps)))
    assert "gptq" not in plain
    assert seconds(work("w4"))["gptq"] > 160 * (SPEED.call_s + SPEED.read_s)


def test_the_grid_is_chosen_only_where_there_is_a_choice() -> None:
    board = load_target("cpu-x86-avx2")
    assert len(cpu_grids(frozenset(board.features))) == 2
    assert seconds(work(target="cpu-x86-avx2"))["choose grid"] > 0
    assert seconds(work("w8", target="cpu-x86-avx2"))["choose grid"] == 0
    assert np.isfinite(list(seconds(work(target="cpu-x86-avx2")).values())).all()
