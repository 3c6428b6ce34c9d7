"""Which blocks are taken out, how many, and what the report says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import outputs, random_model, samples
from pydantic import ValidationError

from edgebm.errors import BackendFailed, DataError
from edgebm.ir.edit import const, replace_const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.drop_blocks import DropBlocks
from edgebm.pruning import choose_blocks
from edgebm.pruning.block_cost import parts_of
from edgebm.pruning.blocks import find_blocks

WIDTHS = (8, 8, 16, 8)  # of what a block has inside


def tower(*scales: float) -> Model:
    """Blocks x + f(x) between two products; block k is as strong as its scale says."""
    text, shapes = "x0 = MatMul(x, win)\n", {"win": (6, 8), "wout": (8, 3)}
    for k, width in enumerate(WIDTHS[: len(scales)]):
        text += f"""[up{k}] a{k} = MatMul(x{k}, wa{k})
          r{k} = Relu(a{k})
          [down{k}] b{k} = MatMul(r{k}, wb{k})
          [add{k}] x{k + 1} = Add(x{k}, b{k})\n"""
        shapes |= {f"wa{k}": (8, width), f"wb{k}": (width, 8)}
    text += f"y = MatMul(x{len(scales)}, wout)"
    model = random_model(f"g (float[n,6] x) => (float[n,3] y) {{ {text} }}", **shapes)
    for k, scale in enumerate(scales):
        value = model.graph.graph.initializers[f"wb{k}"]
        array = const(value)
        assert array is not None
        replace_const(value, array * np.float32(scale))
    return model


def run(model: Model, ctx: Context | None = None, **fields: Any) -> tuple[Model, Context]:
    ctx = ctx or Context()
    ctx.samples = ctx.samples or samples(model)
    return run_passes(model, [DropBlocks(**fields)], ctx)[0], ctx


def left(model: Model) -> list[str]:
    return [node.name or "" for node in model.nodes("Add")]


def test_the_weakest_block_goes() -> None:
    model = tower(1.0, 0.01, 1.0, 0.1)
    small, ctx = run(model, sparsity=0.25)
    assert left(small) == ["add0", "add2", "add3"]
    (note,) = ctx.notes
    assert "1 of 4 blocks were taken out, 20% of their multiply-accumulates" in note
    assert "add1" in note
    feeds = next(iter(samples(model, 1, seed=3).feeds()))
    np.testing.assert_allclose(outputs(small, feeds)["y"], outputs(model, feeds)["y"], atol=0.1)


def test_a_block_that_costs_more_may_be_worth_more() -> None:
    """Block 2 costs twice what the others do, and adds not quite twice as much."""
    small, _ = run(tower(1.0, 1.0, 1.3e-3, 1e-3), sparsity=0.4)
    assert left(small) == ["add0", "add1", "add3"]


@pytest.mark.parametrize(
    ("sparsity", "gone"), [(0.0, 0), (0.05, 0), (0.2, 1), (0.4, 2), (0.55, 3), (0.9, 4)]
)
def test_the_goal_is_met_as_near_as_can_be(sparsity: float, gone: int) -> None:
    small, ctx = run(tower(0.3, 0.1, 2.0, 0.2), sparsity=sparsity)
    assert len(left(small)) == 4 - gone
    assert bool(ctx.notes) == bool(gone)
    if sparsity == 0.05:
        assert "the smallest has 20% of the multiply-accumulates" in ctx.skips[0].reason


def test_nothing_is_asked_for() -> None:
    for fields in ({"sparsity": 0.0}, {"count": 0}):
        small, ctx = run(tower(1.0, 0.01), **fields)
        assert len(left(small)) == 2
        assert not ctx.notes
        assert not ctx.skips


def test_a_number_of_blocks() -> None:
    small, ctx = run(tower(1.0, 0.01, 1.0, 0.1), sparsity=0.0, count=2)
    assert left(small) == ["add0", "add2"]
    assert "2 of 4 blocks" in ctx.notes[0]


@pytest.mark.parametrize(
    "fields", [{"sparsity": 1.0}, {"sparsity": -0.1}, {"count": -1}, {"samples": 0}]
)
def test_what_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        DropBlocks(**fields)


def test_time_decides_where_it_is_measured() -> None:
    """The first two blocks are equal in form, and timed once; the third is slow for its size."""
    model, timed = tower(0.1, 0.1, 0.1), []

    def time_ms(small: Model) -> float:
        timed.append(small)
        widths = [const(v).shape for v in small.graph.graph.initializers.values()]
        return 0.5 if not widths else 0.5 + (8.0 if (8, 16) in widths else 1.0)

    small, ctx = run(model, ctx=Context(time_ms=time_ms), sparsity=0.8)
    assert left(small) == ["add0", "add1"]
    assert "1 of 3 blocks were taken out, 80% of their measured time" in ctx.notes[0]
    assert len(timed) == 3  # a call of nothing, and two forms
    assert [n.op_type for n in timed[1].nodes()] == ["MatMul", "Relu", "MatMul", "Add"]
    assert timed[1].graph.graph.inputs[0].shape == [4, 8]


def test_what_cannot_be_timed_is_counted() -> None:
    def time_ms(small: Model) -> float:
        raise BackendFailed("no kernel")

    small, ctx = run(tower(1.0, 0.01), ctx=Context(time_ms=time_ms), sparsity=0.5)
    assert left(small) == ["add0"]
    assert "work is counted instead: no kernel" in ctx.skips[0].reason
    assert "multiply-accumulates" in ctx.notes[0]


def test_errors_are_measured_anew() -> None:
    """Blocks 0 and 1 fill the same channels up to a limit: without one the other is needed."""
    text = "x0 = Abs(x)\n" + "".join(
        f"p{k} = MatMul(x{k}, w{k})\n[add{k}] x{k + 1} = Add(x{k}, p{k})\n" for k in range(3)
    )
    model = random_model(
        f"g (float[n,8] x) => (float[n,8] y) {{ {text} c = Clip(x3, low, high) y = Tanh(c) }}",
        w0=(8, 8), w1=(8, 8), w2=(8, 8), low=(), high=(),
    )  # fmt: skip
    first, last = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    first[:, :4], last[:, 4:] = 10, 0.01
    held = model.graph.graph.initializers
    for label, array in {"w0": first, "w1": first, "w2": last}.items():
        replace_const(held[label], array)
    for label, limit in {"low": 0, "high": 2}.items():
        replace_const(held[label], np.asarray(limit, np.float32))
    small, _ = run(model, count=2)
    assert len({"add0", "add1"} & set(left(small))) == 1
    assert "add2" not in left(small)


def test_only_the_best_are_looked_at_again_when_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose_blocks, "_LOOKS", 4)
    small, ctx = run(tower(1.0, 0.01, 1.0, 0.1), count=2)
    assert left(small) == ["add0", "add2"]
    assert "only the blocks that came first were looked at again" in ctx.notes[0]


def test_few_samples_look_and_all_decide() -> None:
    model = tower(1.0, 0.01, 1.0, 0.1)
    many = samples(model, 128)
    small, _ = run(model, ctx=Context(samples=many), count=2)
    assert left(small) == ["add0", "add2"]


def test_reasons_of_what_stays() -> None:
    plain = random_model("g (float[n,4] x) => (float[n,4] y) { y = MatMul(x, w) }", w=(4, 4))
    same, ctx = run(plain)
    assert same.to_bytes() == plain.to_bytes()
    assert "no block of layers can go" in ctx.skips[0].reason
    ignoring = Context(is_ignored=lambda name, op: name in {"up1", "down3"})
    small, _ = run(tower(1.0, 0.01, 1.0, 0.1), ctx=ignoring, sparsity=0.3)
    assert {"add1", "add3"} <= set(left(small))


def test_samples_are_needed() -> None:
    with pytest.raises(DataError, match="choosing the blocks that go needs calibration samples"):
        run_passes(tower(1.0), [DropBlocks()], Context())


def test_parts_are_disjoint_and_cover_all_layers() -> None:
    model = tower(1.0, 1.0, 1.0)
    feeds = next(iter(samples(model, 1).feeds()))
    parts = parts_of(model, find_blocks(model), feeds, None)
    assert [part.cost for part in parts] == [4 * 8 * 16, 4 * 8 * 16, 4 * 8 * 32]
    assert sorted(label for part in parts for label in part.nodes) == sorted(
        f"{end}{k}" for end in ("up", "down") for k in range(3)
    )


def test_an_input_never_becomes_an_output() -> None:
    """All blocks are wanted, and the last one has to stay."""
    model = random_model(
        """g (float[n,8] x) => (float[n,8] y) {
          a = MatMul(x, w1)
          [one] b = Add(a, x)
          c = MatMul(b, w2)
          [two] y = Add(c, b)
        }""",
        w1=(8, 8), w2=(8, 8),
    )  # fmt: skip
    small, _ = run(model, sparsity=0.99)
    assert len(left(small)) == 1


def test_class_numbers_are_counted() -> None:
    """An output of integers has no power: its elements are compared."""
    model = random_model(
        """g (float[n,6] x) => (int64[n] y) {
          x0 = MatMul(x, win)
          a = MatMul(x0, wa)
          [strong] x1 = Add(x0, a)
          b = MatMul(x1, wb)
          c = Mul(b, little)
          [weak] x2 = Add(x1, c)
          y = ArgMax<axis=1, keepdims=0>(x2)
        }""",
        win=(6, 8), wa=(8, 8), wb=(8, 8), little=(1,),
    )  # fmt: skip
    replace_const(model.graph.graph.initializers["little"], np.float32([1e-4]))
    small, ctx = run(model, count=1, ctx=Context(samples=samples(model, 40)))
    assert left(small) == ["strong"]
    assert "inf dB" in ctx.notes[0]
