"""Sets of labels that grow together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgebm.pruning.labels import Labels

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(PAIRS)
def test_ties_are_those_of_a_graph(pairs: list[tuple[int, int]]) -> None:
    labels = Labels()
    own = labels.fresh(20)
    for a, b in pairs:
        labels.tie(own[[a, a]], own[[b, a]])
    reach = np.eye(20, dtype=bool)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = True
    for middle in range(20):
        reach |= reach[:, [middle]] & reach[[middle]]
    roots = labels.roots(own)
    np.testing.assert_array_equal(roots[:, None] == roots[None], reach)


def test_many_ties_at_once_and_shapes_that_spread() -> None:
    labels = Labels()
    wide, few = labels.fresh(12).reshape(3, 4), labels.fresh(4)
    labels.tie(wide, few[None])
    np.testing.assert_array_equal(labels.roots(wide), np.tile(labels.roots(few), (3, 1)))
    assert len(np.unique(labels.roots(few))) == 4
    labels.tie(few, np.roll(few, 1))
    assert len(np.unique(labels.roots(wide))) == 1


def test_the_first_reason_stays_with_the_set() -> None:
    labels = Labels()
    own = labels.fresh(2000)  # more than there is room for at first
    labels.freeze(own[5:6], "a", "first")
    labels.freeze(own[7:8], "b", "second")
    labels.tie(own[5:9], own[15:19])
    assert labels.is_frozen(own[[5, 6, 7, 15, 17]]).tolist() == [True, False, True, True, True]
    labels.tie(own[17:18], own[15:16])
    assert labels.reason(7) == ("a", "first")
    assert len(labels) == 2000
