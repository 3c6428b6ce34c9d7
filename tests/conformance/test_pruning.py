"""30 % of every group of whole models cut: they run, and answer as the masked originals."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx.backend.test
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from pruning_checks import Array, check_places, check_removed, described, share_of

from edgebm.importers import import_model
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.pruning.groups import find_groups

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
# Name: groups, units of all groups, layers that stay whole. The last layer of each makes the
# classes; the inner layers of ShuffleNet's first stage have 34 channels in 4 groups, which
# the shuffle between them does not divide.
ZOO = {
    "bvlc_alexnet": (7, 8880, 1),
    "densenet121": (120, 10240, 1),
    "inception_v1": (57, 7280, 1),
    "inception_v2": (69, 9952, 1),
    "resnet50": (37, 11456, 1),
    "shufflenet": (13, 247, 9),
    "squeezenet": (25, 2944, 1),
    "vgg19": (18, 13696, 1),
    "zfnet512": (7, 7008, 1),
}


def he_normal(model: Model, rng: np.random.Generator) -> Model:
    """The weights of the light graphs are constant: draw them, and the numbers of the norms."""
    for node in model.nodes("Conv", "Gemm", "MatMul"):
        old = const(node.inputs[1])
        assert old is not None
        rows = node.op_type == "Conv" or node.attributes.get_int("transB", 0)
        over = old[0].size if rows else len(old)
        drawn = rng.standard_normal(old.shape, np.float32)
        redraw(node.inputs[1], drawn * np.float32(np.sqrt(2 / over)))
    for node in model.nodes("BatchNormalization"):
        for index, (low, high) in enumerate([(0.5, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5)]):
            old = const(node.inputs[index + 1])
            assert old is not None
            drawn = rng.uniform(low, high, old.shape).astype(np.float32)
            redraw(node.inputs[index + 1], drawn)
    last = model.graph.graph.outputs[0].producer()
    if last is not None and last.op_type == "Softmax" and last.inputs[0] is not None:
        model.graph.graph.outputs.insert(0, last.inputs[0])  # scores: a softmax hides them
    return model


def redraw(value: ir.Value | None, drawn: NDArray[np.float32]) -> None:
    assert value is not None
    value.const_value = ir.tensor(drawn, name=value.name)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_zoo(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip(f"this onnx package has no {path.name}")
    rng = np.random.default_rng(0)
    model = he_normal(import_model(path), rng)
    found = find_groups(model)
    groups, units, whole = ZOO[name]
    assert len(found.groups) == groups
    assert sum(group.units for group in found.groups) == units
    assert len(found.frozen) == whole
    x = rng.normal(size=(1, 3, 224, 224)).astype(np.float32)
    label = model.graph.graph.inputs[0].name or ""
    small = check_removed(model, share_of(found, 0.3, 0), {label: x})
    assert small.param_count() < 0.62 * model.param_count()


RESNET = [
    "0.0/Conv channels 16", "1.a.0/Conv channels 16", "2.a.0/Conv channels 16",
    "3.a.0/Conv channels 32", "3.b.0/Conv channels 32", "4.a.0/Conv channels 32",
]  # fmt: skip
BLOCKS = [
    "blocks.0.attention.qkv.0/MatMul heads 4", "blocks.0.mlp.0/MatMul neurons 64",
    "blocks.1.attention.qkv.0/MatMul heads 4", "blocks.1.mlp.0/MatMul neurons 64",
]  # fmt: skip
UNET = {"a.0": 16, "a.3": 16, "b.0": 32, "b.3": 32, "c.0": 64, "c.3": 64, "up_b.conv.0": 32,
        "up_b.conv.3": 32, "up_a.conv.0": 16, "up_a.conv.3": 16}  # fmt: skip


def unet(*, divisor: int) -> list[str]:
    """Channels of both convolutions of every level, and of what brings a level up."""
    convs = [f"{name}/Conv channels {units // divisor}" for name, units in UNET.items()]
    ups = [f"up_{level}.up/ConvTranspose channels {n}" for level, n in (("b", 32), ("a", 16))]
    return sorted([*convs, *ups])


# Stream and inner channels of a stage, heads and neurons of a layer, one width for all layers,
# squeezed and expanded widths, hidden units of each recurrent layer (both directions alike).
FOUND: dict[str, list[str]] = {
    "resnet": RESNET,
    # The short cut brings zeros beside the 16 old channels: 16 are new.
    "resnet_padded": [*RESNET[:4], "3.b.0/Conv channels 16", RESNET[5]],
    "densenet": [
        "0.0/Conv channels 16",
        *(f"1.layers.{n}.{i}/Conv channels {k}" for n in range(3) for i, k in ((2, 32), (5, 8))),
        "4/Conv channels 20",
        *(f"6.layers.{n}.{i}/Conv channels {k}" for n in range(2) for i, k in ((2, 32), (5, 8))),
    ],
    "mobilenet": [
        "0.0/Conv channels 16", "1.layers.0.0/Conv channels 32",
        "1.layers.2.down/Conv channels 8", "2.layers.0.0/Conv channels 48",
        "2.layers.2.down/Conv channels 8", "2.layers.3.0/Conv channels 24",
        "3.layers.0.0/Conv channels 48", "3.layers.2.down/Conv channels 8",
        "4.0/Conv channels 64", "7/Gemm neurons 40",
    ],
    "unet": unet(divisor=1),
    # Four groups of each norm stay equally wide, so four channels are a unit.
    "unet_group_norm": unet(divisor=4),
    "vit": ["patches/Conv channels 32", *BLOCKS],
    "bert": ["words/Gather embedding 32", *BLOCKS, "pool/Gemm neurons 20"],
    "torch_encoder": [
        "first/MatMul neurons 32",
        *(
            f"layers.layers.{n}.{part}/MatMul {units}"
            for n in range(2)
            for part, units in (("self_attn", "heads 4"), ("linear1", "neurons 64"))
        ),
    ],
    "decoder": ["words/Gather embedding 32", "qkv/MatMul heads 4", "up/MatMul neurons 128"],
    # A key goes with both of its queries.
    "grouped": ["words/Gather embedding 32", "qkv.0/MatMul heads 2", "gate/MatMul neurons 48"],
    "windows": ["patches/Conv channels 24", "qkv/MatMul heads 3", "merge/MatMul neurons 48"],
    "lines": [
        "convs.0/Conv channels 16", "convs.4/Conv channels 24", "rnn/LSTM hidden 16",
        "rnn/LSTM_1 hidden 16",
    ],
    "lstm": ["rnn/LSTM hidden 16"],
    "lstm_2": ["rnn/LSTM hidden 16", "rnn/LSTM_1 hidden 16"],
    "lstm_2_both": ["rnn/LSTM hidden 16", "rnn/LSTM_1 hidden 16"],
    "gru": ["rnn/GRU hidden 16"],
    "gru_2_both": ["rnn/GRU hidden 16", "rnn/GRU_1 hidden 16"],
    "rnn": ["rnn/RNN hidden 16", "rnn/RNN_1 hidden 16"],
}  # fmt: skip


@cache
def imported(name: str) -> tuple[Model, tuple[dict[str, Array], ...]]:
    """The model, and feeds of its own sizes and of others where axes are free."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from torch_families import FAMILIES
    from torch_families_more import MORE

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module, args, free = {**FAMILIES, **MORE}[name]()
    model = import_model(module, args, free)
    labels = [value.name or "" for value in model.graph.graph.inputs]
    arrays = [array.numpy() for array in args]
    feeds = [dict(zip(labels, arrays, strict=True))]
    shape = model.graph.graph.inputs[0].shape
    assert shape is not None
    if not isinstance(shape[0], int):
        feeds.append({k: v[:1] for k, v in feeds[0].items()})
    if not isinstance(shape[1], int):
        feeds.append({k: v[:, :4] for k, v in feeds[0].items()})
    return model, tuple(feeds)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_families(name: str) -> None:
    model, feeds = imported(name)
    found = find_groups(model)
    named = described(found)
    assert (sorted(named) if name.startswith("unet") else named) == FOUND[name]
    # Only the last layer stays whole.
    assert [why.partition("they are part of the model output")[1] for _, why in found.frozen] == [
        "they are part of the model output"
    ]
    check_places(model, found)
    for seed, share in ((0, 0.75), (1, 0.5), (2, 0.3)):
        small = check_removed(model, share_of(found, share, seed), *feeds)
    again = find_groups(small)
    assert {group.name for group in again.groups} <= {group.name for group in found.groups}


@pytest.mark.parametrize("name", ["shufflenet", "shufflenet_grouped"])
def test_shuffled_families(name: str) -> None:
    """Channels that pass a different number of blocks are of different groups."""
    model, feeds = imported(name)
    found = find_groups(model)
    units: Counter[str] = Counter()
    for group in found.groups:
        units[group.name.partition("#")[0]] += group.units
    if name == "shufflenet":
        assert units == {
            "0.0/Conv": 16, "1.left.1.0/Conv": 16, "1.right.0.0/Conv": 16,
            "1.right.2.0/Conv": 16, "2.right.0.0/Conv": 16, "2.right.2.0/Conv": 16,
            "3.right.0.0/Conv": 16, "3.right.2.0/Conv": 16, "4.0/Conv": 48,
        }  # fmt: skip
    else:
        # 18 channels in 3 groups of 6, a multiple of 3; 30 are not, and stay.
        assert units == {"0.0/Conv": 12, "1.a.0/Conv": 2}
        assert {label for label, _ in found.frozen} == {"2.a.0/Conv", "2.b.0/Conv", "5/Gemm"}
    check_places(model, found)
    for seed in range(3):
        check_removed(model, share_of(found, 0.3, seed), *feeds)
