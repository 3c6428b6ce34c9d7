"""Compressing for NVIDIA GPUs on a machine without one: accuracy is proved, latency is not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import outputs, parse, random_model, sqnr_db
from tiny_models import IDS, IMAGES, QUICK, X, cnn, small, transformer

import edgebm
from edgebm.backends.half_simulation import in_f32, read_model
from edgebm.cli.main import main
from edgebm.errors import BackendError, BackendFailed, BundleIncompatible, UsageError
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.pruning.semi_structured import is_2_4, masked_2_4
from edgebm.runtime.bundle import read_bundle

JETSON = "jetson-orin-nano"


def artifact(path: Path, runtime: str = "tensorrt") -> Model:
    bundle = read_bundle(path)
    (variant,) = [v for v in bundle.manifest.variants if v.runtime == runtime]
    return read_model(bundle.files(variant)["model.onnx"])


@pytest.mark.parametrize(
    ("build", "data"), [(cnn, {"image": IMAGES}), (transformer, {"ids": IDS})]
)
def test_one_bundle_for_a_jetson_and_its_fallbacks(
    build: object, data: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "m.edgebm"
    model = build()  # type: ignore[operator]
    targets = [JETSON, "cuda-arm64", "cpu-arm64"]
    result = edgebm.compress(model, data=data, target=targets, out=path, **QUICK)
    report = result.report
    assert report["target"] == JETSON
    assert "latency was not measured" in report["verdict"]
    assert report["after"]["precision"] == "int8+f16"
    assert report["after"]["threads"] == 0
    assert all(each["p50_ms"] is None for each in report["candidates"])
    assert [(c["runtime"], c["precision"]) for c in report["candidates"]][-2:] == [
        ("tensorrt", "f16"),
        ("tensorrt", "f32"),
    ]
    assert any(note.startswith("no value overflows f16 on ") for note in report["notes"])
    assert any("are meant for int8" in note for note in report["notes"])
    for variant in read_bundle(path).manifest.variants:
        # A GPU was simulated, and takes other kernels with each build.
        least = 1e-3 if variant.target == "cpu-arm64" else 2e-2
        assert min(variant.tolerance.values()) >= least
    assert report["further_targets"]["cuda-arm64"]["after"]["precision"] == "f16"

    written = artifact(path)
    (name,) = data
    source = import_model(model)
    for side in ("inputs", "outputs"):
        ours, theirs = getattr(written.graph.graph, side), getattr(source.graph.graph, side)
        assert [(v.name, v.dtype) for v in ours] == [(v.name, v.dtype) for v in theirs]
    assert not edgebm.lint(exported(path, tmp_path), "tensorrt:10.3").findings
    feeds = {name: data[name][:1]}
    want, got = outputs(source, feeds), outputs(in_f32(written), feeds)
    assert all(sqnr_db(want[key], got[key]) > 18 for key in want)
    half = artifact(path, "onnxruntime-cuda")
    assert not list(half.nodes("QuantizeLinear"))
    floats = [v for v in half.graph.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert not floats


def exported(path: Path, folder: Path) -> Path:
    assert main(["export", str(path), "-o", str(folder / "x"), "--variant", "tensorrt"]) == 0
    return folder / "x" / "model.onnx"


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.edgebm"
        edgebm.compress(cnn(), data={"image": IMAGES}, target=JETSON, out=path, **QUICK)
        with zipfile.ZipFile(path) as bundle:
            files.append(bundle.read(f"variants/{JETSON}/tensorrt/model.onnx"))
    assert files[0] == files[1]


def test_the_bundle_does_not_run_where_there_is_no_gpu(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    edgebm.compress(small(), data=X, target=["nvidia-gpu", "host"], out=path, **QUICK)
    with pytest.raises((BackendError, BundleIncompatible)):
        edgebm.load(path, target="nvidia-gpu")
    with edgebm.load(path, target=["nvidia-gpu", "host"]) as session:
        report = session.report()
        assert report["target"] == "host"
        assert report["degraded"]
        assert "nvidia-gpu: " in report["why"]
    with edgebm.load(path, target="host") as session:
        assert not session.report()["degraded"]


def test_what_tensorrt_does_not_take_is_listed_with_another_way(tmp_path: Path) -> None:
    model = parse("g (float[1,4,4] x) => (float[1] y) { [d] y = Det(x) }")
    with pytest.raises(BackendFailed, match="Det 'd': Det is not imported") as caught:
        edgebm.compress(model, target=JETSON, out=tmp_path / "m.edgebm", **QUICK)
    assert "cpu-arm64" in str(caught.value) + caught.value.hint
    assert not list(tmp_path.glob("*.edgebm"))


def test_recurrent_layers_are_said_to_run_in_f16(tmp_path: Path) -> None:
    model = random_model(
        "g (float[6,1,32] x) => (float[6,1,1,32] h) { [cell] h = LSTM<hidden_size=32>(x, w, r) }",
        w=(1, 128, 32),
        r=(1, 128, 32),
    )
    data = np.random.default_rng(0).normal(size=(8, 6, 1, 32)).astype(np.float32)
    result = edgebm.compress(
        model, data={"x": data}, state=(), target=JETSON, out=tmp_path / "m.edgebm", **QUICK
    )
    assert result.report["after"]["precision"] == "f16"
    assert "recurrent layers run in f16, not in integers: cell" in result.report["notes"]


def test_without_samples_f16_is_taken_and_the_report_says_what_it_was_checked_on(
    tmp_path: Path,
) -> None:
    result = edgebm.compress(small(), target=JETSON, out=tmp_path / "m.edgebm", **QUICK)
    assert result.report["after"]["precision"] == "f16"
    assert any("int8 needs samples" in each for each in result.report["warnings"])
    assert any("on made-up inputs" in note for note in result.report["notes"])


def test_profiles_cover_the_sizes_of_the_samples_and_those_that_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    edgebm.compress(
        transformer(),
        data={"ids": IDS},
        target=JETSON,
        shapes={"ids": [(1, 4), (1, 40)]},
        out=path,
        **QUICK,
    )
    manifest = read_bundle(path).manifest
    config = manifest.variants[0].config
    assert config.axes == {"seq": (4, 12, 40)}
    assert config.static_shapes == ({"ids": (1, 4)}, {"ids": (1, 40)})
    assert config.precision == "f16"
    assert manifest.variants[0].runtime_version == ""


def test_a_plan_names_the_candidates_of_a_gpu() -> None:
    plan = edgebm.plan(cnn(), data={"image": IMAGES}, target=JETSON)
    (target,) = plan["targets"]
    assert [c["id"] for c in target["candidates"]][-2:] == ["tensorrt/f16/t1", "tensorrt/f32/t1"]
    assert target["placements"][0]["runtime"] == "tensorrt"
    assert any(stage["name"].startswith("check f16") for stage in target["estimate"])


def test_quantize_writes_the_file_that_tensorrt_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data, out = tmp_path / "m.onnx", tmp_path / "d.npz", tmp_path / "q.onnx"
    source.write_bytes(cnn().to_bytes())
    np.savez(data, image=IMAGES)
    arguments = ["quantize", str(source), "-d", str(data), "-t", JETSON, "-o", str(out)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quantize_linear_nodes"] == 2
    assert main(["inspect", str(out), "--lint", "tensorrt"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    with pytest.raises(UsageError, match="integers for static quantization only"):
        edgebm.quantize(source, data, target=JETSON, recipe="w8")
    assert main(["quantize", str(source), "-d", str(data), "--runtime", "tensorrt"]) == 2


def test_2_4_sparse_weights_are_told_to_the_builder_as_they_are_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = (
        "g (float[4,32] x) => (float[4,32] y) { h = MatMul(x, w)\n r = Relu(h)\ny = MatMul(r, u) }"
    )
    w, u = (rng.normal(size=(32, 32)).astype(np.float32) for _ in "wu")
    data = rng.normal(size=(8, 4, 32)).astype(np.float32)
    path = tmp_path / "m.edgebm"

    def compressed(model: Model) -> tuple[dict[str, str], list[str]]:
        arguments = {"data": {"x": data}, "target": JETSON, "out": path, "force": True}
        result = edgebm.compress(model, **arguments, **QUICK)
        (variant,) = read_bundle(path).manifest.variants
        assert variant.precision == "int8+f16"
        return dict(variant.config.settings), result.report["notes"]

    settings, notes = compressed(parse(text, w=masked_2_4(w, 0), u=u))
    assert settings == {"sparse_weights": "1"}
    assert any(note.startswith("1 of 2 layers are 2:4 sparse as they") for note in notes)
    kept = [n.inputs[0] for n in artifact(path).nodes("DequantizeLinear")]
    stored = [v.const_value.numpy() for v in kept if v is not None and v.const_value is not None]
    assert sorted(is_2_4(each, -2) for each in stored) == [False, True]
    settings, notes = compressed(parse(text, w=w, u=u))
    assert settings == {}
