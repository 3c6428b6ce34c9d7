"""`edgebm.analyze` against what a report promises about `analysis`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import random_model
from tiny_models import IDS, IMAGES, cnn, transformer

import edgebm
from edgebm.errors import DataError, UsageError
from edgebm.ir.model import Model
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.recipe import Recipe
from edgebm.search.analysis import Known, analysis_dict
from edgebm.search.sensitivity import LayerError, LayerErrors

PLAIN = Recipe(version=1, name="plain", steps=(QuantizeWeights(), QuantizeActivations()))
KEYS = {
    *("name", "op", "alone_db", "without_db", "local_db", "weight", "activation"),
    *("float_us", "int8_us", "lifted"),
}
MODELS = {"cnn": (cnn, {"image": IMAGES}), "transformer": (transformer, {"ids": IDS})}


@pytest.fixture(scope="module", params=list(MODELS))
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    build, data = MODELS[request.param]
    return edgebm.analyze(build(), data, recipe=PLAIN)


def test_the_analysis_is_json_and_has_every_key(found: dict[str, Any]) -> None:
    json.dumps(found, allow_nan=False)
    analysis = found["analysis"]
    assert set(analysis) == {"samples", "grid", "runtime", "full_db", "layers", "repair"}
    assert analysis["repair"] is None
    assert analysis["samples"] > 0
    assert 10 < analysis["full_db"] < 80
    assert analysis["layers"]
    for layer in analysis["layers"]:
        assert set(layer) == KEYS
        assert layer["lifted"] is False
        assert layer["float_us"] is None
        assert layer["int8_us"] is None
        assert 0 < layer["local_db"] < 100
        for part in (layer["weight"], layer["activation"]):
            if part is not None:
                assert len(part["histogram"]["counts"]) == 64
                assert part["histogram"]["low"] <= part["low"] < part["high"]
                assert part["low"] < part["high"] <= part["histogram"]["high"]


def test_layers_are_ranked_and_one_alone_harms_less_than_all(found: dict[str, Any]) -> None:
    analysis = found["analysis"]
    alone = [layer["alone_db"] for layer in analysis["layers"]]
    assert alone == sorted(alone)
    assert analysis["full_db"] < alone[-1]


def test_every_layer_with_weights_and_inputs_has_their_figures(found: dict[str, Any]) -> None:
    for layer in found["analysis"]["layers"]:
        activation, weight = layer["activation"], layer["weight"]
        assert activation is not None
        assert activation["clipped"] == 0  # the range of min-max on these very samples
        assert activation["seen_low"] >= min(activation["low"], 0)
        assert activation["seen_high"] <= max(activation["high"], 0)
        assert (weight is None) == (layer["op"] in {"Add", "GlobalAveragePool"})
        if weight is not None:
            assert weight["channels"] > 1
            assert weight["spread"] >= 1
            assert 30 < weight["db"] < 60


def test_what_stays_in_float_has_its_reason() -> None:
    found = edgebm.analyze(transformer(), {"ids": IDS}, recipe=PLAIN, ignored=("MatMul_7",))
    reasons = {layer["name"]: layer["why"] for layer in found["layers"]}
    assert reasons["MatMul_7"] == "it is on the ignored list"
    assert "MatMul_7" not in {layer["name"] for layer in found["analysis"]["layers"]}


def with_an_outlier() -> tuple[Model, dict[str, Any]]:
    """`hot` reads a feature that is huge on few samples, and has no use for it."""
    model = random_model(
        """g (float[1,64] x) => (float[1,8] y) {
          [hot] a = MatMul(x, w1)
          b = Relu(a)
          [mid] c = MatMul(b, w2)
          d = Relu(c)
          [head] y = MatMul(d, w3)
        }""",
        w1=(64, 32), w2=(32, 32), w3=(32, 8),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 64)).astype(np.float32)
    x[::10, 0] = 400.0
    node = next(model.nodes("MatMul"))
    weight = node.inputs[1].const_value.numpy().copy()  # type: ignore[union-attr]
    weight[0] = 0.0
    from edgebm.ir.edit import set_const

    set_const(node, 1, weight, suffix="without_first")
    return model, {"x": x}


def test_a_planted_outlier_is_found_named_and_explained() -> None:
    model, data = with_an_outlier()
    found = edgebm.analyze(model, data, recipe=PLAIN)
    worst = found["analysis"]["layers"][0]
    assert worst["name"] == "hot"
    assert worst["without_db"] > found["analysis"]["full_db"] + 6
    text = " ".join(found["findings"])
    assert "hot (MatMul) alone makes" in text
    assert "The input of hot spans" in text
    assert "99 % of the values lie in" in text
    assert "--ignored hot" in text


def test_without_the_outlier_nothing_of_it_is_said() -> None:
    model, data = with_an_outlier()
    data["x"][:, 0] = 0.0
    found = edgebm.analyze(model, data, recipe=PLAIN)
    assert "spans" not in " ".join(found["findings"])


def test_a_recipe_that_quantizes_nothing() -> None:
    found = edgebm.analyze(cnn(), {"image": IMAGES}, recipe="fp32")
    assert found["analysis"]["layers"] == []
    assert found["analysis"]["full_db"] is None
    assert found["findings"] == ["No layer runs on integers, so none is to blame."]
    assert all(layer["why"] for layer in found["layers"])


def test_what_others_measured_is_taken_in(prepared: tuple[Any, Model, Any]) -> None:
    job, decided, dialect = prepared
    errors = LayerErrors(20.0, (LayerError("Conv_1", "Conv", float("inf"), float("inf")),), 4)
    known = Known(
        local_db={"Conv_1": 33.0},
        float_us={"Conv_1": 9.0},
        int8_us={"Conv_1": 4.0},
        lifted=frozenset({"Conv_1"}),
        repair={"lifted": ["Conv_1"]},
    )
    seen = []
    progress = lambda step, done, total: seen.append((step, done, total))  # noqa: E731
    analysis = analysis_dict(job, decided, dialect, errors, progress, known)
    (layer,) = analysis["layers"]
    assert layer["alone_db"] is None  # JSON has no infinity
    assert (layer["local_db"], layer["float_us"], layer["int8_us"]) == (33.0, 9.0, 4.0)
    assert layer["lifted"] is True
    assert analysis["repair"] == {"lifted": ["Conv_1"]}
    assert seen[-1] == ("statistics", len(job.calibration), len(job.calibration))


@pytest.fixture
def prepared() -> tuple[Any, Model, Any]:
    from edgebm.backends.dialects import cpu_dialects
    from edgebm.search.decide import Decisions
    from edgebm.search.job import Options
    from edgebm.search.prepare import prepare
    from edgebm.target import load_target

    job = prepare(cnn(), PLAIN, Options(), data={"image": IMAGES})
    decided = Decisions(job, load_target("host"), lambda step, done, total: None).passes()
    return job, decided, cpu_dialects("onnxruntime")[0]


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are none"):
        edgebm.analyze(cnn(), None)
    with pytest.raises(UsageError, match="subset_size"):
        edgebm.analyze(cnn(), {"image": IMAGES}, subset_size=0)
