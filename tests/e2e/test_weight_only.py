"""Recipes w8 and w4, and int8 without samples: from a model to a bundle to a session."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import outputs, sqnr_db
from tiny_models import IMAGES, QUICK, RNG, cnn, transformer

import edgebm
from edgebm.errors import DataError, UsageError
from edgebm.ir.model import Model

IDS = RNG.integers(0, 200, (24, 12))


def encoder() -> Model:
    """Wide enough for blocks of 32."""
    return transformer(64)


def by_id(report: Any) -> dict[str, Any]:
    return {each["id"]: each for each in report["candidates"]}


def test_w4_with_samples(tmp_path: Path) -> None:
    model, path = encoder(), tmp_path / "m.edgebm"
    # Random weights lose more to four bits than trained ones, and miss the floor of 20 dB.
    result = edgebm.compress(
        model, data={"ids": IDS}, eval=lambda run: float(run({"ids": IDS[:1]})["states"].size),
        recipe="w4", out=path, **QUICK,
    )  # fmt: skip
    report = result.report
    assert result.constraints_met
    assert [step["name"] for step in report["steps"]][:3] == [
        "fold_batchnorm", "quantize_weights_only", "gptq",
    ]  # fmt: skip
    chosen = by_id(report)[report["after"]["candidate"]]
    assert chosen["precision"].startswith("w4")
    assert chosen["why"] == "the smallest that keeps every limit"
    assert report["after"]["size_bytes"] < 0.35 * report["before"]["size_bytes"]
    kinds = {layer["op"]: layer["precision"] for layer in report["layers"]}
    assert kinds["MatMul"] in ("int4 weights", "float")
    whys = {layer["why"] for layer in report["layers"] if layer["precision"] == "float"}
    assert whys == {"it has no weight"}, "the products of two activations"
    assert sum(layer["precision"] == "int4 weights" for layer in report["layers"]) == 6
    assert chosen["layers"], "what the runtime says it runs"
    with edgebm.load(path) as session:
        assert session.report()["self_test"]
        for row in IDS[:3]:
            got = session.run(ids=row[None])["states"]
            want = outputs(model, {"ids": row[None]})["states"]
            assert got.shape == want.shape
            assert sqnr_db(want, got) > 12


def test_gptq_needs_the_samples_and_makes_the_outputs_better() -> None:
    model = encoder()
    errors = {}
    for label, data in (("nearest", None), ("gptq", {"ids": IDS})):
        made = edgebm.quantize(model, data, recipe="w4") if data else _without(model)
        errors[label] = np.mean([
            sqnr_db(
                outputs(model, {"ids": row[None]})["states"],
                outputs(made, {"ids": row[None]})["states"],
            )
            for row in RNG.integers(0, 200, (8, 12))
        ])  # fmt: skip
    assert errors["gptq"] > errors["nearest"] + 0.5


def _without(model: Model) -> Model:
    from edgebm.backends.weight_only import store_weights
    from edgebm.passes.base import Context
    from edgebm.passes.driver import run_passes
    from edgebm.recipe import load_recipe

    steps = [step for step in load_recipe("w4").steps if not step.needs_samples]
    decided, _ = run_passes(model, steps, Context())
    return store_weights(decided, lambda name, op: False).model


def test_w8_without_samples(tmp_path: Path) -> None:
    model, path = encoder(), tmp_path / "m.edgebm"
    result = edgebm.compress(model, recipe="w8", shapes={"ids": [(1, 12)]}, out=path, **QUICK)
    report = result.report
    assert result.constraints_met
    assert report["after"]["precision"].startswith("w8")
    assert report["after"]["size_bytes"] < 0.45 * report["before"]["size_bytes"]
    assert report["data"]["source"] == "made-up inputs"
    assert report["data"]["calibration_samples"] == 0
    assert report["warnings"][0].startswith("no samples were given with -d; speed and agreement")
    assert report["notes"] == [], "the recipe calibrates nothing: samples would buy nothing"
    with edgebm.load(path) as session:
        for row in IDS[:3]:
            got = session.run(ids=row[None])["states"]
            assert sqnr_db(outputs(model, {"ids": row[None]})["states"], got) > 30


def test_w4_without_samples_leaves_gptq_out_and_says_so() -> None:
    result = edgebm.compress(
        encoder(),
        recipe="w4",
        shapes={"ids": [(1, 12)]},
        eval=lambda run: 1.0,
        max_drop=0.5,
        **QUICK,
    )
    assert {"step": "gptq", "node": "?", "reason": "it needs samples (-d)"} in result.report[
        "skips"
    ]
    assert "left out: gptq" in result.report["warnings"][0]
    assert result.report["after"]["precision"].startswith("w4")


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_int8_without_samples_measures_what_samples_would_buy(kind: str, tmp_path: Path) -> None:
    model = cnn() if kind == "cnn" else encoder()
    shapes = None if kind == "cnn" else {"ids": [(1, 12)]}
    path = tmp_path / "m.edgebm"
    result = edgebm.compress(model, shapes=shapes, out=path, **QUICK)
    report = result.report
    assert result.constraints_met
    found = by_id(report)
    promised = {k: c for k, c in found.items() if c["status"] == "needs_samples"}
    assert {c["precision"].partition("+")[0] for c in promised.values()} == {"int8"}
    assert all("it needs samples (-d)" in c["why"] for c in promised.values())
    assert all(c["metric"] is None for c in promised.values()), "its answers mean nothing"
    assert any(c["precision"].startswith("w8") for c in found.values())
    assert report["after"]["candidate"] not in promised
    assert [skip["step"] for skip in report["skips"]][:3] == [
        "equalize_channels", "smooth_activations", "quantize_activations",
    ]  # fmt: skip
    (note,) = (n for n in report["notes"] if n.startswith("with samples (-d)"))
    assert "static INT8" in note
    with zipfile.ZipFile(path) as bundle:
        assert note in json.loads(bundle.read("report.json"))["notes"]
    with edgebm.load(path) as session:
        assert session.report()["self_test"]


def test_samples_to_evaluate_on_alone_judge_and_calibrate_nothing(tmp_path: Path) -> None:
    model, path = cnn(), tmp_path / "eval.npz"
    labels = np.array([outputs(model, {"image": row[None]})["logits"].argmax() for row in IMAGES])
    np.savez(path, image=IMAGES, labels=labels)
    result = edgebm.compress(model, eval=str(path), max_drop=10.0, **QUICK)
    assert result.report["metric"]["name"] == "top1"
    assert result.report["before"]["metric"] == 100.0
    assert result.report["warnings"] == [
        "no samples were given with -d; left out: equalize_channels, smooth_activations, "
        "quantize_activations"
    ]


def test_the_command_line_says_what_samples_would_buy(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(cnn().to_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "edgebm", "compress", "m.onnx", "--threads", "1",
         "--measure-seconds", "1", "-o", "m.edgebm"],
        capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: with samples (-d), static INT8" in done.stderr
    left_out = "left out: equalize_channels, smooth_activations, quantize_activations"
    assert left_out in done.stderr


def test_free_axes_without_samples_are_an_error_that_tells_the_way_out() -> None:
    with pytest.raises(DataError, match=r"ids: int64\[1, seq\]") as caught:
        edgebm.compress(encoder(), recipe="w8", **QUICK)
    assert "--shapes ids:1x64" in caught.value.hint


def test_analyze_and_quantize_say_what_they_need() -> None:
    with pytest.raises(DataError, match="int8 needs samples"):
        edgebm.quantize(cnn(), None)
    with pytest.raises(UsageError, match="w4 quantizes weights alone") as caught:
        edgebm.analyze(encoder(), {"ids": IDS}, recipe="w4")
    assert "edgebm compress -r w4" in caught.value.hint
