from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.batches import Shuffled  # noqa: E402
from edgebm.grad.fit import Schedule  # noqa: E402
from edgebm.grad.gru_cell import GruCell, Lesson, states_of  # noqa: E402
from edgebm.grad.gru_sister import Teaching, turned  # noqa: E402
from edgebm.grad.gru_start import regressed  # noqa: E402
from edgebm.grad.sequences import Sequences  # noqa: E402

torch.set_num_threads(1)
INPUTS, HIDDEN = 5, 8


def cell(direction: str = "forward", seed: int = 0) -> GruCell:
    rng, d = np.random.default_rng(seed), 2 if direction == "bidirectional" else 1
    w, r, b = (
        rng.normal(size=shape).astype(np.float32) * scale
        for shape, scale in (
            ((d, 3 * HIDDEN, INPUTS), 0.5), ((d, 3 * HIDDEN, HIDDEN), 0.4), ((d, 6 * HIDDEN), 0.3),
        )
    )  # fmt: skip
    return GruCell(w, r, b, direction, resets_after=True)


def sequences(count: int, d: int = 1, seed: int = 1) -> Sequences:
    """Slow signals of 8 to 20 steps."""
    rng = np.random.default_rng(seed)
    rows = [0.5 * rng.normal(size=(8 + n % 13, INPUTS)).cumsum(0) for n in range(count)]
    initial = [0.3 * rng.normal(size=(d, HIDDEN)) for _ in rows]
    return Sequences.joined([x.astype("f4") for x in rows], [h.astype("f4") for h in initial])


def lesson(count: int, d: int = 1, seed: int = 1) -> Lesson:
    read = sequences(count, d, seed)
    return Lesson(read, read)


def db(old: GruCell, new: GruCell, part: Lesson) -> float:
    with torch.no_grad():
        want = states_of(old.module(), part.teacher)
        error = states_of(new.module(), part.student) - want
    return -10 * float(torch.log10(error.square().sum() / want.square().sum()))


def test_shapes_are_as_the_docstrings_say() -> None:
    read = sequences(6, 2)
    assert read.x.shape == (13, 6, INPUTS)
    assert read.inside.shape == (13, 6)
    assert read.initial.shape == (2, 6, HIDDEN)
    assert read.deviation().shape == (INPUTS,)
    states = states_of(cell("bidirectional").module(), read)
    assert states.shape == (13, 2, 6, HIDDEN)
    assert float(states[8:, :, 0].detach().abs().max()) == 0  # behind the end of the first
    picked = read.picked(torch.tensor([1, 0]))
    assert picked.x.shape == (9, 2, INPUTS)
    assert picked.lengths.tolist() == [9, 8]


@pytest.mark.parametrize(("count", "held"), [(2, [1]), (4, [3]), (5, [4]), (12, [4, 9])])
def test_some_sequences_are_held_out(count: int, held: list[int]) -> None:
    whole = lesson(count)
    seen, kept = whole.split(5)
    assert len(seen.teacher) + len(kept.teacher) == count
    assert kept.student.lengths.tolist() == whole.student.lengths[held].tolist()
    assert torch.equal(kept.teacher.initial, whole.teacher.initial[:, held])


def test_every_sequence_comes_once_before_it_comes_again() -> None:
    order = Shuffled(7, 3, seed=0)
    drawn = torch.cat([order.batch(step) for step in range(7)]).tolist()
    for first in (0, 7, 14):
        assert sorted(drawn[first : first + 7]) == list(range(7))


def test_a_cell_without_a_reset_is_turned_exactly() -> None:
    # With the reset gate open both forms are the same function; the biases are then one.
    old = cell()
    old.w[:, HIDDEN : 2 * HIDDEN] = 0
    old.r[:, HIDDEN : 2 * HIDDEN] = 0
    old.b[:, HIDDEN : 2 * HIDDEN] = 40
    assert db(old, old.sister(), lesson(8)) > 100


def test_the_regression_finds_what_it_was_made_from() -> None:
    # An original whose reset does not depend on the unit is of both forms: r * (R h) = R (r * h).
    old, kept = cell(), slice(HIDDEN, 2 * HIDDEN)
    for array in (old.w, old.r, old.b):
        array[:, kept] = array[:, HIDDEN : HIDDEN + 1]
    old.b[:, 3 * HIDDEN :] = 0
    blurred = old.sister()
    w, r = blurred.w.copy(), blurred.r.copy()
    w[:, 2 * HIDDEN :] += 0.3
    r[:, 2 * HIDDEN :] *= 0.5
    blurred = GruCell(w, r, blurred.b, old.direction, resets_after=False)
    part = lesson(60)
    assert db(old, blurred, part) < 15
    assert db(old, regressed(old, blurred, part, own_states=False), part) > 30


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_regression_and_training_each_come_nearer(direction: str) -> None:
    old = cell(direction)
    d = len(old.w)
    teaching = Teaching(Schedule(60, 8e-3), noise=0.1, seed=0)
    kept = (old.w.copy(), old.r.copy(), old.b.copy())
    found = turned(old, lesson(64, d), lesson(16, d, seed=2), teaching, lambda done, total: None)
    assert found.copied_db + 0.5 < found.start_db
    assert found.start_db + 1 < found.reached_db
    assert found.steps == 60
    assert db(old, found.cell, lesson(16, d, seed=2)) == pytest.approx(found.reached_db, abs=0.01)
    assert not found.cell.resets_after
    for array, before in zip((old.w, old.r, old.b), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_the_sister_makes_up_for_other_inputs() -> None:
    # In front of it another cell was turned: it reads what is not quite what the original reads.
    old, read = cell(), sequences(64)
    other = Sequences(0.8 * read.x, read.lengths, read.initial)
    apart = Lesson(read, other)
    found = regressed(old, old.sister(), apart, own_states=True)
    assert db(old, found, apart) > db(old, old.sister(), apart) + 2
