"""torch's recurrent layers in every form, against torch; files of its older exporter too."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import pytest
from recurrent_forms import IN, KINDS, Array, B, H, T, assert_close, check_file, ops, run

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


class Layer(nn.Module):  # type: ignore[misc,name-defined]
    """A layer over a sequence; `forward(x, *states)`."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = getattr(nn, kind)(IN, H, **settings)

    def forward(self, x: Any, h: Any = None, c: Any = None) -> Any:
        if h is None:
            return self.layer(x)
        return self.layer(x, h if c is None else (h, c))


def flat(found: Any) -> list[Array]:
    if isinstance(found, tuple | list):
        return [array for part in found for array in flat(part)]
    return [found.detach().numpy()]


def check_torch(
    module: Any, args: tuple[Any, ...], dynamic: Any = None, other: Any = None
) -> Model:
    """Import, compare with the module on `args`, and on `other` arguments of other sizes."""
    model = import_model(module, args, dynamic)
    names = [value.name for value in model.graph.graph.inputs]
    for given in (args, other):
        if given is not None:
            feeds = {name: a.numpy() for name, a in zip(names, given, strict=True) if name}
            with torch.no_grad():
                assert_close(run(model.to_bytes(), feeds), flat(module.eval()(*given)))
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_first": True, "num_layers": 2, "bidirectional": True},
        {"num_layers": 3, "dropout": 0.4, "bias": False},
    ],
    ids=str,
)
def test_a_layer_of_torch_is_one_node_each(kind: str, settings: dict[str, Any]) -> None:
    model = check_torch(Layer(kind, **settings), (torch.randn(B, T, IN),))
    cells = [cell_of(node) for node in model.nodes(kind)]
    assert len(cells) == settings.get("num_layers", 1)
    for cell in cells:
        assert cell is not None
        assert cell.is_standard
        assert (cell.b is not None) is settings.get("bias", True)
        assert cell.initial_h is None  # zeros are the default
        assert cell.directions == 1 + settings.get("bidirectional", False)
        assert cell.resets_after is (kind == "GRU")
    others = {"Transpose", "Reshape", "Squeeze", "Concat"}
    assert set(ops(model)) <= {kind, *others}


def test_a_relu_network_keeps_its_activation() -> None:
    settings = {"nonlinearity": "relu", "bidirectional": True, "num_layers": 2}
    model = check_torch(Layer("RNN", **settings), (torch.randn(T, B, IN),))
    cell = cell_of(next(model.nodes("RNN")))
    assert cell is not None
    assert not cell.is_standard
    assert cell.node.attributes.get_strings("activations") == ("Relu", "Relu")


@pytest.mark.parametrize("kind", KINDS)
def test_states_and_free_axes(kind: str) -> None:
    count = 2 if kind == "LSTM" else 1
    states = [torch.randn(2, B, H) for _ in range(count)]
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    dynamic = ({0: batch, 1: time}, *[{1: batch}] * count)
    module = Layer(kind, num_layers=2, batch_first=True)
    other = (torch.randn(2, 4, IN), *[torch.randn(2, 2, H) for _ in range(count)])
    model = import_model(module, (torch.randn(B, T, IN), *states), dynamic)
    feeds = [value.name for value in model.graph.graph.inputs]
    for given in ((torch.randn(B, T, IN), *states), other):
        got = run(model.to_bytes(), {n: a.numpy() for n, a in zip(feeds, given, strict=True) if n})
        with torch.no_grad():
            assert_close(got, flat(module.eval()(*given)))
    assert ops(model)[kind] == 2
    assert all(cell_of(node) is not None for node in model.nodes(kind))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("bidirectional", "bias"), [(False, False), (True, True)])
