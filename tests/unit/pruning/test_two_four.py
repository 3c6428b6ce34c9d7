from __future__ import annotations

import numpy as np
import pytest
from graphs import parse, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebm.pruning.two_four import is_two_of_four, kept_two_of_four, sum_axis, two_four_weights


def test_the_two_highest_of_four_stay() -> None:
    score = np.array([[4.0, 1, 3, 2, 5, 6, 7, 8], [0, 0, 0, 0, 1, 1, 1, 2]])
    assert kept_two_of_four(score, 1).astype(int).tolist() == [
        [1, 0, 1, 0, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 0, 0, 1],
    ]


@settings(max_examples=40)
@given(st.integers(0, 2), st.integers(1, 3), st.integers(0, 99))
def test_half_of_each_four_along_any_axis(axis: int, fours: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [3, 2, 5]
    shape[axis] = 4 * fours
    weight = rng.normal(size=shape)
    mask = kept_two_of_four(np.abs(weight), axis)
    assert mask.shape == weight.shape
    counts = np.moveaxis(mask, axis, -1).reshape(-1, 4).sum(-1)
    assert (counts == 2).all()
    assert is_two_of_four(weight * mask, axis)
    assert not is_two_of_four(weight, axis)
    kept, gone = np.abs(weight * mask), np.abs(weight * ~mask)
    fours_of = [np.moveaxis(part, axis, -1).reshape(-1, 4) for part in (kept, gone)]
    least = np.where(fours_of[0] > 0, fours_of[0], np.inf).min(-1)
    assert (least >= fours_of[1].max(-1)).all()


def test_what_is_not_two_of_four() -> None:
    assert is_two_of_four(np.zeros((2, 8)), 1)
    assert not is_two_of_four(np.zeros((2, 6)), 1)  # no kernel reads it in fours
    assert not is_two_of_four(np.zeros(8), 0)
    three = np.array([[1.0, 0, 1, 0, 0, 1, 1, 1]])
    assert not is_two_of_four(three, 1)
    assert is_two_of_four(np.array([[1.0, 1, 0, 0, 0, 0, 1, 1]]), 1)  # shifted: four in a row


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("y = Conv(x, w)", (8, 4, 3, 3), 1),
        ("y = Gemm<transB=1>(x, w)", (8, 4), 1),
        ("y = Gemm(x, w)", (4, 8), 0),
        ("y = MatMul(x, w)", (4, 8), -2),
    ],
)
def test_the_axis_that_a_layer_sums_over(text: str, shape: tuple[int, ...], axis: int) -> None:
    face = "float[1,4,5,5] x" if "Conv" in text else "float[2,4] x"
    model = random_model(f"g ({face}) => (float[] y) {{ {text} }}", w=shape)
    (node,) = model.nodes()
    assert sum_axis(node) == axis
    assert shape[axis] == 4


def test_which_weights_of_a_model_are_sparse() -> None:
    rng = np.random.default_rng(0)
    dense, shared = (rng.normal(size=(8, 8)).astype(np.float32) for _ in range(2))
    sparse = dense * kept_two_of_four(np.abs(dense), 0)
    along = shared * kept_two_of_four(np.abs(shared), 0)
    text = """g (float[2,8] x) => (float[2,8] y) {
      a = MatMul(x, sparse)
      b = Gemm<transB=1>(a, turned)
      c = MatMul(b, dense)
      d = MatMul(c, both)
      y = Gemm<transB=1>(d, both)
    }"""
    model = parse(
        text, sparse=sparse, turned=np.ascontiguousarray(sparse.T), dense=dense, both=along
    )
    assert two_four_weights(model) == {"sparse", "turned"}
