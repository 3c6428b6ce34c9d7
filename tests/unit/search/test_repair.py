"""A model that integers break for a reason no scaling mends, and its repair end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import parse
from tiny_models import short_recipe

import edgebm
from edgebm.data.metrics import resolve_metric
from edgebm.data.samples import open_samples
from edgebm.exec.collect import FloatRunner
from edgebm.ir.model import Model
from edgebm.recipe import load_recipe
from edgebm.search.judge import DEFAULT, STRICT, MetricJudge
from edgebm.search.repair import _errors_from_json, _errors_to_json
from edgebm.search.sensitivity import LayerError, LayerErrors
from edgebm.spec import TensorSpec

TARGET = "cpu-x86-vnni"  # latency is not measured for it, so that nothing depends on this machine
OFFSET = 3000.0


def offset_net() -> Model:
    """`second` reads values that all lie near OFFSET, and takes it out again.

    The scores are centred on the samples, so that every class is somewhere the best.
    """
    plain = _net(np.random.default_rng(5), np.zeros(6, np.float32))
    scores = np.concatenate([each["y"] for each in map(_run_of(plain), range(len(X)))])
    return _net(np.random.default_rng(5), -scores.mean(axis=0))


def _run_of(model: Model) -> Callable[[int], dict[str, Any]]:
    runner = FloatRunner(model, ["y"])
    return lambda i: runner.run({"x": X[i : i + 1]})


def _net(rng: np.random.Generator, b4: np.ndarray) -> Model:
    w2 = rng.normal(size=(8, 8, 1, 1)).astype(np.float32)
    return parse(
        """g (float[1,3,8,8] x) => (float[1,6] y) {
          [first] a = Conv(x, w1, b1)
          [second] b = Conv(a, w2, b2)
          c = Relu(b)
          [third] d = Conv<pads=[1,1,1,1]>(c, w3)
          e = Relu(d)
          p = GlobalAveragePool(e)
          f = Flatten(p)
          [head] y = Gemm<transB=1>(f, w4, b4)
        }""",
        w1=rng.normal(size=(8, 3, 1, 1)).astype(np.float32),
        b1=np.full(8, OFFSET, np.float32),
        w2=w2,
        b2=(-OFFSET * w2.sum(axis=(1, 2, 3))).astype(np.float32),
        w3=rng.normal(size=(8, 8, 3, 3)).astype(np.float32),
        w4=rng.normal(size=(6, 8)).astype(np.float32),
        b4=b4,
    )


X = np.random.default_rng(6).normal(size=(80, 3, 8, 8)).astype(np.float32)
MODEL = offset_net()


def _labels() -> np.ndarray:
    return np.array([int(each["y"].argmax()) for each in map(_run_of(MODEL), range(len(X)))])


LABELS = _labels()


def compress(recipe: Any = "int8", **options: Any) -> edgebm.Result:
    judged = {"labels": LABELS, "max_drop": 1.0, **options}
    return edgebm.compress(MODEL, data={"x": X}, target=TARGET, recipe=recipe, **judged)


@pytest.fixture(scope="module")
def mended() -> edgebm.Result:
    return compress()


def test_the_layer_to_blame_is_lifted_and_named(mended: edgebm.Result) -> None:
    report = mended.report
    repair = report["analysis"]["repair"]
    assert repair["lifted"] == ["second"]
    assert "mixed1" in report["after"]["candidate"]
    assert repair["before"]["value"] < 90
    assert repair["after"]["value"] == 100
    assert repair["kept_gain"] is None, "nothing was timed"
    assert [each["accepted"] for each in repair["tried"]] == [True]
    assert any("with second in float it is accurate enough" in note for note in report["notes"])


def test_the_report_says_which_layers_stay_float_and_which_do_not(mended: edgebm.Result) -> None:
    layers = {layer["name"]: layer for layer in mended.report["layers"]}
    assert layers["second"]["precision"] == "float"
    assert layers["second"]["why"].startswith("lifted to float")
    assert layers["third"]["precision"] == "int8"
    blamed = mended.report["analysis"]["layers"]
    assert blamed[0]["name"] == "second"
    assert {layer["name"] for layer in blamed if layer["lifted"]} == {"second"}


def test_plain_integers_are_said_to_be_inaccurate(mended: edgebm.Result) -> None:
    plain = [c for c in mended.report["candidates"] if c["precision"] == "int8" and c["metric"]]
    assert plain
    assert {c["status"] for c in plain} == {"inaccurate"}


def test_without_repair_float_wins() -> None:
    from dataclasses import replace

    report = compress(replace(load_recipe("int8"), repair=None)).report
    assert "int8" not in report["after"]["precision"]
    assert report["analysis"] is None


def test_a_lifted_layer_gets_its_own_bias_back(tmp_path: Path) -> None:
    compress(keep=tmp_path)
    (path,) = tmp_path.glob("*openvino-int8-mixed1.onnx")
    kept = Model.load(path)
    biases = {node.name: node.inputs[2] for node in kept.nodes("Conv") if len(node.inputs) > 2}
    np.testing.assert_array_equal(
        biases["second"].const_value.numpy(),  # type: ignore[union-attr]
        next(n for n in MODEL.nodes() if n.name == "second").inputs[2].const_value.numpy(),  # type: ignore[union-attr]
    )


def test_int8_accurate_explains_and_asks_for_thirty_decibels() -> None:
    report = compress(short_recipe("int8-accurate"), labels=None, max_drop=None).report
    value = report["after"]["metric"]
    assert value is None or value >= 30
    assert report["analysis"]["layers"]
    assert "30 dB" in report["metric"]["floor"]


def test_no_loss_beyond_chance_is_asked_of_single_answers() -> None:
    report = compress(short_recipe("int8-accurate"), max_drop=None).report
    assert report["significance"]["p_value"] > 0.05
    assert report["after"]["metric"] >= 99.7


def test_a_second_run_measures_nothing_and_writes_the_same(tmp_path: Path) -> None:
    out, journal = tmp_path / "x.edgebm", tmp_path / "m.json"
    compress(out=out, measurements=journal)
    first, known = out.read_bytes(), journal.read_bytes()
    again = compress(out=out, measurements=journal, force=True)
    assert out.read_bytes() == first
    assert journal.read_bytes() == known
    assert any(note.endswith("0 were made") for note in again.notes)


def test_errors_of_layers_survive_the_journal() -> None:
    found = LayerErrors(
        math.inf, (LayerError("a", "Conv", 12.5, math.inf), LayerError("b", "Add", 1.0, 2.0)), 7
    )
    assert _errors_from_json(_errors_to_json(found)) == found


def test_strict_asks_for_the_floor_beside_a_metric() -> None:
    """All answers right, but the scores moved: enough by default, and not for int8-accurate."""
    exact = np.eye(4, dtype=np.float32) * 10

    def run(moved: float) -> Callable[[Any], dict[str, Any]]:
        noise = np.random.default_rng(0).normal(size=4).astype(np.float32)
        return lambda feeds: {"y": feeds["x"] + np.float32(moved) * noise}

    face = (TensorSpec("x", "float32", (1, 4)),)
    with open_samples({"x": exact, "labels": np.arange(4)}, face) as given:
        for demand, enough in ((DEFAULT, True), (STRICT, False)):
            judge = MetricJudge(resolve_metric("top1"), run(0.0), given, 1.0, demand)
            before, after = (judge.score(run(moved), lambda *_: None) for moved in (0.0, 1.0))
            assert before.value == after.value == 100
            assert judge.accepts(before, after)[0] is enough
        assert "dB SQNR" in judge.accepts(before, after)[1]
        assert "30 dB" in judge.floor
