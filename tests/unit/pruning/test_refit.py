"""Refitting: exact where what goes follows from what stays, and most of the loss elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Array, Listed, outputs, parse, random_model, samples

from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.prune import Prune
from edgebm.pruning.cut import cut
from edgebm.pruning.groups import find_groups
from edgebm.pruning.products import products_of
from edgebm.pruning.refit import predicted, refit

RNG = np.random.default_rng(0)


def arrays(model: Model) -> dict[str, Array]:
    """Copies of all constants."""
    return {k: np.array(const(v)) for k, v in model.graph.graph.initializers.items()}


def test_a_column_that_follows_from_others() -> None:
    rows = RNG.normal(size=(400, 3))
    rows = np.column_stack([rows, 2 * rows[:, 0] - rows[:, 2] + 5, np.ones(400)])
    gone = np.array([False, False, False, True])
    found = predicted(rows.T @ rows / 400, gone, constant=True)
    np.testing.assert_allclose(found[:, 0], [2, 0, -1, 0, 5], atol=0.05)
    without = predicted(rows.T @ rows / 400, gone, constant=False)
    assert without[4, 0] == 0


# Unit 1 is made from unit 0 by the weights: linear where nothing is in between but a Relu.
CHAINS = {
    "conv": (
        """g (float[1,3,9,9] x) => (float[1,5,4,4] y) {
          a = Conv<pads=[1,1,1,1]>(x, made, b)
          r = Relu(a)
          y = Conv<strides=[2,2]>(r, read, c)
        }""",
        {"made": (6, 3, 3, 3), "b": (6,), "read": (5, 6, 3, 3), "c": (5,)}, 0,
    ),
    "dilated, without a bias": (
        """g (float[1,3,9,9] x) => (float[1,5,7,7] y) {
          a = Conv(x, made, b)
          r = Relu(a)
          y = Conv<dilations=[2,2], pads=[1,1,2,2]>(r, read)
        }""",
        {"made": (6, 3, 1, 1), "b": (6,), "read": (5, 6, 3, 3)}, 0,
    ),
    "one axis": (
        """g (float[1,3,20] x) => (float[1,5,18] y) {
          a = Conv(x, made, b)
          r = Relu(a)
          y = Conv(r, read)
        }""",
        {"made": (6, 3, 1), "b": (6,), "read": (5, 6, 3)}, 0,
    ),
    "transposed": (
        """g (float[1,3,5,5] x) => (float[1,5,10,10] y) {
          a = Conv(x, made, b)
          r = Relu(a)
          y = ConvTranspose<strides=[2,2]>(r, read)
        }""",
        {"made": (6, 3, 1, 1), "b": (6,), "read": (6, 5, 2, 2)}, 0,
    ),
    "gemm": (
        """g (float[n,4] x) => (float[n,5] y) {
          a = Gemm<transB=1>(x, made, b)
          r = Relu(a)
          y = Gemm<transB=1>(r, read, c)
        }""",
        {"made": (6, 4), "b": (6,), "read": (5, 6), "c": (5,)}, 0,
    ),
    "matmul": (
        """g (float[n,7,4] x) => (float[n,7,5] y) {
          a = MatMul(x, made)
          r = Relu(a)
          p = MatMul(r, read)
          y = Add(p, c)
        }""",
        {"made": (4, 6), "read": (6, 5), "c": (5,)}, 1,
    ),
    "lstm behind": (
        """g (float[7,1,4] x) => (float[7,1,1,5] y) {
          a = MatMul(x, made)
          r = Relu(a)
          y = LSTM<hidden_size=5>(r, read, r2)
        }""",
        {"made": (4, 6), "read": (1, 20, 6), "r2": (1, 20, 5)}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("label", list(CHAINS))
def test_a_double_goes_without_a_trace(label: str) -> None:
    text, shapes, axis = CHAINS[label]
    constants = arrays(random_model(text, **shapes))
    for name in ("made", "b"):
        if name in constants:
            moved = np.moveaxis(constants[name], 0 if name == "b" else axis, 0)
            moved[1] = 2 * moved[0]
    model = parse(text, **constants)
    (group,) = [g for g in find_groups(model).groups if g.units == 6]
    removed, given = {group.name: np.array([1])}, list(samples(model, 12).feeds())
    fitted = model.clone()
    before = model.to_bytes()
    assert refit(fitted, [group], removed, given) == 1
    assert model.to_bytes() == before
    fitted, plain = cut(fitted, removed), cut(model.clone(), removed)
    for feeds in list(samples(model, 3, seed=5).feeds()):
        want, got, bad = (outputs(m, feeds)["y"] for m in (model, fitted, plain))
        scale = np.linalg.norm(want)
        assert np.linalg.norm(got - want) < 0.02 * scale
        assert np.linalg.norm(bad - want) > 5 * np.linalg.norm(got - want)


@pytest.mark.parametrize(
    ("op", "gates"), [("LSTM", 4), ("GRU<linear_before_reset=1>", 3), ("GRU", 3), ("RNN", 1)]
)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_hidden_units_that_do_the_same(op: str, gates: int, direction: str) -> None:
    """Unit 1 of each direction is made as unit 0 is: both have one state."""
    attributes = op.partition("<")[2].rstrip(">")
    both = ", ".join(filter(None, [attributes, "hidden_size=6", f'direction="{direction}"']))
    text = """g (float[9,1,4] x) => (float[9,1,5] z) {
      y, h = OP<BOTH>(x, w, r, b)
      t = Transpose<perm=[0,2,1,3]>(y)
      s = Reshape(t, shape)
      z = MatMul(s, head)
    }""".replace("OP", op.partition("<")[0]).replace("BOTH", both)
    ways = 2 if direction == "bidirectional" else 1
    shapes = {
        "w": (ways, 6 * gates, 4), "r": (ways, 6 * gates, 6), "b": (ways, 12 * gates),
        "head": (6 * ways, 5),
    }  # fmt: skip
    text = text.replace(
        "=> (float[9,1,5] z) {",
        f"=> (float[9,1,5] z) <int64[3] shape = {{9, 1, {6 * ways}}}> {{",
    )
    constants = {k: v for k, v in arrays(random_model(text, **shapes)).items() if k in shapes}
    for part in ("w", "r", "b"):
        stacked = constants[part].reshape(ways, -1, 6, *constants[part].shape[2:])
        stacked[:, :, 1] = stacked[:, :, 0]
    model = parse(text, **constants)
    (group,) = find_groups(model).groups
    removed, given = {group.name: np.array([1])}, list(samples(model, 20).feeds())
    fitted = model.clone()
    assert refit(fitted, [group], removed, given) == ways + 1
    fitted, plain = cut(fitted, removed), cut(model.clone(), removed)
    feeds = next(iter(samples(model, 1, seed=5).feeds()))
    want, got, bad = (outputs(m, feeds)["z"] for m in (model, fitted, plain))
    error, other = (np.linalg.norm(each - want) / np.linalg.norm(want) for each in (got, bad))
    # Where a GRU resets before its product, the candidate's share is lost.
    assert error < (0.5 * other if op == "GRU" else 0.02)


def test_what_is_not_fitted() -> None:
    model = random_model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) {
          a = Conv(x, w1)
          [grouped] b = Conv<group=2>(a, w2)
          r = Relu(b)
          [one] y = Conv(r, w3)
          [other] z = Conv(y, w3)
        }""",
        w1=(4, 4, 1, 1), w2=(4, 2, 1, 1), w3=(4, 4, 1, 1),
    )  # fmt: skip
    found = {node.name: len(list(products_of(node))) for node in model.nodes("Conv")}
    assert found["grouped"] == 0
    untied = 1 if len({n.inputs[1].name for n in model.nodes("Conv")}) == 4 else 0
    assert found["one"] == found["other"] == untied
    assert refit(model, find_groups(model).groups, {}, []) == 0


