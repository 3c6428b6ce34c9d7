from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgebm.data.agreement import FLOOR, agreement, meets_floor, sqnr_db
from edgebm.data.spool import KeptOutputs

RNG = np.random.default_rng(5)
SCORES = RNG.normal(size=(100, 10)).astype(np.float32)


def rows(**outputs: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    count = len(next(iter(outputs.values())))
    return [{k: v[i : i + 1] for k, v in outputs.items()} for i in range(count)]


def test_figures_against_whole_arrays() -> None:
    noisy = SCORES + RNG.normal(scale=0.1, size=SCORES.shape).astype(np.float32)
    got = agreement(rows(y=SCORES), rows(y=noisy)).outputs["y"]
    power = (SCORES.astype(float) ** 2).sum() / ((SCORES - noisy).astype(float) ** 2).sum()
    assert got.sqnr_db == pytest.approx(10 * np.log10(power), abs=1e-4)
    assert sqnr_db(SCORES, noisy) == pytest.approx(got.sqnr_db)
    assert got.top1 == (SCORES.argmax(1) == noisy.argmax(1)).mean()
    cosines = (
        (SCORES * noisy).sum(1) / np.linalg.norm(SCORES, axis=1) / np.linalg.norm(noisy, axis=1)
    )
    assert got.cosine == pytest.approx(cosines.mean(), abs=1e-6)


def test_equal_outputs() -> None:
    result = agreement(rows(y=SCORES, n=np.arange(100)), rows(y=SCORES, n=np.arange(100)))
    assert result.sqnr_db == 150
    assert result.outputs["y"].top1 == result.outputs["y"].cosine == 1
    assert result.outputs["n"].equal == 1
    assert meets_floor(result)[0]


def test_one_bad_output_is_enough_to_fail() -> None:
    image = RNG.normal(size=(100, 3, 4, 4))
    noise = RNG.normal(size=image.shape)
    result = agreement(rows(y=SCORES, z=image), rows(y=SCORES, z=image + 0.2 * noise))
    ok, sentence = meets_floor(result)
    assert not ok
    assert "'z'" in sentence
    assert "'y'" not in sentence
    assert result.outputs["z"].top1 is None
    assert meets_floor(agreement(rows(z=image), rows(z=image + 0.05 * noise)))[0]


def test_for_vectors_the_best_class_or_the_direction_is_enough() -> None:
    onehot = np.eye(10)[np.arange(100) % 10]
    result = agreement(rows(y=onehot), rows(y=onehot * 3))
    assert result.sqnr_db < 20
    assert meets_floor(result)[0]
    assert not meets_floor(agreement(rows(y=SCORES), rows(y=SCORES[::-1])))[0]


def test_integers_count_equal_elements() -> None:
    ids = np.arange(100)
    off = np.where(ids < 5, 0, ids)
    assert not meets_floor(agreement(rows(n=ids), rows(n=off)))[0]
    assert meets_floor(agreement(rows(n=ids), rows(n=np.where(ids < 3, 0, ids))))[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_fail(bad: float) -> None:
    broken = SCORES.copy()
    broken[50, 3] = bad
    ok, sentence = meets_floor(agreement(rows(y=SCORES), rows(y=broken)))
    assert not ok
    assert "not finite" in sentence
    assert agreement(rows(y=broken), rows(y=SCORES)).outputs["y"].meets(FLOOR)


def test_other_shapes_fail() -> None:
    ok, sentence = meets_floor(agreement([{"y": np.ones((1, 3))}], [{"y": np.ones((1, 2))}]))
    assert not ok
    assert "shape [1, 2] instead of [1, 3]" in sentence


def test_kept_outputs_can_be_read_again() -> None:
    kept = KeptOutputs(iter(rows(y=SCORES, n=np.arange(100))))
    for _ in range(2):
        assert agreement(kept, rows(y=SCORES, n=np.arange(100))).sqnr_db == 150
    assert len(kept) == 100
    assert [each["n"].shape for each in kept] == [(1,)] * 100
    kept.close()


def test_a_run_that_ends_early_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="shorter"):
        agreement(rows(y=SCORES), rows(y=SCORES[:50]))
