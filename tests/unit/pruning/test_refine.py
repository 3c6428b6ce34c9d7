"""Common factors of the axes on both sides of a Reshape."""

from __future__ import annotations

import pytest

from edgebm.ir.dims import Free
from edgebm.pruning.refine import Part, Size, divided, refine

N, T = Free(("N",)), Free(("T",))


def described(parts: list[Part]) -> list[tuple[tuple[int, ...], tuple[int, ...], list[Size]]]:
    return [(p.before, p.after, [f.size for f in p.factors]) for p in parts]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([N, T, 12], [N, T, 4, 3], [((0,), (0,), [N]), ((1,), (1,), [T]), ((2,), (2, 3), [4, 3])]),
        ([N, 4, 3], [N, 12], [((0,), (0,), [N]), ((1, 2), (1,), [4, 3])]),
        ([5, 1, 12], [1, 5, 3, 4], [((0,), (1,), [5]), ((2,), (2, 3), [3, 4])]),
        ([T, N, 12], [T, 4 * N, 3], [((0,), (0,), [T]), ((1, 2), (1, 2), [N, 4, 3])]),
        ([N, 8, T], [N, 2, 4 * T], [((0,), (0,), [N]), ((1, 2), (1, 2), [2, 4, T])]),
        # One size without a name is what is left over.
        ([N, T, 12], [N, Free(("?",)), 3, 4], [
            ((0,), (0,), [N]), ((1,), (1,), [T]), ((2,), (2, 3), [3, 4]),
        ]),
        # Two are not told apart, but what is behind them is.
        ([N, T, 12], [Free(("?",)), Free(("!",)), 3, 4], [
            ((0, 1), (0, 1), []), ((2,), (2, 3), [3, 4]),
        ]),
        ([4, 6], [3, 8], [((0, 1), (0, 1), [])]),
        ([N, 1], [1, N, 1], [((0,), (1,), [N])]),
    ],
)  # fmt: skip
def test_parts(
    before: list[Size], after: list[Size],
    wanted: list[tuple[tuple[int, ...], tuple[int, ...], list[Size]]],
) -> None:  # fmt: skip
    assert described(refine(before, after)) == wanted


def test_factors_know_their_axes() -> None:
    (part,) = refine([6, 4], [2, 12])
    assert [(f.size, f.before, f.after) for f in part.factors] == [(2, 0, 0), (3, 0, 1), (4, 1, 1)]


def test_division() -> None:
    assert divided(12, 4) == 3
    assert divided(12, 5) is None
    assert divided(12 * N, 4) == 3 * N
    assert divided(12 * N, N) == 12
    assert divided(12, N) is None
    assert divided(N * T, T) == N