def mlp() -> Model:
    """Twice as many units as inputs: they follow from each other, nearly."""
    return random_model(
        """g (float[n,6] x) => (float[n,4] y) {
          h = Gemm(x, w1, b)
          r = Softplus(h)
          y = Gemm(r, w2, c)
        }""",
        w1=(6, 24), b=(24,), w2=(24, 4), c=(4,),
    )  # fmt: skip


def test_the_step_says_what_it_gains() -> None:
    model, given = mlp(), Listed(list(samples(mlp(), 60).feeds()))
    errors, notes = [], []
    for is_fitted in (False, True):
        ctx = Context(samples=given)
        step = Prune(sparsity=0.5, importance="activation", round_to=1, refit=is_fitted)
        made = step(model.clone(), ctx)
        feeds = next(iter(samples(model, 1, seed=8).feeds()))
        want, got = outputs(model, feeds)["y"], outputs(made, feeds)["y"]
        errors.append(np.linalg.norm(got - want))
        notes.append([note for note in ctx.notes if "refitted" in note])
    assert errors[1] < 0.2 * errors[0]
    assert notes[0] == []
    assert len(notes[1]) == 1
    assert "dB in place of" in notes[1][0]


def test_a_fit_that_makes_outputs_worse_is_taken_back() -> None:
    """Units 0 and 1 are alike on the samples that are fitted to, and not on those that judge."""
    model = parse(
        """g (float[n,3] x) => (float[n,1] y) {
          h = MatMul(x, w1)
          r = Relu(h)
          y = MatMul(r, w2)
        }""",
        w1=np.eye(3, dtype=np.float32), w2=np.array([[1.0], [0.5], [2.0]], np.float32),
    )  # fmt: skip
    alike, apart = np.abs(RNG.normal(size=(2, 30, 3))).astype(np.float32)
    alike[:, 1] = alike[:, 0]
    apart[:, 1] = 0
    ctx = Context(samples=Listed([{"x": x} for x in (alike, apart, alike, apart)]))
    step = Prune(sparsity=0.3, importance="magnitude", round_to=1, samples=2)
    made = step(model.clone(), ctx)
    assert not [note for note in ctx.notes if "refitted" in note]
    assert [skip.reason for skip in ctx.skips if "refitted" in skip.reason] == [
        "weights that read what went stay: refitted, outputs were worse"
    ]
    np.testing.assert_allclose(arrays(made)["w2"].ravel(), [1.0, 2.0])
