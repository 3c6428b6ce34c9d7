from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import random_model

from edgebm.ir.annotate import ChannelMoments, moments_of
from edgebm.ir.model import Model
from edgebm.ir.moments import clipped_mean, mean_of
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm

RNG = np.random.default_rng(0)
NORM = {"g": (4,), "b": (4,), "m": (4,), "v": (4,)}


@pytest.mark.parametrize("high", [math.inf, 6.0, 1.0])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.5), (-2.0, 1.0), (3.0, 4.0)])
def test_the_mean_of_a_clipped_normal_against_draws(mean: float, std: float, high: float) -> None:
    draws = np.clip(RNG.normal(mean, std, 400_000), 0.0, high)
    found = clipped_mean(ChannelMoments(np.array([mean]), np.array([std])), 0.0, high)
    assert found.shape == (1,)
    assert abs(found[0] - draws.mean()) < 5 * draws.std() / math.sqrt(len(draws)) + 1e-9


def test_a_channel_that_does_not_vary() -> None:
    fixed = ChannelMoments(np.array([2.0, -2.0]), np.zeros(2))
    np.testing.assert_allclose(clipped_mean(fixed, 0.0, math.inf), [2.0, 0.0], atol=1e-9)


def folded(behind: str) -> Model:
    text = f"""g (float[1,3,6,6] x) => (float y) <float zero = {{0.0}}, float six = {{6.0}}> {{
      c = Conv(x, w)
      n = BatchNormalization(c, g, b, m, v)
      {behind}
      y = ReduceSum<keepdims=0>(h)
    }}"""
    for label in ("zero", "six"):
        if label not in behind:
            text = text.replace(f"float {label} = {{{0.0 if label == 'zero' else 6.0}}}", "")
    text = text.replace(" <, >", "").replace("<, ", "<").replace(", >", ">")
    return run_passes(random_model(text, w=(4, 3, 3, 3), **NORM), [FoldBatchNorm()], Context())[0]


def test_folding_leaves_what_the_norm_knew() -> None:
    model = random_model(
        """g (float[1,3,6,6] x) => (float[1,4,4,4] y) {
          c = Conv(x, w)
          y = BatchNormalization(c, g, b, m, v)
        }""",
        w=(4, 3, 3, 3),
        **NORM,
    )
    known = {k: v.const_value for k, v in model.graph.graph.initializers.items()}
    gamma, beta = known["g"], known["b"]
    assert gamma is not None
    assert beta is not None
    after, _ = run_passes(model, [FoldBatchNorm()], Context())
    moments = moments_of(after.graph.graph.outputs[0])
    assert moments is not None
    np.testing.assert_allclose(moments.mean, beta.numpy())
    np.testing.assert_allclose(moments.std, np.abs(gamma.numpy()))  # a negative gain mirrors


@pytest.mark.parametrize(
    ("behind", "repeat", "high"),
    [
        ("h = Relu(n)", 1, math.inf),
        ("h = Clip(n, zero, six)", 1, 6.0),
        ("r = Relu(n)\n p = GlobalAveragePool(r)\n h = Flatten(p)", 1, math.inf),
        ("r = Relu(n)\n h = Flatten(r)", 16, math.inf),
    ],
)
def test_the_mean_is_followed(behind: str, repeat: int, high: float) -> None:
    model = folded(behind)
    values = {v.name: v for node in model.nodes() for v in node.outputs}
    moments = moments_of(next(model.nodes("Conv")).outputs[0])
    assert moments is not None
    want = np.repeat(clipped_mean(moments, 0.0, high), repeat)
    found = mean_of(values["h"])
    assert found is not None
    np.testing.assert_allclose(found, want)


@pytest.mark.parametrize("behind", ["h = Sigmoid(n)", "h = MaxPool<kernel_shape=[2,2]>(n)"])
def test_nothing_is_told_behind_what_bends_the_distribution(behind: str) -> None:
    values = {v.name: v for node in folded(behind).nodes() for v in node.outputs}
    assert mean_of(values["h"]) is None
    assert mean_of(None) is None
