from __future__ import annotations

import pytest

from edgebm.errors import UsageError
from edgebm.search.candidates import Face
from edgebm.search.shapes import axis_ranges, is_free, size_faults, static_shapes
from edgebm.spec import TensorSpec

FIXED = Face((TensorSpec("x", "float32", (1, 3)),), ())
TEXT = Face(
    (
        TensorSpec("ids", "int64", ("batch", "seq")),
        TensorSpec("mask", "int64", ("batch", "seq")),
        TensorSpec("bias", "float32", (1, 8)),
    ),
    (),
)
SAMPLE = {"ids": (1, 32), "mask": (1, 32), "bias": (1, 8)}


def test_free_axes_and_their_sizes() -> None:
    assert not is_free(FIXED)
    assert is_free(TEXT)
    assert axis_ranges(FIXED, {}) == {}
    assert axis_ranges(TEXT, {"seq": 512}) == {"batch": (1, 65536), "seq": (1, 512)}


def test_sizes_above_a_limit_are_told() -> None:
    assert size_faults(TEXT, {"seq": 32}, SAMPLE) == []
    (fault,) = size_faults(TEXT, {"seq": 31}, {"ids": (1, 32)})
    assert fault == "ids: int64[batch, seq] has 32 seq in [1, 32], and the model counts 31 of them"


def test_a_fixed_model_needs_no_copies() -> None:
    assert static_shapes(FIXED, {}, {"x": (1, 3)}) == ()


def test_without_a_list_the_sample_is_the_only_copy() -> None:
    assert static_shapes(TEXT, {}, SAMPLE) == (SAMPLE,)


def test_inputs_left_out_follow_by_the_names_of_their_axes() -> None:
    assert static_shapes(TEXT, {"ids": [(1, 64), (2, 128)]}, SAMPLE) == (
        {"ids": (1, 64), "mask": (1, 64), "bias": (1, 8)},
        {"ids": (2, 128), "mask": (2, 128), "bias": (1, 8)},
    )


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        ({"idx": [(1, 64)]}, "there is no input 'idx'"),
        ({"ids": [(1, 64)], "mask": [(1, 64), (1, 32)]}, "as many shapes as the others"),
        ({"ids": [(1, 64, 2)]}, r"shape \[1, 64, 2\] does not fit ids: int64\[batch, seq\]"),
        ({"ids": [(1, 64)], "mask": [(1, 32)]}, "axis seq is 64"),
        ({"bias": [(1, 9)]}, "axis 8 is 8"),
        ({"bias": [(1, 8)]}, "no listed shape says how large batch, seq of ids"),
        ({"ids": [(1, 0)]}, "does not fit"),
    ],
)
def test_what_does_not_fit(listed: dict[str, list[tuple[int, ...]]], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        static_shapes(TEXT, listed, SAMPLE)
    assert "ids: int64[batch, seq]" in caught.value.hint


def test_all_faults_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        static_shapes(TEXT, {"ids": [(1, 64)], "mask": [(2, 64)], "bias": [(1, 9)]}, SAMPLE)
    assert "axis batch is 1" in str(caught.value)
    assert "axis 8 is 8" in str(caught.value)
