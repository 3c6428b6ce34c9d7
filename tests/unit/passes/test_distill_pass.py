from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import Listed, random_model

from edgebm.errors import DataError
from edgebm.passes.base import Context
from edgebm.passes.distill import Distill, Losses, rate_for
from edgebm.passes.driver import run_passes

torch = pytest.importorskip("torch", reason="torch is not installed")
torch.set_num_threads(1)

MLP = """g (float[N,6] x) => (float[N,3] y) {
    h = MatMul(x, w1)
    b = Add(h, v1)
    a = Relu(b)
    i = MatMul(a, w2)
    c = Relu(i)
    y = MatMul(c, w3) }"""


def mlp(width: int, seed: int):
    return random_model(MLP, seed, w1=(6, width), v1=(width,), w2=(width, 16), w3=(16, 3))


def context(samples: int = 200, seed: int = 0) -> Context:
    x = np.random.default_rng(seed).normal(size=(samples, 1, 6)).astype("f4")
    return Context(samples=Listed([{"x": each} for each in x]), teacher=mlp(32, 0))


def test_it_trains_in_a_pipeline_and_says_so() -> None:
    ctx, student = context(), mlp(12, 1)
    seen: list[tuple[str, int, int]] = []
    ctx.progress = lambda *at: seen.append(at)
    weights = {
        k: v.const_value.numpy().copy() for k, v in student.graph.graph.initializers.items()
    }
    taught, _ = run_passes(student, [Distill(steps=100, rate=0.01)], ctx)
    assert "taught by the original for 100 steps on 200 samples" in ctx.notes[0]
    assert seen[-1] == ("distill", 100, 100)
    for label, array in weights.items():
        np.testing.assert_array_equal(
            student.graph.graph.initializers[label].const_value.numpy(), array
        )
        assert not np.array_equal(
            taught.graph.graph.initializers[label].const_value.numpy(), array
        )


def test_zeros_of_sparse_weights_stay() -> None:
    student = mlp(12, 1)
    value = student.graph.graph.initializers["w2"]
    array = value.const_value.numpy().copy()
    array[::2] = 0
    from edgebm.ir.edit import replace_const

    replace_const(value, array)
    taught, _ = run_passes(student, [Distill(steps=20)], context())
    after = taught.graph.graph.initializers["w2"].const_value.numpy()
    assert (after[::2] == 0).all()
    assert not np.array_equal(after[1::2], array[1::2])


def test_without_a_teacher_or_samples_it_says_what_is_missing() -> None:
    with pytest.raises(DataError, match="no teacher"):
        Distill()(mlp(12, 1), Context())
    with pytest.raises(DataError, match="needs calibration samples"):
        Distill()(mlp(12, 1), Context(teacher=mlp(32, 0)))


def test_the_shortest_of_the_limits_ends_it() -> None:
    model = mlp(4, 0)
    assert Distill().teaching(model, 0).schedule.budget_s == 600
    assert Distill(steps=5).teaching(model, 0).schedule.budget_s == math.inf
    both = Distill(steps=5, minutes=1).teaching(model, 0).schedule
    assert (both.steps, both.budget_s) == (5, 60)
    assert Distill(epochs=3, losses=Losses(features=0)).teaching(model, 0).epochs == 3


def test_the_rate_depends_on_the_family() -> None:
    assert rate_for(mlp(4, 0)) == 1e-3
