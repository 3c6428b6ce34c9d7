"""Which artifacts are built of models with recurrent layers, and from which graph."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from graphs import random_model
from tiny_models import short_recipe

from edgebm.backends.dialects import EXACT
from edgebm.ir.model import Model
from edgebm.search.assemble import Graphs, build_integers
from edgebm.search.candidates import Artifact
from edgebm.search.decide import Decisions
from edgebm.search.job import Job, Options
from edgebm.search.prepare import prepare
from edgebm.target import load_target

HIDDEN = 16


@pytest.fixture(autouse=True)
def one_thread() -> None:
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def model_of(op: str, attributes: str = "") -> Model:
    rows = {"LSTM": 4, "GRU": 3}[op] * HIDDEN
    return random_model(
        f"g (float[12,1,6] x) => (float[12,1,4] z) <int64[1] one = {{1}}> {{"
        f" [rnn] y = {op}<hidden_size={HIDDEN}{attributes}>(x, w, r, b)"
        " s = Squeeze(y, one) [head] z = MatMul(s, u) }",
        w=(1, rows, 6),
        r=(1, rows, HIDDEN),
        b=(1, 2 * rows),
        u=(HIDDEN, 4),
    )


def job_of(model: Model, ignored: tuple[str, ...] = ()) -> Job:
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=(12, 1, 6)).astype(np.float32)} for _ in range(12)]
    return prepare(model, short_recipe(), Options(ignored=ignored), data=data)


def built(op: str, attributes: str = "") -> tuple[dict[str, Artifact], Decisions]:
    job, target = job_of(model_of(op, attributes)), load_target("host")
    decisions = Decisions(job, target, lambda step, done, total: None)
    decided = decisions.passes()
    graphs = Graphs(decided, decisions.turned(decided))
    failures: list[str] = []
    artifacts = {
        f"{runtime}/{artifact.kind}": artifact
        for runtime in ("openvino", "onnxruntime")
        for artifact in build_integers(job, runtime, graphs, [EXACT], failures)
    }
    assert failures == []
    return artifacts, decisions


def test_an_lstm_is_integer_on_both_runtimes() -> None:
    artifacts, decisions = built("LSTM")
    assert "rnn" in artifacts["openvino/int8"].integer_nodes
    assert "rnn" in artifacts["onnxruntime/int8-dynamic"].integer_nodes
    # There is nothing to write out: ONNX Runtime has a node for it.
    assert "onnxruntime/int8-cells" not in artifacts
    assert decisions.turned(decisions.passes()) is None


def test_a_gru_is_written_out_or_turned() -> None:
    pytest.importorskip("torch")
    artifacts, decisions = built("GRU", ", linear_before_reset=1")
    assert "rnn" not in artifacts["openvino/int8"].integer_nodes
    assert "(linear_before_reset=0)" in artifacts["openvino/int8"].reasons["rnn"]
    assert "rnn" in artifacts["onnxruntime/int8-cells"].integer_nodes
    turned = artifacts["openvino/int8-reset-before"]
    assert "rnn" in turned.integer_nodes
    node = next(iter(turned.source.nodes("GRU")))
    assert node.attributes.get_int("linear_before_reset", 0) == 0
    # The graph that others are lowered from keeps its form.
    node = next(iter(artifacts["openvino/int8"].source.nodes("GRU")))
    assert node.attributes.get_int("linear_before_reset", 0) == 1
    assert any("was turned" in note and "dB SQNR" in note for note in decisions.notes)


def test_a_gru_of_the_other_form_needs_no_turning() -> None:
    artifacts, decisions = built("GRU")
    assert "rnn" in artifacts["openvino/int8"].integer_nodes
    assert "openvino/int8-reset-before" not in artifacts
    assert decisions.notes == []


def test_a_name_that_is_ignored_stays_float() -> None:
    job = job_of(model_of("LSTM"), ignored=("rnn",))
    decided = Decisions(job, load_target("host"), lambda step, done, total: None).passes()
    for runtime in ("openvino", "onnxruntime"):
        for artifact in build_integers(job, runtime, Graphs(decided), [EXACT], []):
            assert "rnn" not in artifact.integer_nodes
