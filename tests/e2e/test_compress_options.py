"""What the arguments of `edgebm.compress` do, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import outputs, random_model, sqnr_db
from tiny_models import QUICK, RNG, X, short_recipe, small

import edgebm
from edgebm.errors import DataError, UsageError


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_latency_ms": -1.0},
        {"max_drop": -0.5},
        {"budget_s": 0.0},
        {"measure_s": 0.0},
        {"subset_size": 0},
        {"threads": [1, 0]},
        {"target": []},
        {"target": ["host", "host"]},
        {"target": "raspberry-pi-5", "max_latency_ms": 5.0},
        {"ignored": ["nothing_like_it"]},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        edgebm.compress(small(), data=X, **{**QUICK, **arguments})
    assert caught.value.exit_code == 2


def test_several_faults_come_together() -> None:
    with pytest.raises(UsageError, match=r"max_size_mb .*; max_drop .*"):
        edgebm.compress(small(), data=X, max_size_mb=-1.0, max_drop=-1.0)


def test_labels_and_a_metric(tmp_path: Path) -> None:
    model = small()
    labels = np.array([outputs(model, {"x": row[None]})["y"].argmax() for row in X])
    result = edgebm.compress(model, data=X, labels=labels, max_drop=50.0, **QUICK)
    assert result.report["metric"]["name"] == "top1"
    assert result.report["before"]["metric"] == 100.0
    assert result.path is None
    chosen = next(c for c in result.report["candidates"] if c["status"] == "chosen")
    assert chosen["drop"] <= 50.0


def test_each_class_and_whether_chance_explains_the_drop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgebm.report.html import render_html
    from edgebm.report.table import print_summary, stdout_console

    model = small()
    rows = RNG.normal(size=(120, 8)).astype(np.float32)
    labels = np.array([outputs(model, {"x": row[None]})["y"].argmax() for row in rows])
    report = edgebm.compress(model, data=X, eval=(rows, labels), max_drop=50.0, **QUICK).report
    classes, test = report["classes"], report["significance"]
    assert classes["measure"] == "recall"
    assert classes["labels"] == [str(k) for k in np.unique(labels)]
    assert classes["counts"] == np.bincount(labels)[np.unique(labels)].tolist()
    assert set(classes["before"]) == {100.0}
    share = np.dot(classes["counts"], classes["after"]) / len(labels)
    assert share == pytest.approx(report["after"]["metric"])
    assert classes["worst"]["drop"] == 100 - min(classes["after"])
    assert test["won"] == 0
    assert test["lost"] == round((100 - share) / 100 * len(labels))
    assert 0 < test["p_value"] <= 1
    assert "Class by class" in render_html(report)
    print_summary(report, stdout_console())
    printed = capsys.readouterr().out
    assert "recall" in printed
    assert "judged as before" in printed or "McNemar" in printed


def test_no_classes_without_labels_or_with_a_metric_of_the_user() -> None:
    labels = np.arange(20) % 4
    plain = edgebm.compress(small(), data=X, **QUICK).report
    own = edgebm.compress(
        small(), data=X, labels=labels, metric=lambda out, labels: 1.0, **QUICK
    ).report
    for report in (plain, own):
        assert report["classes"] is None
        assert report["significance"] is None


def test_a_float_model_that_guesses_is_said_to() -> None:
    rows = RNG.normal(size=(150, 8)).astype(np.float32)
    labels = RNG.integers(0, 4, 150)
    report = edgebm.compress(small(), data=X, eval=(rows, labels), recipe="fp32", **QUICK).report
    assert any("as good as guessing" in warning for warning in report["warnings"])


def test_a_program_judges() -> None:
    seen: list[tuple[str, ...]] = []

    def judge(run) -> float:  # type: ignore[no-untyped-def]
        answer = run({"x": X[:1]})
        seen.append(tuple(answer))
        return float(answer["y"].shape[1])

    result = edgebm.compress(small(), data=X, eval=judge, max_drop=0.0, **QUICK)
    assert result.report["before"]["metric"] == 4.0
    assert set(seen) == {("y",)}


def test_ignored_layers_stay_float() -> None:
    result = edgebm.compress(small(), data=X, ignored=["Gemm", "MatMul"], **QUICK)
    assert all(c["precision"] in ("f32", "bf16") for c in result.report["candidates"])


def test_keep_writes_the_graphs_of_each_stage(tmp_path: Path) -> None:
    edgebm.compress(small(), data=X, keep=tmp_path / "stages", **QUICK)
    names = sorted(p.name for p in (tmp_path / "stages").iterdir())
    assert "imported.onnx" in names
    assert any("onnxruntime-int8" in name for name in names)
    for name in names:
        onnx.checker.check_model(onnx.load(tmp_path / "stages" / name))


def test_quantize_gives_a_plain_graph() -> None:
    lowered = edgebm.quantize(small(), X)
    kinds = {node.op_type for node in lowered.nodes()}
    assert {"QuantizeLinear", "DequantizeLinear", "MatMul"} <= kinds
    feeds = {"x": X[:1]}
    assert sqnr_db(outputs(small(), feeds)["y"], outputs(lowered, feeds)["y"]) > 20


@pytest.mark.row(63)
def test_quantize_keeps_to_what_the_target_adds_without_overflow() -> None:
    def largest_products(target: str) -> int:
        """Largest weight times the levels the input's range takes up."""
        lowered = edgebm.quantize(small(), X, target=target)
        constants = {k: v.const_value for k, v in lowered.graph.graph.initializers.items()}
        first = next(n for n in lowered.nodes() if n.op_type == "QuantizeLinear")
        scale = float(constants[first.inputs[1].name].numpy())
        seen = X[: len(X) * 4 // 5]  # the last fifth is held out of calibration
        levels = (max(0.0, float(seen.max())) - min(0.0, float(seen.min()))) / scale
        weight = max(
            int(abs(t.numpy().astype(int)).max())
            for t in constants.values()
            if t is not None and t.dtype.name == "INT8"
        )
        return round(weight * levels)

    assert largest_products("cpu-x86-vnni") > 2**14
    assert largest_products("cpu-x86-avx2") <= 2**14


def test_evaluate_scores_a_bundle_and_a_model_alike(tmp_path: Path) -> None:
    model = small()
    labels = np.array([outputs(model, {"x": row[None]})["y"].argmax() for row in X])
    path, onnx_path = tmp_path / "m.edgebm", tmp_path / "m.onnx"
    onnx_path.write_bytes(model.to_bytes())
    edgebm.compress(str(onnx_path), data=X, recipe="fp32", out=path, **QUICK)
    scores = [edgebm.evaluate(p, data=X, labels=labels) for p in (path, onnx_path)]
    assert [score["value"] for score in scores] == [100.0, 100.0]
    assert scores[0]["samples"] == 20


def test_a_recurrent_model_is_tried_in_integers_and_reads_back_what_runs(tmp_path: Path) -> None:
    model = random_model(
        "g (float[6,1,8] x) => (float[6,1,1,12] y) { [rnn] y = LSTM<hidden_size=12>(x, w, r, b) }",
        w=(1, 48, 8),
        r=(1, 48, 12),
        b=(1, 96),
    )
    rows = [{"x": RNG.normal(size=(6, 1, 8)).astype(np.float32)} for _ in range(12)]
    path = tmp_path / "m.edgebm"
    report = edgebm.compress(model, data=rows, out=path, **QUICK).report
    tried = {candidate["id"].rpartition("/")[0] for candidate in report["candidates"]}
    assert {"openvino/int8", "onnxruntime/int8-dynamic", "onnxruntime/f32"} <= tried
    (cell,) = report["cells"]
    assert (cell["name"], cell["op"], cell["hidden"]) == ("rnn", "LSTM", 12)
    # Whichever was the fastest: what was meant is what runs.
    assert (cell["ran"] == "int8") == (cell["meant"] == "int8")
    assert not [warning for warning in report["warnings"] if "were meant to run" in warning]
    with edgebm.load(path) as session:
        said = session.report()
    assert said["cells_when_made"] == {"rnn": cell["ran"]}
    assert set(said["cells"].items()) <= {("rnn", cell["ran"])}


def test_a_gru_is_turned_only_where_that_is_the_fastest() -> None:
    pytest.importorskip("torch")
    model = random_model(
        "g (float[6,1,8] x) => (float[6,1,1,12] y)"
        " { [rnn] y = GRU<hidden_size=12, linear_before_reset=1>(x, w, r, b) }",
        w=(1, 36, 8),
        r=(1, 36, 12),
        b=(1, 72),
    )
    rows = [{"x": RNG.normal(size=(6, 1, 8)).astype(np.float32)} for _ in range(12)]
    report = edgebm.compress(model, data=rows, recipe=short_recipe(), **QUICK).report
    told = [note for note in report["notes"] if "turned" in note]
    told += [skip["reason"] for skip in report["skips"] if skip["step"] == "gru_reset_before"]
    assert len(told) == 1
    ids = {candidate["id"].rpartition("/")[0] for candidate in report["candidates"]}
    # What was timed without training is no candidate; what was trained is one.
    assert ("openvino/int8-reset-before" in ids) == ("was turned" in told[0])
    assert "onnxruntime/int8-cells" in ids


@pytest.mark.row(70)
def test_not_even_force_replaces_the_model_or_the_samples(tmp_path: Path) -> None:
    model, samples = tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(small().to_bytes())
    np.save(samples, X)
    for out in (model, samples):
        with pytest.raises(UsageError, match="is an input"):
            edgebm.compress(model, data=samples, out=out, force=True, **QUICK)
    assert model.read_bytes() == small().to_bytes()


def test_without_labels_the_float_model_is_the_reference() -> None:
    # Sixteen of them calibrate: without bounds the four held out would lie outside of the ranges,
    # and whichever candidate wins has to pass.
    bounded = np.clip(X, -1.0, 1.0)
    report = edgebm.compress(small(), data=bounded, **QUICK).report
    assert report["metric"]["name"] == "sqnr"
    assert report["before"]["metric"] is None
    assert report["after"]["metric"] > 20


def test_a_recipe_that_compresses_nothing_claims_no_contest() -> None:
    verdict = edgebm.compress(small(), data=X, recipe="fp32", **QUICK).report["verdict"]
    assert "the recipe leaves the model as it is" in verdict


def test_indices_outside_their_table_are_refused_before_any_work() -> None:
    ids = np.full((4, 1, 3), 5, np.int64)
    model = random_model("g (int64[1,3] ids) => (float[1,3,8] y) { y = Gather(w, ids) }", w=(5, 8))
    with pytest.raises(
        DataError, match=r"indices from 5 to 5, its table the rows 0 to 4"
    ) as caught:
        edgebm.compress(model, data=[{"ids": row} for row in ids], recipe="fp32", **QUICK)
    assert "vocabulary" in str(caught.value)
