from __future__ import annotations

import numpy as np
from graphs import Array, Listed, random_model

from edgebm.exec.recurrent_inputs import Read, read_by
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of


def read(model: Model, feeds: list[dict[str, Array]]) -> Read:
    (node,) = model.nodes("GRU")
    cell = cell_of(node)
    assert cell is not None
    return read_by(model, cell, Listed(feeds).feeds())


def test_sequences_end_where_their_lengths_say() -> None:
    model = random_model(
        """g (float[4,3,2] x, int32[3] n, float[1,3,5] h) => (float[4,1,3,5] y) {
          a = Add(x, x)
          y = GRU<hidden_size=5>(a, w, r, , n, h)
        }""",
        w=(1, 15, 2), r=(1, 15, 5),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(4, 3, 2)).astype("f4"), rng.normal(size=(1, 3, 5)).astype("f4")
    found = read(model, [{"x": x, "n": np.array([4, 0, 2], "i4"), "h": h}])
    assert [array.shape for array in found.x] == [(4, 2), (2, 2)]
    np.testing.assert_array_equal(found.x[1], 2 * x[:2, 2])
    np.testing.assert_array_equal(found.initial[1], h[:, 2])
    assert found.nbytes == 4 * (6 * 2 + 2 * 5)


def test_without_states_and_lengths_they_begin_at_zero_and_are_whole() -> None:
    model = random_model(
        """g (float[1,4,2] x) => (float[4,2,1,5] y) {
          t = Transpose<perm=[1,0,2]>(x)
          y = GRU<hidden_size=5, direction="bidirectional">(t, w, r)
        }""",
        w=(2, 15, 2), r=(2, 15, 5),
    )  # fmt: skip
    x = np.ones((1, 4, 2), np.float32)
    found = read(model, [{"x": x}, {"x": 3 * x}])
    assert [array.shape for array in found.x] == [(4, 2), (4, 2)]
    np.testing.assert_array_equal(found.x[1], 3 * x[0])
    assert [array.shape for array in found.initial] == [(2, 5), (2, 5)]
    assert not np.any(found.initial)
