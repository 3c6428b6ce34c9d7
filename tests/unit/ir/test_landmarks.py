from __future__ import annotations

import students
from graphs import random_model

from edgebm.ir.landmarks import attentions, landmarks, shared_landmarks, thinned
from edgebm.ir.zeros import zeros_to_keep


def test_sums_of_blocks_and_their_norms() -> None:
    # One sum only in the CNN: activations come along. Norms stand for the sums they alone read.
    assert landmarks(students.cnn(8, 0)) == ["r1", "r2", "a3", "r3"]
    assert landmarks(students.bert(8, 0)) == ["norm1", "norm2"]
    assert landmarks(students.gru(4, 0)) == ["s"]


def test_a_bias_is_no_block() -> None:
    model = random_model(
        """g (float[2,4] x) => (float[2,4] y) {
             h = MatMul(x, w)
             b = Add(h, v)
             r = Relu(b)
             y = MatMul(r, u) }""",
        w=(4, 4), v=(4,), u=(4, 4),
    )  # fmt: skip
    assert landmarks(model) == ["r"]


def test_a_few_of_many() -> None:
    assert thinned([1, 2, 3]) == [1, 2, 3]
    assert thinned([1, 2, 3, 4]) == [2, 4]
    assert thinned(list(range(25))) == [0, 4, 8, 12, 16, 20, 24]
    assert len(thinned(list(range(1000)))) == 8


def test_attentions() -> None:
    (place,) = attentions(students.bert(8, 0))
    assert (place.probabilities, place.values) == ("p", "vt")
    assert attentions(students.cnn(8, 0)) == []


def test_equal_names_of_other_graphs_are_no_equal_places() -> None:
    teacher = students.cnn(24, 0)
    assert shared_landmarks(teacher, students.cnn(8, 1)) == landmarks(teacher)
    other = random_model(
        """g (float[N,1,8,8] x) => (float[N,8,8,8] y) {
             c = Conv<pads=[1,1,1,1]>(x, k1)
             r1 = Relu(c)
             d = Conv<pads=[1,1,1,1]>(r1, k2)
             r2 = Relu(d)
             y = Add(r2, r1) }""",
        k1=(8, 1, 3, 3), k2=(8, 8, 3, 3),
    )  # fmt: skip
    assert shared_landmarks(teacher, other) == []


def test_sparse_weights_keep_their_zeros() -> None:
    import numpy as np

    from edgebm.ir.edit import const, replace_const

    model = students.gru(4, 0)
    held = model.graph.graph.initializers
    array = const(held["w"]).copy()
    array[:, ::2] = 0
    replace_const(held["w"], array)
    replace_const(held["wy"], np.zeros_like(const(held["wy"])))
    masks = zeros_to_keep(model, ["w", "r", "b", "wy"])
    assert list(masks) == ["w"]
    np.testing.assert_array_equal(masks["w"], array != 0)
