from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgebm.errors import SelfTestFailed
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.selftest import relative_error, self_test

BUNDLE = Path(__file__).parents[2] / "device" / "data" / "image.edgebm"


def test_the_error_is_relative_to_the_norm_of_the_golden_output() -> None:
    golden = np.array([3.0, 4.0])
    assert relative_error(golden, golden) == 0
    assert relative_error(np.array([3.0, 4.5]), golden) == pytest.approx(0.1)
    assert relative_error(golden * 1e20, golden) == pytest.approx(1e20)


def test_a_golden_output_of_zeros_is_compared_as_it_is() -> None:
    assert relative_error(np.array([0.3, 0.4]), np.zeros(2)) == pytest.approx(0.5)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0


def test_integers_booleans_and_scalars_are_compared_as_numbers() -> None:
    assert relative_error(np.array([1, 2]), np.array([1, 2])) == 0
    assert relative_error(np.array([True]), np.array([False])) == 1
    assert relative_error(np.array(2, np.uint8), np.array(1, np.uint8)) == 1
    assert relative_error(np.array([], np.float32), np.array([], np.float32)) == 0


def test_values_that_are_not_finite_must_be_the_same() -> None:
    golden = np.array([np.nan, -np.inf, 1.0])
    assert relative_error(golden.copy(), golden) == 0
    for wrong in ([0, -np.inf, 1.0], [np.nan, np.inf, 1.0], [np.nan, -np.inf, np.nan]):
        assert relative_error(np.array(wrong), golden) == np.inf


def test_another_shape_is_infinitely_wrong() -> None:
    assert relative_error(np.zeros((1, 2)), np.zeros(2)) == np.inf


@pytest.mark.row(29, 63)
def test_a_wrong_answer_fails_with_its_figures() -> None:
    bundle = read_bundle(BUNDLE)
    variant = bundle.manifest.variants[0]
    answers = iter([bundle.golden(0)[1][0], bundle.golden(1)[1][0]])
    with pytest.raises(SelfTestFailed, match="scores is off by 0.01 of 0.0001") as caught:
        self_test(bundle, variant, lambda _: {"scores": next(answers) * 1.01})
    assert caught.value.details["tolerance"] == {"scores": 1e-4}
    assert caught.value.exit_code == 4
