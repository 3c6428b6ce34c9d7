from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.precision import chosen  # noqa: E402
from edgebm.grad.schedule import Schedule  # noqa: E402
from edgebm.grad.update import Updater  # noqa: E402

CPU = torch.device("cpu")


def rates(steps: int, **fields) -> list[float]:
    schedule = Schedule(steps, 0.1, **fields)
    return [schedule.rate_at(step, steps) for step in range(steps)]


@pytest.mark.parametrize("shape", ["one_cycle", "cosine"])
def test_the_rate_rises_and_falls_to_nothing(shape) -> None:
    found = rates(200, shape=shape)
    assert max(found) == pytest.approx(0.1, rel=0.01)
    assert found.index(max(found)) == pytest.approx(30, abs=1)
    assert found[:30] == sorted(found[:30])
    assert found[31:] == sorted(found[31:], reverse=True)
    assert found[-1] < 1e-5


def test_one_cycle_begins_with_a_little() -> None:
    assert rates(200)[0] == pytest.approx(0.1 / 25)
    assert rates(200, warmup=0.0)[0] == pytest.approx(0.1)
    assert rates(1)[0] > 0


def test_a_constant_rate_has_a_warm_up() -> None:
    found = rates(100, shape="constant", warmup=0.1)
    assert found[:10] == sorted(found[:10])
    assert found[10:] == [0.1] * 90


def test_sixteen_judgements_or_as_many_as_there_is_time_for() -> None:
    assert Schedule(1, check_every="auto").check_in(320, 9.0) == 20
    assert Schedule(1, check_every="auto").check_in(3, 9.0) == 1
    assert Schedule(1, check_every=7).check_in(320, 9.0) == 7
    # A tenth of 100 seconds is enough for two.
    assert Schedule(1, check_every="auto", budget_s=100).check_in(320, 5.0) == 160
    assert Schedule(1, check_every="auto", budget_s=100).check_in(320, 50.0) == 320


def updated(schedule: Schedule, steps: int, masks=()) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix and a vector after steps down the sum of their squares."""
    matrix, vector = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))
    held = [(matrix, mask) for mask in masks]
    scaler = chosen("f32", CPU, convolutions=False).scaler(CPU)
    updater = Updater([matrix, vector], schedule, scaler, held)
    for _ in range(steps):
        updater.clear()
        updater.backward(0 * matrix.sum() + 0 * vector.sum())
        assert updater.apply(0.1)
    return matrix.detach(), vector.detach()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_matrices_decay_and_vectors_do_not(optimizer) -> None:
    matrix, vector = updated(
        Schedule(1, 0.1, weight_decay=0.5, optimizer=optimizer, momentum=0), 1
    )
    assert torch.allclose(matrix, torch.full((2, 3), 0.95))
    assert torch.equal(vector, torch.ones(3))


def test_masked_weights_stay_zero() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    matrix, _ = updated(Schedule(1, 0.1, weight_decay=0.5), 3, [mask])
    assert torch.equal(matrix != 0, mask)


def test_gradients_are_cut_to_a_norm() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    scaler = chosen("f32", CPU, convolutions=False).scaler(CPU)
    updater = Updater([weight], Schedule(1, optimizer="sgd", momentum=0), scaler)
    updater.backward((1000 * weight).sum())
    assert updater.apply(1.0)
    assert float(weight.detach().norm()) == pytest.approx(1.0)


def test_no_step_is_taken_with_gradients_that_are_no_numbers() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    scaler = chosen("f32", CPU, convolutions=False).scaler(CPU)
    updater = Updater([weight], Schedule(1), scaler)
    updater.backward(
        weight.sqrt().sum() * 0 + (math.inf * weight.detach()).sum() + weight.sqrt().sum()
    )
    assert not updater.apply(1.0)
    assert torch.equal(weight.detach(), torch.zeros(4))


def test_precision_says_why() -> None:
    assert chosen("bf16", CPU, convolutions=False) == chosen("bf16", CPU, convolutions=True)
    automatic = chosen("auto", CPU, convolutions=True)
    assert automatic.name in ("f32", "bf16")
    assert "CPU" in automatic.why
    plain = chosen("auto", CPU, convolutions=False)
    assert plain.name == "f32"
    assert "no bf16" in plain.why or "no convolutions" in plain.why
    with chosen("bf16", CPU, convolutions=True).cast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with chosen("f32", CPU, convolutions=True).cast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
