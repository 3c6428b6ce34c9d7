"""`edgebm inspect FILE --lint` and `edgebm.lint`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgebm
from edgebm.cli.main import main
from edgebm.errors import ModelError, UsageError
from edgebm.ir.model import Model

DATA = Path(__file__).parents[2] / "device" / "data"
HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'
BODY = """g (float[1,32,16] x) => (float[1,32,16] y) {
  [q] i = QuantizeLinear(x, s, ZERO)
  [dq] d = DequantizeLinear(i, s, ZERO)
  [w_dq] v = DequantizeLinear<axis=1>(w, ws)
  [product] h = MatMul(d, v)
  [soft] y = Softmax(h)
}"""


def _write(path: Path, zero: np.generic) -> Path:
    model = Model.parse(
        HEADER + BODY.replace("ZERO", "zero"),
        s=np.float32(0.1),
        zero=zero,
        w=np.ones((16, 16), np.int8),
        ws=np.ones(16, np.float32),
    )
    path.write_bytes(model.to_bytes())
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return _write(tmp_path / "bad.onnx", np.uint8(7))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return _write(tmp_path / "good.onnx", np.int8(0))


def test_errors_are_exit_code_3(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bad), "--lint", "tensorrt"]) == 3
    printed = capsys.readouterr().out
    assert f"{bad} against tensorrt 10.3: 2 errors, 1 warning\n" in printed
    assert "E01  error, 1 x  Every zero point is a constant of zeros.\n" in printed
    assert "       QuantizeLinear 'q': its zero point is 7\n" in printed
    assert "     > Quantize symmetrically" in printed
    assert "docs/reference/tensorrt.md" in printed


def test_warnings_alone_are_exit_code_0(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(good), "--lint", "tensorrt:11.4"]) == 0
    printed = capsys.readouterr().out
    assert "against tensorrt 11.4: 0 errors, 1 warning\n" in printed
    assert "1 nodes that are not quantized compute in FP32: Softmax 'soft'" in printed


def test_json(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bad), "--lint", "tensorrt:10.3.0", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["against"] == "tensorrt:10.3"
    assert (found["errors"], found["warnings"]) == (2, 1)
    assert found["findings"][0] == {
        "rule": "E01",
        "severity": "error",
        "node": "q",
        "op_type": "QuantizeLinear",
        "text": "its zero point is 7",
    }
    assert set(found["rules"]) == {"E01", "E02", "W15"}
    assert found == edgebm.lint(bad, "tensorrt:10.3").to_dict()


def test_only_the_first_nodes_of_a_rule_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = "\n".join(f"x{i + 1} = Det(x{i})" for i in range(5))
    path = tmp_path / "many.onnx"
    text = HEADER + f"g (float[2,2] x0) => (float[2,2] x5) {{ {nodes} }}"
    path.write_bytes(Model.parse(text).to_bytes())
    assert main(["inspect", str(path), "--lint", "tensorrt"]) == 3
    printed = capsys.readouterr().out
    assert "E09  error, 5 x" in printed
    assert printed.count("Det is not imported") == 3
    assert "... and 2 more" in printed


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("tensorrt:9.9", "older than 10.3"),
        ("tensorrt:12.1", "10.3, 10.4"),
        ("tensorrt:8.6", "run the model on ONNX Runtime there"),
        ("tensorrt:", "no version of TensorRT"),
        ("openvino", "there are no rules for 'openvino'"),
    ],
)
def test_versions_that_are_not_known(
    against: str, words: str, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(good), "--lint", against]) == 2
    assert words in capsys.readouterr().err
    with pytest.raises(UsageError):
        edgebm.lint(good, against)


def test_a_bundle_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(DATA / "echo.edgebm"), "--lint", "tensorrt"]) == 2
    printed = capsys.readouterr().err
    assert "it is an edgebm bundle" in printed
    assert "give the model that it was made from" in printed


def test_members_are_those_of_a_bundle(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(good), "--lint", "tensorrt", "--members"]) == 2
    assert "--lint reads an ONNX file" in capsys.readouterr().err


def test_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "none.onnx", "--lint", "tensorrt"]) == 2
    assert "no such model file: none.onnx" in capsys.readouterr().err


def test_live_models_and_others() -> None:
    text = HEADER + "g (float[4] x) => (float[4] y) { y = Relu(x) }"
    found = edgebm.lint(Model.parse(text))
    assert (found.against, found.findings) == ("tensorrt:10.3", ())
    with pytest.raises(ModelError, match="cannot import a int"):
        edgebm.lint(3)


@pytest.mark.parametrize("arguments", [[], ["--members"], ["--json"]])
def test_a_bundle_is_inspected_without_the_host_half(arguments: list[str]) -> None:
    command = ["inspect", str(DATA / "echo.edgebm"), *arguments]
    code = f"import sys\nfrom edgebm.cli.main import main\nassert main({command}) == 0\n"
    code += "print('found:', *{n for n in ('onnx', 'onnx_ir', 'torch') if n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "found:"
