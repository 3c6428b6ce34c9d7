"""Cutting: what is refused, what keeps its name, shapes that are computed, random subsets."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_checks import check_removed, described
from tiny_models import FRAMES, IMAGES, X, cnn, recurrent, small

from edgebm.errors import UsageError
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.shapes import static_shape
from edgebm.pruning.cut import cut
from edgebm.pruning.groups import find_groups
from edgebm.pruning.mask import masked


def weights(model: Model) -> dict[str, tuple[int, ...]]:
    found = {}
    for label, value in model.graph.graph.initializers.items():
        array = const(value)
        assert array is not None
        found[label] = array.shape
    return found


def test_every_place_gets_shorter_and_keeps_its_name() -> None:
    model = cnn()
    made = cut(model.clone(), {"Conv_0": np.array([0, 3, 15])})
    shapes = weights(made)
    assert shapes["w1"] == (13, 3, 3, 3)
    assert shapes["w2"] == (13, 13, 3, 3)
    assert shapes["w3"] == (5, 13)
    assert shapes["v1"] == (13,)
    assert set(shapes) == set(weights(model))
    assert [n.name for n in made.nodes()] == [n.name for n in model.nodes()]
    values = {v.name: static_shape(v) for node in made.nodes() for v in node.outputs}
    assert values["r1"] == (1, 13, 16, 16)
    assert set(values) == {v.name for node in model.nodes() for v in node.outputs}


def test_nothing_removed_changes_nothing() -> None:
    model = cnn()
    before = model.to_bytes()
    assert cut(model, {}).to_bytes() == before
    assert cut(model, {"Conv_0": np.array([], np.int64)}).to_bytes() == before
    assert masked(model, {}).to_bytes() == before


@pytest.mark.parametrize("act", [cut, masked])
def test_all_faults_at_once(act: object) -> None:
    assert callable(act)
    removed = {
        "Conv_O": np.array([1]),
        "gru": np.array([8, -1]),
        "lstm": np.arange(8),
    }
    model = recurrent()
    before = model.to_bytes()
    with pytest.raises(UsageError) as caught:
        act(model, removed)
    assert model.to_bytes() == before
    text = str(caught.value)
    assert "no group is named 'Conv_O' (nearest: gru, lstm)" in text
    assert "'gru' has units 0 to 7, not 8, -1" in text
    assert "nothing would be left of 'lstm': keep at least one of its units" in text
    assert len(caught.value.details["faults"]) == 3
    assert "find_groups" in (caught.value.hint or "")


def test_a_name_with_a_slip() -> None:
    with pytest.raises(UsageError, match=r"no group is named 'conv_0' \(nearest: Conv_0\)"):
        cut(cnn(), {"conv_0": np.array([0])})


@pytest.mark.parametrize(
    ("units", "why"),
    [
        (np.array([1, 1]), "units of 'Conv_0' are named twice"),
        (np.array([0.5]), r"'Conv_0' needs a list of unit numbers, not float64 \(1,\)"),
        (np.array([[1]]), r"'Conv_0' needs a list of unit numbers, not int64 \(1, 1\)"),
    ],
)
def test_no_numbers_of_units(units: np.ndarray, why: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match=why):
        cut(cnn(), {"Conv_0": units})


def test_a_model_without_groups() -> None:
    model = random_model("g (float[1,8] x) => (float[1,4] y) { y = MatMul(x, u) }", u=(8, 4))
    with pytest.raises(UsageError, match="no group is named 'a': the model has none"):
        cut(model, {"a": np.array([0])})


def test_a_value_that_would_be_empty() -> None:
    model = random_model(
        """g (float[1,6] x) => (float[1,8] y) {
          [a] h = MatMul(x, w)
          k, l = Split<axis=1, num_outputs=2>(h)
          y = Concat<axis=1>(m, k)
        }""".replace("y = Concat<axis=1>(m, k)", "j = Concat<axis=1>(l, k)\n y = MatMul(j, u)"),
        w=(6, 8), u=(8, 8),
    )  # fmt: skip
    with pytest.raises(UsageError, match="nothing would be left of the value 'k'"):
        cut(model, {"a": np.arange(4)})
    check_removed(model, {"a": np.arange(3)}, {"x": X[:1, :6]})


HEADS = """g (float[batch,time,6] x) => (float[batch,time,4] y)
  <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {3},
   int64 heads = {4}, int64[1] width = {3}, int64[1] whole = {12}, int64[1] minus = {-1}> {
  [q] a = MatMul(x, wq)
  shape = Shape(x)
  batch = Gather(shape, zero)
  time = Gather(shape, one)
  many = Mul(batch, heads)
  target = Concat<axis=0>(time, many, width)
  at = Transpose<perm=[1,0,2]>(a)
  ar = Reshape(at, target)
  q = Transpose<perm=[1,0,2]>(ar)
  [k] b = MatMul(x, wk)
  bt = Transpose<perm=[1,0,2]>(b)
  br = Reshape(bt, target)
  k = Transpose<perm=[1,2,0]>(br)
  s = MatMul(q, k)
  p = Softmax<axis=-1>(s)
  o = MatMul(p, q)
  ot = Transpose<perm=[1,0,2]>(o)
  back = Concat<axis=0>(time, batch, whole)
  of = Reshape(ot, back)
  oz = Transpose<perm=[1,0,2]>(of)
  [head] y = MatMul(oz, u)
}"""


def test_heads_beside_a_free_batch_in_one_axis() -> None:
    """As torch's attention has them: [time, 4 * batch, 3], the shape computed at run time."""
    model = random_model(HEADS, wq=(6, 12), wk=(6, 12), u=(12, 4))
    found = find_groups(model)
    assert described(found) == ["q heads 4"]
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(n, t, 6)).astype("f4")} for n, t in ((1, 5), (3, 2), (4, 4))]
    small = check_removed(model, {"q": np.array([1])}, *feeds)
    again = check_removed(small, {"q": np.array([0, 2])}, *feeds)
    assert weights(again)["wq"] == (6, 3)


