"""Recurrent cells with the rounding of their integer kernels, computed in float."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, random_model, samples

from edgebm.exec.rounded_cells import with_rounded_cells
from edgebm.ir.annotate import cell_params_of, set_cell_params
from edgebm.ir.check import verify
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_recurrent import QuantizeRecurrent


def decided(op: str, gates: int) -> Model:
    model = random_model(
        "g (float[9,1,6] x) => (float[9,1,1,8] y)"
        f" {{ [rnn] y = {op}<hidden_size=8>(x, w, r, b) }}",
        w=(1, gates * 8, 6),
        r=(1, gates * 8, 8),
        b=(1, gates * 16),
    )
    return run_passes(model, [QuantizeRecurrent()], Context(samples=samples(model, 8)))[0]


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_rounding_is_seen_and_small(op: str, gates: int) -> None:
    model = decided(op, gates)
    rounded = with_rounded_cells(model)
    verify(rounded)
    assert cell_params_of(next(iter(rounded.nodes(op)))) is None
    feeds = next(iter(samples(model, 1, seed=5).feeds()))
    want, got = outputs(model, feeds)["y"], outputs(rounded, feeds)["y"]
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.05


def test_fewer_bits_cost_more() -> None:
    model = decided("LSTM", 4)
    node = next(iter(model.nodes("LSTM")))
    params = cell_params_of(node)
    assert params is not None
    feeds = next(iter(samples(model, 1, seed=5).feeds()))
    want, errors = outputs(model, feeds)["y"], []
    for bits in (8, 4):
        set_cell_params(node, params.with_weight_bits(bits))
        errors.append(np.abs(outputs(with_rounded_cells(model), feeds)["y"] - want).mean())
    assert errors[1] > 3 * errors[0]


def test_without_decisions_it_is_the_same_model() -> None:
    model = random_model(
        "g (float[9,1,6] x) => (float[9,1,1,8] y) { y = LSTM<hidden_size=8>(x, w, r) }",
        w=(1, 32, 6),
        r=(1, 32, 8),
    )
    assert with_rounded_cells(model) is model


def test_the_decided_model_is_left_alone() -> None:
    model = decided("GRU", 3)
    before = model.to_bytes()
    with_rounded_cells(model)
    assert model.to_bytes() == before
    cell = cell_of(next(iter(model.nodes("GRU"))))
    assert cell is not None
    assert cell_params_of(cell.node) is not None
