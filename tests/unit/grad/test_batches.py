from __future__ import annotations

import numpy as np
import pytest
import students
from graphs import Listed, random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.batch_axes import batch_axes  # noqa: E402
from edgebm.grad.batches import Shuffled, seeded  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.rows import Rows, join  # noqa: E402
from edgebm.grad.trimming import found_padding  # noqa: E402

torch.set_num_threads(1)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    lengths = torch.arange(40) % 7
    for given in (None, lengths):
        one, other = (Shuffled(40, 8, 3, given) for _ in range(2))
        forwards = [one.batch(step) for step in range(12)]
        backwards = [other.batch(step) for step in reversed(range(12))]
        assert all(torch.equal(a, b) for a, b in zip(forwards, backwards[::-1], strict=True))
        assert sorted(torch.cat(forwards[:5]).tolist()) == list(range(40))
        assert not torch.equal(forwards[0], Shuffled(40, 8, 4, given).batch(0))
        assert not torch.equal(forwards[0], forwards[5])


def test_samples_of_a_batch_are_of_like_length() -> None:
    lengths = torch.arange(40)
    order = Shuffled(40, 8, 0, lengths)
    for step in range(10):
        batch = lengths[order.batch(step)]
        assert int(batch.max() - batch.min()) == 7


def test_chance_depends_on_every_number() -> None:
    drawn = {
        float(torch.rand((), generator=seeded(*each))) for each in ((0, 1), (1, 0), (0, 1, 1))
    }
    assert len(drawn) == 3


def ragged(count: int) -> Listed:
    return students.signals(count, (5, 3))


@pytest.mark.parametrize("limit", [2**20, 100])
def test_samples_by_number_held_or_read_again(limit: int) -> None:
    samples = ragged(7)
    rows = Rows(samples, limit)
    assert bool(rows.groups) == (limit > 100)
    assert not rows.alike
    assert rows.sizes.tolist() == [15, 9, 15, 9, 15, 9, 15]
    picked = rows.picked(torch.tensor([4, 1, 0]))
    found = {
        int(n): x for part in picked for n, x in zip(part.numbers, part.columns["x"], strict=True)
    }
    assert sorted(found) == [0, 1, 4]
    for number, feeds in enumerate(samples.feeds()):
        if number in found:
            np.testing.assert_array_equal(found[number].numpy(), feeds["x"])
    assert [len(part) for part in picked] == [2, 1]
    assert Rows(students.digits(3)).alike


def test_joining_along_any_axis() -> None:
    stacked = torch.arange(24.0).reshape(3, 4, 1, 2)
    for axis in range(3):
        want = torch.cat(list(stacked.unbind(0)), axis)
        assert torch.equal(join(stacked, axis), want)


AXES = {
    "batch first": ("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", {"x": (1, 4)}, [0]),
    "fixed at 1 and free in truth": (
        "g (float[1,4] x) => (float[1,3] y) { y = MatMul(x, w) }", {"x": (1, 4)}, [0],
    ),
    "time first": (
        """g (float[5,1,4] x) => (float[1,3] y) <int64[1] zero = {0}>
           { s, h = GRU<hidden_size=3>(x, wg, rg)
             y = Squeeze(h, zero) }""",
        {"x": (5, 1, 4)},
        [1],
    ),
    "mixed up in time": (
        """g (float[1,4] x) => (float[1,3] y) <int64[2] flat = {1,4}>
           { r = Reshape(x, flat)
             y = MatMul(r, w) }""",
        {"x": (1, 4)},
        None,
    ),
    "mean over all samples": (
        """g (float[1,4] x) => (float[1,3] y) <int64[1] zero = {0}>
           { m = ReduceMean(x, zero)
             d = Sub(x, m)
             e = Add(d, v)
             y = MatMul(e, w) }""",
        {"x": (1, 4)},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AXES)
def test_the_batch_axis_is_proved(case: str) -> None:
    text, shapes, want = AXES[case]
    every = {"w": (4, 3), "v": (4,), "wg": (1, 9, 4), "rg": (1, 9, 3)}
    held = {k: s for k, s in every.items() if f", {k})" in text or f", {k}," in text}
    model = random_model(text, **held)
    rng = np.random.default_rng(0)
    feeds = [{k: rng.normal(size=s).astype("f4") for k, s in shapes.items()} for _ in range(2)]
    (pair,) = Rows(Listed(feeds)).picked(torch.arange(2))
    found = batch_axes([GraphModule(model)], pair)
    assert (found and list(found.values())) == want


def padding_of(samples: Listed):
    model = students.bert(8, 0)
    return found_padding(Rows(samples), [(model, GraphModule(model))])


def test_padding_is_found_and_cut() -> None:
    samples = students.sentences(30)
    found = padding_of(samples)
    assert found is not None
    assert (found.mask, found.inputs) == ("mask", ("ids", "mask"))
    feeds = list(samples.feeds())
    assert found.lengths.tolist() == [int(each["mask"].sum()) for each in feeds]
    three = {k: torch.from_numpy(np.concatenate([f[k] for f in feeds[:3]])) for k in feeds[0]}
    longest = int(found.lengths[:3].max())
    cut = found.cut(three)
    assert cut["ids"].shape == (3, longest)
    module = GraphModule(students.bert(8, 0))
    with torch.no_grad():
        assert torch.allclose(module(cut)["y"], module(three)["y"], atol=1e-5)


def test_what_is_no_padding_is_left() -> None:
    feeds = list(students.sentences(12).feeds())
    full = [{**f, "mask": np.ones_like(f["mask"])} for f in feeds]
    assert padding_of(Listed(full)) is None
    holes = [{**f, "mask": f["mask"].copy()} for f in feeds]
    holes[5]["mask"][0, :3] = (1, 0, 1)
    assert padding_of(Listed(holes)) is None
    front = [{k: v[:, ::-1] for k, v in f.items()} for f in feeds]
    assert padding_of(Listed(front)) is None


def test_a_graph_that_counts_positions_is_not_cut() -> None:
    text = """g (int64[N,T] ids, int64[N,T] mask) => (float[N,4] y) <int64[1] one = {1}> {
        e = Gather(table, ids)
        y = ReduceMean<keepdims=0>(e, one) }"""
    model = random_model(text, table=(50, 4))
    samples = students.sentences(12)
    assert found_padding(Rows(samples), [(model, GraphModule(model))]) is None
