"""What stays in FP32, how a graph is rewritten to FP16, and what its simulation rounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
from graphs import Listed, outputs, parse, random_model, samples

from edgebm.backends.half import LARGEST, needs_f32
from edgebm.backends.half_graph import to_half
from edgebm.backends.half_masks import MASKED, settle_masks
from edgebm.backends.half_simulation import in_f32, read_model
from edgebm.errors import BackendFailed
from edgebm.exec.extents import note_extents
from edgebm.ir.annotate import Extent, extent_of
from edgebm.ir.model import Model

F16, F32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
AXES = {"axes": np.asarray([1])}


def noted(model: Model, *feeds: Mapping[str, np.ndarray]) -> Model:
    """`model` with its extents over these samples, or over a few normal ones."""
    given = Listed(feeds) if feeds else samples(model)
    return note_extents(settle_masks(model), given.feeds(), lambda: None)


def halved(model: Model, *feeds: Mapping[str, np.ndarray]) -> Model:
    """The file that would be written, read back."""
    seen = noted(model, *feeds)
    return read_model(to_half(seen, needs_f32(seen)).to_bytes())


def types(model: Model) -> dict[str, ir.DataType | None]:
    """By node: the type of its first output."""
    return {node.name or "": node.outputs[0].dtype for node in model.nodes()}


def small() -> Model:
    return random_model(
        """g (float[N,8] x) => (float[N,4] y) {
          [a] h = MatMul(x, w)
          [b] r = Relu(h)
          [c] y = MatMul(r, u)
        }""",
        w=(8, 8),
        u=(8, 4),
    )


def test_inputs_and_outputs_stay_and_the_rest_is_f16() -> None:
    half = halved(small())
    (x,), (y,) = half.graph.graph.inputs, half.graph.graph.outputs
    assert (x.name, x.dtype, y.name, y.dtype) == ("x", F32, "y", F32)
    assert [str(dim) for dim in y.shape or ()] == ["N", "4"]
    found = types(half)
    assert [found[n] for n in "abc"] == [F16, F16, F16]
    assert sum(node.op_type == "Cast" for node in half.nodes()) == 2
    assert all(v.dtype == F16 for v in half.graph.graph.initializers.values())


def test_the_simulation_rounds_where_f16_does_by_hand() -> None:
    model = small()
    x = np.linspace(-3, 3, 16).reshape(2, 8).astype(np.float32)
    got = outputs(in_f32(halved(model)), {"x": x})["y"]
    w, u = (model.graph.graph.initializers[n].const_value.numpy() for n in "wu")

    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16).astype(np.float32)

    h = rounded(rounded(x) @ rounded(w))
    want = rounded(np.maximum(h, 0) @ rounded(u))
    # Sums in another order may round to the neighbour.
    np.testing.assert_allclose(got, want, rtol=2**-10, atol=2**-12)
    assert np.array_equal(got, rounded(got))
    assert not np.array_equal(got, outputs(model, {"x": x})["y"])


def test_the_peak_is_the_largest_magnitude_of_all_samples() -> None:
    model = noted(small(), *({"x": np.full((1, 8), v, np.float32)} for v in (-3.0, 2.0)))
    (x,) = model.graph.graph.inputs
    # The mean is -0.5 and the mean square 6.5.
    assert extent_of(x) == Extent(3.0, 6.5 / (6.5 - 0.25))


def test_extents_are_of_channels_and_of_what_varies() -> None:
    image = parse("g (float[1,2,2,2] x) => (float[1,2,2,2] y) { y = Relu(x) }")

    def extent(*arrays: np.ndarray) -> Extent:
        model = noted(image, *({"x": each.astype(np.float32)} for each in arrays))
        (x,) = model.graph.graph.inputs
        found = extent_of(x)
        assert found is not None
        return found

    signs = np.asarray([1, -1, 1, -1]).reshape(1, 1, 2, 2)
    offsets = np.asarray([100, 0]).reshape(1, 2, 1, 1)
    # Channels around 100 and 0, each varying by 1.
    assert extent(signs + offsets) == Extent(101.0, pytest.approx(5001 / 1))
    # Channels that differ and do not vary.
    assert extent(offsets + 0 * signs).offset == 0
    assert extent((offsets + signs) * np.inf) == Extent(np.inf, 0.0)


def test_a_sequence_of_any_length_has_an_extent() -> None:
    model = parse("g (float[1,N] x) => (float[1,N] y) { y = Relu(x) }")
    found = noted(model, {"x": np.ones((1, 3), np.float32)}, {"x": -np.ones((1, 5), np.float32)})
    (x,) = found.graph.graph.inputs
    assert extent_of(x) == Extent(1.0, 1 / (1 - (2 / 8) ** 2))


def test_what_varies_little_around_something_large_stays() -> None:
    model = parse(
        "g (float[1,4] x) => (float[1,4] y) { [up] u = Add(x, far)\n [down] d = Sub(u, far)\n"
        "[after] y = Tanh(d) }",
        far=np.float32(1000),
    )
    feeds = [{"x": np.full((1, 4), v, np.float32)} for v in (-1, 0.5, 1)]
    keep = needs_f32(noted(model, *feeds))
    assert keep.keys() == {"up", "down"}
    assert "'u' varies by a 1" in keep["up"]
    got = outputs(in_f32(halved(model, *feeds)), feeds[1])["y"]
    np.testing.assert_allclose(got, np.tanh(0.5), rtol=2**-10)
    near = parse("g (float[1,4] x) => (float[1,4] y) { y = Add(x, c) }", c=np.float32(10))
    assert needs_f32(noted(near, *feeds)) == {}


def test_what_is_too_large_stays_and_so_does_who_reads_it() -> None:
    model = parse(
        """g (float[1,4] x) => (float[1,4] y) {
          [big] b = Mul(x, thousand)
          [back] s = Div(b, thousand)
          [after] y = Relu(s)
        }""",
        thousand=np.float32(1000),
    )
    x = np.full((1, 4), LARGEST / 1000 + 1, np.float32)
    keep = needs_f32(noted(model, {"x": x}))
    assert keep.keys() == {"big", "back"}
    assert "'b' reaches 3.38e+04" in keep["big"]
    assert needs_f32(noted(model, {"x": x / 2})) == {}
    found = types(halved(model, {"x": x}))
    assert (found["big"], found["back"], found["after"]) == (F32, F32, F16)
    np.testing.assert_allclose(
        outputs(in_f32(halved(model, {"x": x})), {"x": x})["y"], x, rtol=2**-10
    )


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("[n] y = Add(x, tiny)", {"n"}),
        ("[n] y = Add(x, huge)", {"n"}),
        ("[n] y = Mul(x, third)", set()),
        ("[n] y = Sqrt(x)", {"n"}),
        ("[s] r = Sqrt(x)\n [n] y = Div(x, r)", {"s", "n"}),
        ("[p] p = Pow(x, two)\n [m] m = ReduceMean(p, axes)\n [e] e = Add(m, third)\n"
         "[s] s = Sqrt(e)\n [d] d = Div(x, s)\n [g] y = Mul(d, third)", {"p", "m", "e", "s", "d"}),
        ("[t] t = Mul(x, third)\n [c] i = Cast<to=7>(t)\n y = Cast<to=1>(i)", {"t", "c"}),
        ("[t] t = Tanh(x)\n [d] y = Div(t, two)", set()),
    ],
)  # fmt: skip
def test_which_nodes_stay_in_f32(body: str, kept: set[str]) -> None:
    constants = {
        "tiny": np.float32(1e-9),
        "huge": np.float32(1e6),
        "third": np.float32(1 / 3),
        "two": np.float32(2),
        **AXES,
    }
    named = {k: v for k, v in constants.items() if k in body}
    model = parse(f"g (float[2,4] x) => (float[2,N] y) {{ {body} }}", **named)
    x = np.asarray([[1, 2, 3, 4], [0.5, 1, 1.5, 2]], np.float32)
    found = needs_f32(noted(model, {"x": x}))
    assert found.keys() >= kept
    assert "g" not in found
    if not kept:
        assert found == {}


def test_a_normalization_written_out_survives_tiny_variances() -> None:
    model = parse(
        """g (float[1,8] x) => (float[1,8] y) {
          m = ReduceMean(x, axes)
          d = Sub(x, m)
          p = Mul(d, d)
          v = ReduceMean(p, axes)
          e = Add(v, eps)
          s = Sqrt(e)
          y = Div(d, s)
        }""",
        eps=np.float32(1e-12),
        **AXES,
    )
    x = (1e-4 * np.arange(8)).reshape(1, 8).astype(np.float32)
    sim = in_f32(halved(model, {"x": x}))
    want = outputs(model, {"x": x})["y"]
    got = outputs(sim, {"x": x})["y"]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, atol=0.02)


def test_a_constant_read_in_both_types_has_both() -> None:
    model = parse(
        "g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Mul(x, c)\n"
        "[s] r = Sqrt(x)\n z = Div(c, r) }",
        c=np.asarray([1.1, 2.2, 3.3, 4.4], np.float32),
    )
    half = halved(model, {"x": np.ones((1, 4), np.float32)})
    assert sorted(str(v.dtype) for v in half.graph.graph.initializers.values()) == [
        "FLOAT",
        "FLOAT16",
    ]


def test_a_mask_becomes_a_number_that_f16_has() -> None:
    model = parse(
        """g (float[1,4,4] x, bool[1,1,4] m) => (float[1,4,4] y) {
          f = Where(m, zero, lowest)
          s = Add(x, f)
          y = Softmax(s)
        }""",
        zero=np.float32(0),
        lowest=np.float32(np.finfo(np.float32).min),
    )
    feeds = {
        "x": np.ones((1, 4, 4), np.float32),
        "m": np.asarray([[[True, True, False, False]]]),
    }
    settled = settle_masks(model)
    assert settled.graph.graph.initializers["lowest"].const_value.numpy() == MASKED
    assert model.graph.graph.initializers["lowest"].const_value.numpy() < MASKED
    assert needs_f32(noted(model, feeds)) == {}
    got = outputs(in_f32(halved(model, feeds)), feeds)["y"]
    assert np.array_equal(got[0, 0], [0.5, 0.5, 0, 0])


def test_a_large_constant_that_is_no_mask_stays() -> None:
    model = parse("g (float[4] x) => (float[4] y) { y = Add(x, c) }", c=np.float32(-1e6))
    assert settle_masks(model).graph.graph.initializers["c"].const_value.numpy() == -1e6


def test_casts_and_fills_follow() -> None:
    model = parse(
        """g (int64[1,4] ids) => (float[1,4] y) {
          [c] f = Cast<to=1>(ids)
          n = Shape(ids)
          [o] ones = ConstantOfShape<value = float[1] {1.0}>(n)
          [a] y = Add(f, ones)
        }"""
    )
    half = halved(model, {"ids": np.arange(4).reshape(1, 4)})
    found = types(half)
    assert found["a"] == F16
    assert np.array_equal(
        outputs(in_f32(half), {"ids": np.arange(4).reshape(1, 4)})["y"], [[1, 2, 3, 4]]
    )


def test_resize_keeps_its_scales_in_f32() -> None:
    model = parse(
        'g (float[1,1,2,2] x) => (float[1,1,4,4] y) { [r] y = Resize<mode="linear">(x, , twice) }',
        twice=np.asarray([1, 1, 2, 2], np.float32),
    )
    half = halved(model)
    assert types(half)["r"] == F16
    (scales,) = half.graph.graph.initializers.values()
    assert scales.dtype == F32


def test_a_recurrent_layer_is_f16() -> None:
    model = random_model(
        "g (float[5,1,4] x) => (float[5,1,1,4] y) { [n] y = LSTM<hidden_size=4>(x, w, r) }",
        w=(1, 16, 4),
        r=(1, 16, 4),
    )
    assert types(halved(model))["n"] == F16


def test_a_node_with_a_graph_of_its_own_is_refused() -> None:
    model = Model.parse(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        """g (float[1] x, bool c) => (float[1] y) {
          [n] y = If(c) <then_branch = a () => (float[1] p) { p = Relu(x) },
                         else_branch = b () => (float[1] q) { q = Identity(x) }>
        }"""
    )
    with pytest.raises(BackendFailed, match="If 'n' has a graph of its own"):
        to_half(model, needs_f32(model))