def test_a_size_that_is_divided_again_keeps_the_heads() -> None:
    """`batch` is computed from 4 * batch: with fewer heads it would come out wrong."""
    text = HEADS.replace(
        "back = Concat<axis=0>(time, batch, whole)",
        """os = Shape(ot)
  om = Gather(os, one)
  od = Div(om, heads)
  back = Concat<axis=0>(time, od, whole)""",
    )
    found = find_groups(random_model(text, wq=(6, 12), wk=(6, 12), u=(12, 4)))
    assert described(found) == []
    assert "its size is computed with" in dict(found.frozen)["q"]


@settings(max_examples=25)
@given(st.data())
def test_random_units_of_several_groups(data: st.DataObject) -> None:
    pick = data.draw
    which = {
        group.name: np.asarray(
            pick(st.lists(st.integers(0, group.units - 1), unique=True, max_size=7)), np.int64
        )
        for group in _FOUND.groups
    }
    if any(units.size for units in which.values()):
        made = cut(_MODEL.clone(), which), masked(_MODEL.clone(), which)
        feeds = {"x": FRAMES["x"][0]}
        got, want = (outputs(model, feeds)["y"] for model in made)
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


_MODEL = recurrent()
_FOUND = find_groups(_MODEL)


def test_a_mask_is_the_model_at_full_size() -> None:
    model = small()
    made = masked(model.clone(), {"Gemm_0": np.array([0, 1])})
    assert weights(made) == weights(model)
    u = const(made.graph.graph.initializers["u"])
    assert u is not None
    assert not u[:2].any()
    assert u[2:].all()
    check_removed(model, {"Gemm_0": np.array([0, 1])}, {"x": X[:1]})
    check_removed(cnn(), {"Conv_0": np.arange(0, 16, 2)}, {"image": IMAGES[:1]})
