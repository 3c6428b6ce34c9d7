from __future__ import annotations

import math

import pytest

from edgebm.search.lift import Harm, Layers, Lifting, harms


class World:
    """Layers with noise that adds up, and an accuracy that is enough above `goal_db`."""

    def __init__(self, noise: dict[str, float], cost: dict[str, float], goal_db: float) -> None:
        self.noise, self.goal_db = noise, goal_db
        self.layers = [Harm(name, power, cost.get(name, 1.0)) for name, power in noise.items()]
        self.attempts: list[Layers] = []

    def predict(self, floats: Layers) -> float:
        left = sum(power for name, power in self.noise.items() if name not in floats)
        return -10 * math.log10(left + 1e-12)

    def attempt(self, floats: Layers) -> bool:
        self.attempts.append(floats)
        return self.predict(floats) >= self.goal_db

    def find(self, tries: int = 30) -> Layers | None:
        return Lifting(self.layers, self.predict, self.attempt, tries).find()


def even(count: int, **others: float) -> dict[str, float]:
    return {f"l{i:02}": 1e-4 for i in range(count)} | others


def test_the_one_layer_that_harms_is_lifted_in_one_try() -> None:
    world = World(even(30, bad=0.5), {}, goal_db=20)
    assert world.find() == {"bad"}
    assert len(world.attempts) == 1


def test_two_that_harm_only_together_are_found_though_one_brings_nothing() -> None:
    world = World(even(20, first=0.5, second=0.5), {}, goal_db=20)
    assert world.find() == {"first", "second"}


@pytest.mark.parametrize("needed", [3, 5, 6, 7])
def test_the_shortest_beginning_is_found(needed: int) -> None:
    noise = {f"l{i:02}": 2.0**-i for i in range(20)}
    goal = -10 * math.log10(sum(list(noise.values())[needed:]) * 1.001)
    world = World(noise, {}, goal)
    assert world.find() == set(list(noise)[:needed])


def test_noise_counts_for_the_time_that_it_costs() -> None:
    # Either is enough, and the second costs a tenth.
    world = World(even(10, dear=0.02, cheap=0.019), {"dear": 10.0}, goal_db=16.5)
    assert world.find() == {"cheap"}


def test_layers_that_need_not_be_lifted_are_put_back() -> None:
    # The cheap ones come first in the order, and are not needed once the dear one is lifted.
    noise = even(6, small=3e-3, dear=0.4)
    world = World(noise, {"small": 0.001, "dear": 5.0}, goal_db=22)
    assert world.find() == {"dear"}


def test_a_set_that_costs_all_that_integers_save_is_not_tried() -> None:
    world = World(even(9), {}, goal_db=60)
    assert world.find() is None
    assert max(map(len, world.attempts)) <= 8


def test_no_more_sets_are_attempted_than_allowed() -> None:
    noise = {f"l{i:02}": 2.0**-i for i in range(30)}
    world = World(noise, {}, goal_db=45)
    world.find(tries=3)
    assert len(world.attempts) == 3


def test_sets_that_promise_nothing_new_are_passed_over() -> None:
    world = World(even(40), {}, goal_db=math.inf)
    world.find()
    sizes = [len(each) for each in world.attempts]
    assert sizes == sorted(set(sizes))
    assert 1 not in sizes, "one of forty equal layers promises 0.1 dB"


def test_costs_are_measured_times_and_never_nothing() -> None:
    found = harms(
        {"a": 0.1, "b": 0.2, "unknown": 0.3, "slower": 0.4},
        {"a": 90.0, "b": 8.0, "slower": 2.0},
        {"a": 30.0, "b": 3.0, "slower": 5.0},
    )
    assert {h.name: h.cost_us for h in found} == {
        "a": 60.0, "b": 5.0, "unknown": 1.0, "slower": 1.0,
    }  # fmt: skip


def test_without_any_time_all_cost_the_same() -> None:
    costs = {h.cost_us for h in harms({"a": 0.1, "b": 0.2}, {}, {})}
    assert len(costs) == 1
