"""What an artifact of another program may do while it is opened, and what it may not be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from fault_bundles import INSTALLED, SOURCE

import edgebm
from edgebm.cli.main import main
from edgebm.errors import BackendCrashed, BackendError, BackendFailed, CompileTimeout, UsageError
from edgebm.runtime.engines import open_engine
from edgebm.runtime.engines.onnx_faults import onnx_faults
from edgebm.runtime.engines.openvino_faults import openvino_faults
from edgebm.spec import EngineConfig, TensorSpec

X, Y = TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (4,))
ENDLESS = """
<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
  most = Constant<value: tensor = int64 {4611686018427387904}> ()
  go = Constant<value: tensor = bool {1}> ()
  y = Loop (most, go, x) <body = b (int64 i, bool c, float[4] a) => (bool d, float[4] e) {
    d = Identity(c)
    e = Sin(a)
  }>
}
"""
OF_EACH_KIND = {
    "Loop": ENDLESS,
    "If": """
<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
  go = Constant<value: tensor = bool {1}> ()
  y = If (go) <then_branch = t () => (float[4] e) { e = Sin(x) },
               else_branch = f () => (float[4] e) { e = Cos(x) }>
}""",
}


@pytest.mark.row(17, 18)
@pytest.mark.parametrize("kind", OF_EACH_KIND)
def test_an_artifact_with_loops_or_branches_is_refused(kind: str, runtime: str) -> None:
    """The endless one would never come back, branches in branches take for ever to compile."""
    files = {"model.onnx": onnx.parser.parse_model(OF_EACH_KIND[kind]).SerializeToString()}
    with pytest.raises(BackendFailed, match=f"model.onnx has a node {kind}"):
        open_engine(runtime, files, EngineConfig(), [X], [Y])


def test_a_scan_ends_with_its_sequence() -> None:
    scan = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
  y = Scan <num_scan_inputs = 1, body = b (float a) => (float e) { e = Sin(a) }> (x)
}""")
    assert onnx_faults(scan.SerializeToString()) == []


@pytest.mark.row(17)
def test_a_loop_in_a_function_or_in_a_branch_is_found() -> None:
    loop = onnx.parser.parse_model(ENDLESS)
    function = onnx.ModelProto(ir_version=8)
    function.functions.add(name="f", domain="d").node.append(loop.graph.node[-1])
    assert onnx_faults(function.SerializeToString()) == ["model.onnx has a node Loop"]
    inside = onnx.ModelProto(ir_version=8)
    branch = inside.graph.node.add(op_type="Other").attribute.add(name="b")
    branch.g.CopyFrom(loop.graph)
    assert onnx_faults(inside.SerializeToString()) == ["model.onnx has a node Loop"]


@pytest.mark.row(17)
@pytest.mark.parametrize(
    ("xml", "found"),
    [
        ('<net><layers><layer id="0" type="Loop"/></layers></net>', "a layer Loop"),
        ("<net><layers><layer type='&#76;oop' id='0'/></layers></net>", "a layer Loop"),
        ('<net><layer type="If"/><layer type="TensorIterator"/></net>', "a layer If"),
        ('<!DOCTYPE net [<!ENTITY l "Loop">]><net><layer type="&l;"/></net>', "a document type"),
        ("<net><layer", "is no XML"),
        ("", "is no XML"),
    ],
)
def test_a_layer_that_loops_is_found_in_any_spelling(xml: str, found: str) -> None:
    faults = openvino_faults(xml.encode())
    assert found in "; ".join(faults)
    assert (
        openvino_faults(b'<net><layers><layer id="0" type="LSTMSequence"/></layers></net>') == []
    )


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a line of shell before every new process of Python; $3 is the folder of its job."""

    def put(line: str) -> None:
        program = tmp_path / "python"
        program.write_text(f'#!/bin/sh\n{line}\nexec {sys.executable} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return put


@pytest.mark.row(60)
def test_a_runtime_that_ends_its_process_ends_only_the_trial(
    python: Callable[[str], None], runtime: str
) -> None:
    python("kill -ILL $$")
    with pytest.raises(BackendCrashed, match=f"{runtime} ended its process with SIGILL"):
        edgebm.load(SOURCE, runtime, trial_s=60)


@pytest.mark.row(18)
def test_compiling_that_does_not_end_is_stopped(
    python: Callable[[str], None], runtime: str
) -> None:
    python("exec sleep 60")
    with pytest.raises(CompileTimeout, match=r"did not end within 0\.3 s"):
        edgebm.load(SOURCE, runtime, trial_s=0.3)


@pytest.mark.row(60)
@pytest.mark.skipif(len(INSTALLED) < 2, reason="needs two runtimes")
def test_the_next_of_a_list_is_taken_where_a_trial_fails(python: Callable[[str], None]) -> None:
    python('grep -q \'"openvino"\' "$3/job.json" && kill -ILL $$')
    with edgebm.load(SOURCE, ["openvino", "onnxruntime"], trial_s=60) as session:
        report = session.report()
    assert report["runtime"] == "onnxruntime"
    assert report["degraded"]
    assert "openvino ended its process with SIGILL" in report["why"]
    assert report["trial_peak_mib"] > 10


@pytest.mark.row(60)
def test_setting_a_device_up_survives_such_a_runtime(
    python: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python("kill -ILL $$")
    assert main(["build", str(SOURCE), "--cache", str(tmp_path / "cache")]) == 5
    assert "ended its process with SIGILL" in capsys.readouterr().err
    assert main(["verify", str(SOURCE)]) == 5
    assert "ended its process with SIGILL" in capsys.readouterr().out


def test_a_runtime_that_is_missing_there_is_missing(python: Callable[[str], None]) -> None:
    python("echo 'openvino is not installed' >&2; exit 6")
    with pytest.raises(BackendError, match="openvino is not installed") as caught:
        edgebm.load(SOURCE, INSTALLED[0], trial_s=60)
    assert caught.value.code == "backend_unavailable"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5", True])
def test_a_trial_takes_some_time(seconds: object) -> None:
    with pytest.raises(UsageError, match="trial_s"):
        edgebm.load(SOURCE, trial_s=seconds)  # type: ignore[arg-type]
