from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.exec.collect import float_run  # noqa: E402
from edgebm.grad.distill import distill  # noqa: E402
from edgebm.grad.schedule import Schedule  # noqa: E402
from edgebm.grad.teaching import Teaching  # noqa: E402

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


def normal(count: int, seed: int = 0) -> Listed:
    x = np.random.default_rng(seed).normal(size=(count, 1, 6)).astype("f4")
    return Listed([{"x": each} for each in x])


def test_a_narrower_student_comes_near() -> None:
    teacher, student = mlp(32, 0), mlp(12, 1)
    before = student.clone()
    found = distill(
        student, teacher, normal(400), Teaching(Schedule(300, 0.01, check_every="auto"), batch=32)
    )
    print(found)
    assert found.fitted.best < 0.2 * found.fitted.before
    want = [float_run(teacher)(feeds)["y"] for feeds in normal(20, 5).feeds()]
    errors = []
    for model in (before, student):
        run = float_run(model)
        got = [run(feeds)["y"] for feeds in normal(20, 5).feeds()]
        errors.append(float(np.square(np.array(got) - want).mean()))
    assert errors[1] < 0.2 * errors[0]