def test_a_projection_becomes_part_of_the_weights(bidirectional: bool, bias: bool) -> None:
    module = Layer(
        "LSTM", proj_size=3, num_layers=2, bidirectional=bidirectional, bias=bias,
        batch_first=True,
    )  # fmt: skip
    directions = 1 + bidirectional
    states = torch.randn(2 * directions, B, 3), torch.randn(2 * directions, B, H)
    for args in ((torch.randn(B, T, IN),), (torch.randn(B, T, IN), *states)):
        model = check_torch(module, args)
        cells = [cell_of(node) for node in model.nodes("LSTM")]
        assert [cell.hidden for cell in cells if cell is not None] == [H, H]


def test_a_projection_that_cannot_be_taken_back_is_refused() -> None:
    module = Layer("LSTM", proj_size=3)
    with torch.no_grad():
        module.layer.weight_hr_l0[1] = module.layer.weight_hr_l0[0]
    import_model(module, (torch.randn(T, B, IN),))  # zero states: nothing to take back
    states = torch.randn(1, B, 3), torch.randn(1, B, H)
    with pytest.raises(UnsupportedModel, match=r"weight_hr_l0.*condition number"):
        import_model(module, (torch.randn(T, B, IN), *states))


class OwnZeros(nn.Module):  # type: ignore[misc,name-defined]
    """Zeros made in `forward`, as large as the batch; the last step only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(IN, H, batch_first=True)

    def forward(self, x: Any) -> Any:
        zeros = torch.zeros(1, x.shape[0], H)
        y, _ = self.layer(x, (zeros, x.new_zeros(1, x.shape[0], H)))
        return y[:, -1]


def test_zeros_of_the_size_of_the_batch_are_no_state() -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    model = check_torch(OwnZeros(), (torch.randn(B, T, IN),), dynamic, (torch.randn(1, T, IN),))
    cell = cell_of(next(model.nodes("LSTM")))
    assert cell is not None
    assert cell.initial_h is cell.initial_c is None


class Loop(nn.Module):  # type: ignore[misc,name-defined]
    """One cell called once for each step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(nn, f"{kind}Cell")(IN, H)

    def forward(self, x: Any) -> Any:
        state, found = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            found.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(found, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_cells_written_out_import(kind: str) -> None:
    model = check_torch(Loop(kind), (torch.randn(B, 3, IN),))
    assert not {"SplitToSequence", "SequenceAt"} & set(ops(model))


class Packed(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(IN, H, batch_first=True)

    def forward(self, x: Any, lengths: Any) -> Any:
        pack = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, _ = self.layer(pack)
        return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]


def test_packed_sequences_name_the_way_out() -> None:
    args = torch.randn(B, T, IN), torch.tensor([7, 5, 3])
    with pytest.raises(ModelError) as caught:
        import_model(Packed("LSTM"), args)
    assert "dynamo=False" in (caught.value.hint or "")


def script_file(module: Any, args: tuple[Any, ...], opset: int, free: Any = None) -> bytes:
    """torch's older exporter: weights behind slices, states behind shapes."""
    file = io.BytesIO()
    names = ["x", "h", "c"][: len(args)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), args, file, dynamo=False, opset_version=opset, input_names=names,
            dynamic_axes=free,
        )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_out_works(kind: str) -> None:
    args = torch.randn(B, T, IN), torch.tensor([7, 5, 3])
    data = script_file(Packed(kind), args, 17)
    model = check_file(data, {"x": args[0].numpy(), "h": args[1].numpy()})
    cell = cell_of(next(model.nodes(kind)))
    assert cell is not None
    assert cell.lengths is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opset", [8, 11, 14, 19])
def test_files_of_torchs_older_exporter(kind: str, opset: int) -> None:
    module = Layer(kind, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(B, T, IN)
    data = script_file(module, (x,), opset, {"x": {0: "batch", 1: "time"}})
    model = import_model(onnx.load_from_string(data))
    with torch.no_grad():
        assert_close(run(model.to_bytes(), {"x": x.numpy()}), flat(module(x)))
    for node in model.nodes(kind):
        cell = cell_of(node)
        assert cell is not None
        assert cell.initial_h is None
    assert ops(model)[kind] == 2
