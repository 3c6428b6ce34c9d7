"""`export` and `report` on a bundle whose artifacts are a few bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.cli.main import main
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

REPORT = Path(__file__).parents[1] / "report" / "report.json"
FILES = {
    ("host", "onnxruntime"): {"model.onnx": b"onnx"},
    ("raspberry-pi-5", "openvino"): {"model.xml": b"<xml/>", "model.bin": b"bin"},
}


def write(path: Path, *, variants: int = 2, report: object = None) -> Path:
    chosen = list(FILES.items())[:variants]
    members = {
        f"variants/{target}/{runtime}/{short}": content
        for (target, runtime), files in chosen
        for short, content in files.items()
    }
    members["report.json"] = REPORT.read_bytes() if report is None else json.dumps(report).encode()
    manifest = Manifest(
        name="signs",
        edgebm_version="0.1.0",
        inputs=(TensorSpec("x", "float32", (1, 3)),),
        outputs=(TensorSpec("y", "float32", (1, 2)),),
        variants=tuple(
            Variant(
                target=target,
                runtime=runtime,
                precision="int8",
                files={short: f"variants/{target}/{runtime}/{short}" for short in files},
                config=EngineConfig(),
                runtime_version="1",
                tolerance={"y": 0.1},
            )
            for (target, runtime), files in chosen
        ),
    )
    return write_bundle(path, manifest, members)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "signs.edgebm")


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_export_of_several_variants(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "files"
    assert main(["export", str(bundle), "-o", str(out)]) == 0
    assert tree(out) == {
        "host/onnxruntime/model.onnx": b"onnx",
        "raspberry-pi-5/openvino/model.xml": b"<xml/>",
        "raspberry-pi-5/openvino/model.bin": b"bin",
    }
    assert set(capsys.readouterr().out.split()) == {str(out / name) for name in tree(out)}


@pytest.mark.parametrize("name", ["raspberry-pi-5", "openvino", "raspberry-pi-5/openvino"])
def test_export_of_one_variant(
    name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "files"
    assert main(["export", str(bundle), "-o", str(out), "--variant", name, "--json"]) == 0
    assert tree(out) == {"model.xml": b"<xml/>", "model.bin": b"bin"}
    files = json.loads(capsys.readouterr().out)["files"]
    assert sorted(files) == sorted(str(out / name) for name in tree(out))


def test_export_of_an_unknown_variant(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(bundle), "-o", str(tmp_path / "f"), "--variant", "toaster"]) == 2
    assert "host/onnxruntime, raspberry-pi-5/openvino" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_export_replaces_nothing_unasked(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "files"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"mine")
    args = ["export", str(bundle), "-o", str(out), "--variant", "host"]
    assert main(args) == 2
    assert tree(out) == {"model.onnx": b"mine"}
    assert main([*args, "--force"]) == 0
    assert tree(out) == {"model.onnx": b"onnx"}


def test_export_into_a_file_or_a_missing_folder(bundle: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    assert main(["export", str(bundle), "-o", str(bundle)]) == 2
    assert main(["export", str(bundle), "-o", str(tmp_path / "no" / "files")]) == 2
    assert tree(tmp_path) == before


def test_report_page_and_table(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "signs.html"
    assert main(["report", str(bundle), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "1.73x faster" in out
    assert out.rstrip().endswith(str(page))
    assert page.read_text().startswith("<!doctype html>")
    assert main(["report", str(bundle), "-o", str(page)]) == 2
    assert main(["report", str(bundle), "-o", str(page), "--force"]) == 0


def test_report_as_json(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "signs.html"
    assert main(["report", str(bundle), "-o", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("page") == str(page)
    assert printed == json.loads(REPORT.read_text())


def test_comparison(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = json.loads(REPORT.read_text())
    report["after"]["p50_ms"] = 0.243
    other = write(tmp_path / "other.edgebm", report=report)
    assert main(["report", str(bundle), str(other)]) == 0
    assert "2.00x faster" in capsys.readouterr().out
    assert main(["report", str(bundle), str(other), "--json"]) == 0
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["latency, p50"]["change"] == "2.00x faster"
    page = tmp_path / "x.html"
    assert main(["report", str(bundle), str(other), "-o", str(page)]) == 0
    assert "Comparison of two bundles" in page.read_text("utf-8")
    assert main(["report", str(bundle), str(other), "-o", str(page)]) == 2
    assert main(["report", str(bundle), str(other), "-o", str(other), "--force"]) == 2


@pytest.mark.row(68)
def test_gates(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = json.loads(REPORT.read_text())
    report["after"].update(p50_ms=0.6, size_bytes=400_000)
    other = write(tmp_path / "other.edgebm", report=report)
    both = ["report", str(bundle), str(other)]
    assert main([*both, "--max-slower", "1.3", "--max-larger", "1.4"]) == 0
    capsys.readouterr()
    page = tmp_path / "gate.html"
    assert main([*both, "--max-slower", "1.1", "--max-larger", "1.2", "-o", str(page)]) == 3
    captured = capsys.readouterr()
    assert "failed: p50 latency is 1.23 times" in captured.out
    assert "failed: size is 1.35 times" in captured.out
    assert "2 of 2 gates failed: --max-slower, --max-larger" in captured.err
    assert page.exists()
    assert main([*both, "--max-slower", "1.3", "--max-larger", "1.2", "--json"]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] is False
    assert [(gate["name"], gate["limit"], gate["passed"]) for gate in printed["gates"]] == [
        ("max_slower", 1.3, True),
        ("max_larger", 1.2, False),
    ]
    assert printed["gates"][1]["value"] == pytest.approx(400_000 / 296_612)
    assert edgebm.compare(bundle, other, max_larger=1.2)["gates"] == [printed["gates"][1]]


def test_gates_that_cannot_be_checked(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["report", str(bundle), str(bundle)]
    assert main([*both, "--max-drop", "1", "--max-worst-class-drop", "1"]) == 2
    err = capsys.readouterr().err
    assert "--max-drop cannot be checked" in err
    assert "--max-worst-class-drop cannot be checked" in err
    assert main([*both, "--max-drop", "-1"]) == 2
    assert main([*both, "--open"]) == 2
    assert main([*both, "--target", "toaster"]) == 2
    page = tmp_path / "page.html"
    assert main(["report", str(bundle), "--max-larger", "1.1", "-o", str(page)]) == 2
    assert "--max-larger compares two bundles, and there is one" in capsys.readouterr().err
    assert not page.exists()


def test_report_of_what_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07" + bytes(64))
    out = str(tmp_path / "r.html")
    assert main(["report", str(tmp_path / "x.onnx"), "-o", out]) == 4
    assert main(["report", str(tmp_path / "missing.edgebm"), "-o", out]) == 2
    assert main(["report", str(tmp_path), "-o", out]) == 4
    assert "Traceback" not in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.parametrize("report", [{}, {"report_version": 1}, {"report_version": 9}])
def test_report_that_is_not_one(report: object, tmp_path: Path) -> None:
    bundle = write(tmp_path / "bad.edgebm", report=report)
    out = tmp_path / "r.html"
    assert main(["report", str(bundle), "-o", str(out)]) == 4
    assert not out.exists()


def test_bundle_with_a_flipped_bit(bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.edgebm"
    shutil.copy(bundle, damaged)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    assert main(["export", str(damaged), "-o", str(tmp_path / "files")]) == 4
    assert not (tmp_path / "files").exists()


@pytest.mark.row(70)
def test_a_report_never_replaces_its_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = bundle.read_bytes()
    assert main(["report", str(bundle), "-o", str(bundle), "--force"]) == 2
    assert "is an input of this command" in capsys.readouterr().err
    assert bundle.read_bytes() == before


def test_report_shows_the_analysis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(REPORT.read_text())
    histogram = {"low": -1.0, "high": 1.0, "counts": [1] * 64}
    weight = {"low": -1.0, "high": 1.0, "channels": 4, "spread": 2.0, "db": 40.0}
    layer = {
        "name": "stem",
        "op": "Conv",
        "alone_db": 21.0,
        "without_db": 30.0,
        "local_db": 25.0,
        "weight": {**weight, "histogram": histogram},
        "activation": None,
        "float_us": None,
        "int8_us": None,
        "lifted": False,
    }
    report["analysis"] = {
        "samples": 4,
        "grid": "w8a8",
        "runtime": "openvino",
        "full_db": 20.0,
        "layers": [layer],
        "repair": None,
    }
    bundle = write(tmp_path / "signs.edgebm", report=report)
    page = tmp_path / "page.html"
    assert main(["report", str(bundle), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "1 layer on integers" in out
    assert "stem" in out
    assert "the worst output keeps 20.0 dB" in out
    assert "Which layer is to blame" in page.read_text("utf-8")
