"""A bidirectional layer as two layers: equal outputs, and nothing that two directions share."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, random_model, samples

from edgebm.importers import import_model
from edgebm.ir.check import verify
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.recurrent import cell_of
from edgebm.ir.shapes import infer_shapes
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.split_directions import SplitDirections

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, B, IN, H = 6, 3, 4, 5


def split(model: Model, ctx: Context | None = None) -> Model:
    return run_passes(model, [SplitDirections()], ctx or Context())[0]


def layer(kind: str, attributes: str = "", bias: bool = True, **extra: tuple[int, ...]) -> Model:
    """Every output read, every state given."""
    rows = GATES[kind] * H
    c = kind == "LSTM"
    text = f"""g (float[{T},{B},{IN}] x, float[2,{B},{H}] h{f", float[2,{B},{H}] c" if c else ""})
      => (float[{T},2,{B},{H}] y, float[2,{B},{H}] yh{f", float[2,{B},{H}] yc" if c else ""}) {{
      [layer] y, yh{", yc" if c else ""} = {kind}<hidden_size={H}, direction="bidirectional"
        {attributes}>(x, w, r, {"b" if bias else ""}, , h{", c" if c else ""}
        {", p" if "p" in extra else ""})
    }}"""
    shapes = {"w": (2, rows, IN), "r": (2, rows, H), **extra}
    return random_model(text, **shapes, **({"b": (2, 2 * rows)} if bias else {}))


def assert_same(model: Model, done: Model) -> None:
    for feeds in samples(model, 2).feeds():
        expected = outputs(model, feeds)
        for label, array in outputs(done, feeds).items():
            np.testing.assert_allclose(array, expected[label], rtol=0, atol=1e-6)


def assert_shapes_are_those_of_inference(model: Model) -> None:
    values = [value for node in model.nodes() for value in node.outputs if value.name]
    found = {value.name: (value.dtype, str(value.shape)) for value in values}
    infer_shapes(model)
    assert found == {value.name: (value.dtype, str(value.shape)) for value in values}


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", ""),
        ("LSTM", ", clip=0.4"),
        ("GRU", ", linear_before_reset=1"),
        ("GRU", ', activations=["Sigmoid","Tanh","HardSigmoid","Relu"]'),
        ("RNN", ', activations=["Tanh","Relu"]'),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_two_nodes_answer_as_one(kind: str, attributes: str, bias: bool) -> None:
    model = layer(kind, attributes, bias)
    done = split(model)
    assert_same(model, done)
    nodes = {node.name: node for node in done.nodes(kind)}
    assert set(nodes) == {"layer.forward", "layer.reverse"}
    for side, direction in enumerate(("forward", "reverse")):
        cell = cell_of(nodes[f"layer.{direction}"])
        whole = cell_of(next(model.nodes(kind)))
        assert cell is not None
        assert whole is not None
        assert (cell.direction, cell.directions) == (direction, 1)
        np.testing.assert_array_equal(cell.w, whole.w[side : side + 1])
        np.testing.assert_array_equal(cell.r, whole.r[side : side + 1])
        assert (cell.b is None) is not bias
    assert_shapes_are_those_of_inference(done)


def test_activations_go_to_their_direction() -> None:
    done = split(layer("RNN", ', activations=["Tanh","Relu"]'))
    named = [list(node.attributes.get_strings("activations")) for node in done.nodes("RNN")]
    assert named == [["Tanh"], ["Relu"]]


def test_peepholes_are_split() -> None:
    model = layer("LSTM", p=(2, 3 * H))
    done = split(model)
    assert_same(model, done)
    assert [const(node.inputs[7]).shape for node in done.nodes("LSTM")] == [(1, 3 * H)] * 2  # type: ignore[union-attr]


STACK = f"""g (float[T,N,{IN}] x, int32[N] lens) => (float[T,N,{2 * H}] y, float[2,N,{H}] last) {{
  [first] a = GRU<hidden_size={H}, direction="bidirectional", linear_before_reset=1>
    (x, w1, r1, b1, lens)
  at = Transpose<perm=[0,2,1,3]>(a)
  ar = Reshape(at, flat)
  [second] c, last = GRU<hidden_size={H}, direction="bidirectional", linear_before_reset=1>
    (ar, w2, r2, b2, lens, states)
  ct = Transpose<perm=[0,2,1,3]>(c)
  y = Reshape(ct, flat)
}}"""


def test_layers_in_a_row_with_lengths_and_constant_states() -> None:
    """Free axes; and directions are joined without a transpose where nothing else is read."""
    shapes = {
        "w1": (2, 3 * H, IN), "w2": (2, 3 * H, 2 * H),
        **{f"r{k}": (2, 3 * H, H) for k in (1, 2)}, **{f"b{k}": (2, 6 * H) for k in (1, 2)},
        "states": (2, B, H),
    }  # fmt: skip
    text = STACK.replace(" {\n", " <int64[3] flat = {0, 0, -1}> {\n", 1)
    model = random_model(text, **shapes)
    done = split(model)
    kinds = [node.op_type for node in done.nodes()]
    assert kinds.count("GRU") == 4
    assert "Transpose" not in kinds
    assert "Reshape" not in kinds
    feeds = {
        "x": np.random.default_rng(0).normal(size=(T, B, IN)).astype(np.float32),
        "lens": np.array([T, 2, 4], np.int32),
    }
    expected = outputs(model, feeds)
    for label, array in outputs(done, feeds).items():
        np.testing.assert_allclose(array, expected[label], rtol=0, atol=1e-6)
    assert_shapes_are_those_of_inference(done)


def test_states_that_were_joined_are_taken_apart_again() -> None:
    model = random_model(
        f"""g (float[{T},{B},{IN}] x, float[1,{B},{H}] f, float[1,{B},{H}] k)
          => (float[2,{B},{H}] h) {{
          s = Concat<axis=0>(f, k)
          y, h = RNN<hidden_size={H}, direction="bidirectional">(x, w, r, , , s)
        }}""",
        w=(2, H, IN),
        r=(2, H, H),
    )
    done = split(model)
    assert_same(model, done)
    assert sorted(node.op_type for node in done.nodes()) == ["Concat", "Concat", "RNN", "RNN"]


def test_what_stays_says_why() -> None:
    computed = f"""g (float[{T},{B},{IN}] x, float[2,{H},{IN}] w) => (float[{T},2,{B},{H}] y) {{
      [own] y = RNN<hidden_size={H}, direction="bidirectional">(x, w, r)
    }}"""
    scaled = f"""g (float[{T},{B},{IN}] x) => (float[{T},2,{B},{H}] y) {{
      [scaled] y = RNN<hidden_size={H}, direction="bidirectional", activation_alpha=[0.1,0.2],
        activations=["LeakyRelu","LeakyRelu"]>(x, w, r)
    }}"""
    for text, reason in ((computed, "computed at run time"), (scaled, "have parameters")):
        shapes = {"w": (2, H, IN), "r": (2, H, H)}
        used = {k: v for k, v in shapes.items() if text is scaled or k == "r"}
        ctx = Context()
        done = split(random_model(text, **used), ctx)
        assert [node.op_type for node in done.nodes()] == ["RNN"]
        (skip,) = ctx.skips
        assert reason in skip.reason
        assert skip.node in ("own", "scaled")


def test_an_ignored_node_keeps_its_name() -> None:
    ctx = Context(is_ignored=lambda name, op_type: name == "layer")
    done = split(layer("GRU"), ctx)
    assert [node.name for node in done.nodes("GRU")] == ["layer"]
    assert ctx.skips[0].reason == "it is on the ignored list"


def test_one_direction_is_left_alone() -> None:
    model = random_model(
        f"""g (float[{T},{B},{IN}] x) => (float[{T},1,{B},{H}] y) {{
          [back] y = LSTM<hidden_size={H}, direction="reverse">(x, w, r)
        }}""",
        w=(1, 4 * H, IN),
        r=(1, 4 * H, H),
    )
    ctx = Context()
    assert [node.name for node in split(model, ctx).nodes()] == ["back"]
    assert not ctx.skips


def test_a_layer_of_torch_as_it_is_imported() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(IN, H, num_layers=2, bidirectional=True, batch_first=True)
    model = import_model(module, (torch.randn(B, T, IN),))
    done = split(model)
    verify(done)
    assert_same(model, done)
    assert sum(1 for _ in done.nodes("LSTM")) == 4
