from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.fit import Part, Schedule, Task, fit  # noqa: E402
from edgebm.grad.losses import Each, relative_mse  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402

torch.set_num_threads(1)
STUDENT = (
    "g (float[8,6] x) => (float[8,3] y) { h = MatMul(x, w1)\n a = Tanh(h)\n y = MatMul(a, w2) }"
)
SHAPES = {"w1": (6, 12), "w2": (12, 3)}


def student() -> GraphModule:
    return GraphModule(random_model(STUDENT, seed=1, **SHAPES))


def task(student_of: GraphModule | None = None) -> Task:
    """To do as another network of the same form does, on normal inputs."""
    teacher = student_of or GraphModule(random_model(STUDENT, seed=2, **SHAPES))
    held_out = torch.randn(64, 6, generator=torch.Generator().manual_seed(9))

    def batches(step: int, generator: torch.Generator) -> list[Part]:
        x = torch.randn(32, 6, generator=generator)
        with torch.no_grad():
            return [Part({"x": x}, teacher({"x": x}))]

    def judge(module: GraphModule) -> float:
        got, want = module({"x": held_out})["y"], teacher({"x": held_out})["y"]
        return float(relative_mse(got, want))

    return Task(batches, Each({"y": relative_mse}), judge)


def weights(module: GraphModule) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in module.weights.items()}


def test_a_student_comes_near_its_teacher() -> None:
    module, seen = student(), []
    done = fit(
        module, task(), Schedule(300, 0.02, check_every=50),
        progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert done.steps == 300
    assert done.ended == "complete"
    assert done.before > 0.5
    assert done.best < 0.05
    with torch.no_grad():
        assert task().judge(module) == pytest.approx(done.best)
    assert seen == [(i, 300) for i in range(1, 301)]


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    found = []
    before = torch.random.get_rng_state()
    for seed in (3, 3, 4):
        module = student()
        fit(module, task(), Schedule(20), seed=seed)
        found.append(weights(module)["w1"])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_best_weights_are_kept_not_the_last() -> None:
    module = student()
    before = weights(module)
    # A rate that throws it about; what it begins with is the teacher itself.
    done = fit(module, task(student()), Schedule(20, 3.0, max_norm=1e9))
    assert done.best == 0.0
    for name, array in before.items():
        np.testing.assert_array_equal(weights(module)[name], array)


def test_it_ends_when_nothing_gets_better() -> None:
    done = fit(student(), task(student()), Schedule(500, 1e-3, check_every=5, patience=3))
    assert (done.ended, done.steps) == ("no better", 15)


def test_the_clock_is_a_hard_limit() -> None:
    done = fit(student(), task(), Schedule(10_000, seconds=0.0))
    assert (done.ended, done.steps) == ("out of time", 1)
    assert done.best <= done.before


def test_a_loss_that_is_not_finite_ends_it() -> None:
    good = task()

    def broken(step: int, generator: torch.Generator) -> list[Part]:
        (part,) = good.batches(step, generator)
        return [Part(part.feeds, {"y": part.targets["y"] * math.inf})]

    module = student()
    before = weights(module)
    done = fit(module, Task(broken, good.objective, good.judge), Schedule(5))
    assert (done.ended, done.steps) == ("diverged", 0)
    np.testing.assert_array_equal(weights(module)["w1"], before["w1"])


def test_what_was_best_before_it_diverged_is_kept() -> None:
    good = task()

    def later(step: int, generator: torch.Generator) -> list[Part]:
        (part,) = good.batches(step, generator)
        return [part if step < 20 else Part(part.feeds, {"y": part.targets["y"] * math.nan})]

    module = student()
    done = fit(module, Task(later, good.objective, good.judge), Schedule(50, 0.02, check_every=7))
    assert (done.ended, done.steps) == ("diverged", 20)
    assert done.best < done.before
    with torch.no_grad():
        assert good.judge(module) == pytest.approx(done.best)


def test_frozen_weights_stay() -> None:
    model = random_model(STUDENT, seed=1, **SHAPES)
    module = GraphModule(model, trainable=lambda name: name == "w2")
    before = weights(module)
    fit(module, task(), Schedule(5))
    np.testing.assert_array_equal(weights(module)["w1"], before["w1"])
    assert not np.array_equal(weights(module)["w2"], before["w2"])


def test_no_step_changes_nothing() -> None:
    done = fit(student(), task(), Schedule(0))
    assert (done.steps, done.ended) == (0, "complete")
    assert done.best == done.before


def test_a_rate_that_undoes_what_is_there_is_lowered_and_leaves_no_trace() -> None:
    teacher = GraphModule(random_model(STUDENT, seed=2, **SHAPES))

    def near() -> GraphModule:
        module = GraphModule(random_model(STUDENT, seed=2, **SHAPES))
        with torch.no_grad():
            for weight in module.weights.values():
                weight.mul_(1.02)
        return module

    tried, plain = near(), near()
    chosen = fit(tried, task(teacher), Schedule(40, 0.5, factors=(1.0, 1 / 16, 1 / 5000)))
    assert chosen.factor == 1 / 5000
    assert chosen.best < chosen.before
    told = fit(plain, task(teacher), Schedule(40, 0.5 / 5000))
    assert told.factor == 1.0
    for name, array in weights(tried).items():
        np.testing.assert_allclose(array, weights(plain)[name], rtol=1e-6, atol=1e-7)


def test_a_student_that_has_far_to_go_keeps_the_rate() -> None:
    done = fit(student(), task(), Schedule(60, 0.02, factors=(1.0, 1 / 16)))
    assert done.factor == 1.0
