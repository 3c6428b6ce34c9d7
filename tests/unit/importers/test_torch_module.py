from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgebm.errors import ModelError
from edgebm.importers import import_model
from edgebm.ir.edit import const, name
from edgebm.ir.face import face
from edgebm.ir.model import Model

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two equal norms, a dropout and a view by a traced size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.LayerNorm(8)
        self.second = torch.nn.LayerNorm(8)
        self.body = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))
        self.head = torch.nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.second(self.first(x))
        return self.head(self.body(x).relu().view(x.shape[0], 16))


def run(model: Model, x: Any) -> np.ndarray:  # type: ignore[type-arg]
    session = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name(model.graph.graph.inputs[0]): x.numpy()})
    return np.asarray(found)


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return Net().train()


@pytest.fixture(scope="module")
def imported(net: Any) -> Model:
    free = {0: torch.export.Dim("batch")}
    return import_model(net, (torch.randn(2, 2, 8),), (free,))


def test_the_answers_are_the_modules_for_every_batch(net: Any, imported: Model) -> None:
    net.eval()
    for batch in (1, 2, 7):
        x = torch.randn(batch, 2, 8)
        expected = net(x).detach().numpy()
        np.testing.assert_allclose(run(imported, x), expected, rtol=1e-4, atol=1e-5)
    net.train()


def test_a_module_in_train_mode_is_exported_in_eval_mode_and_restored(
    net: Any, imported: Model
) -> None:
    assert net.training
    assert net.body.training
    assert not list(imported.nodes("Dropout"))


def test_free_axes_stay_free(imported: Model) -> None:
    inputs, outputs = face(imported)
    assert inputs[0].shape == ("batch", 2, 8)
    assert outputs[0].shape == ("batch", 4)


def test_parameters_keep_their_names_and_equal_ones_are_apart(imported: Model) -> None:
    first, second = imported.nodes("LayerNormalization")
    assert [v.name for v in first.inputs[1:] if v] == ["first.weight", "first.bias"]
    assert [v.name for v in second.inputs[1:] if v] == ["second.weight", "second.bias"]
    assert "head.weight" in imported.graph.graph.initializers


def test_nodes_are_named_after_their_module(imported: Model) -> None:
    assert "head/Gemm" in [node.name for node in imported.nodes()]


def test_the_traced_view_is_a_constant_shape(imported: Model) -> None:
    assert not list(imported.nodes("Shape", "Concat", "Gather"))
    (reshape,) = imported.nodes("Reshape")
    assert const(reshape.inputs[1]) is not None


def test_a_program_file_and_a_program_give_the_same_model(net: Any, tmp_path: Path) -> None:
    program = torch.export.export(net.eval(), (torch.randn(2, 2, 8),))
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    from_file, live = import_model(path), import_model(program)
    assert from_file.source == str(path)
    x = torch.randn(2, 2, 8)
    np.testing.assert_array_equal(run(from_file, x), run(live, x))
    net.train()


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs example inputs") as caught:
        import_model(torch.nn.Linear(2, 2))
    assert "module:function" in caught.value.hint
    with pytest.raises(ModelError, match=r"cannot export torch Linear: \w+Error: .*reduction dim"):
        import_model(torch.nn.Linear(2, 2), (torch.zeros(1, 3),))
    path = tmp_path / "net.pt2"
    path.write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match=r"not a readable torch\.export program"):
        import_model(path)


def test_a_function_returns_module_inputs_and_shapes_and_nothing_is_printed(
    tmp_path: Path,
) -> None:
    (tmp_path / "made.py").write_text(
        "import torch\n"
        "def make():\n"
        "    net = torch.nn.LSTM(4, 3, batch_first=True)\n"
        "    return net, (torch.randn(2, 5, 4),), {'input': {0: torch.export.Dim('n')}}\n"
    )
    code = (
        "from edgebm.importers import import_model\n"
        "from edgebm.ir.face import face\n"
        "model = import_model('made.py:make')\n"
        "print(face(model)[0][0].shape, *(n.op_type for n in model.nodes('LSTM')))\n"
        "print(sum(value is not None for value in next(model.nodes('LSTM')).inputs))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["('n', 5, 4) LSTM", "4"]
    assert done.stderr == ""
