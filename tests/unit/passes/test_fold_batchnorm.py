from __future__ import annotations

import re

import numpy as np
import pytest
from graphs import outputs, parse, random_model, samples

from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.fold_batchnorm import FoldBatchNorm, scale_channels

BN = {"g": (4,), "b": (4,), "m": (4,), "v": (4,)}


def folded(model: Model) -> tuple[Model, list[str]]:
    """The model after the pass, and the reasons of its skips; the function must be kept."""
    ctx = Context()
    after, _ = run_passes(model, [FoldBatchNorm()], ctx)
    for feeds in samples(model, 2).feeds():
        want, got = outputs(model, feeds), outputs(after, feeds)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=2e-4, atol=2e-5)
    return after, [skip.reason for skip in ctx.skips]


@pytest.mark.parametrize(
    ("layer", "shapes", "out"),
    [
        ("Conv(x, w)", {"w": (4, 6, 3, 3)}, "1,4,6,6"),
        ("Conv(x, w, c)", {"w": (4, 6, 3, 3), "c": (4,)}, "1,4,6,6"),
        ("Conv<group=2>(x, w, c)", {"w": (4, 3, 3, 3), "c": (4,)}, "1,4,6,6"),
        ("ConvTranspose(x, w)", {"w": (6, 4, 3, 3)}, "1,4,10,10"),
        ("ConvTranspose<strides=[2,2]>(x, w, c)", {"w": (6, 4, 2, 2), "c": (4,)}, "1,4,16,16"),
    ],
)
def test_behind_a_convolution(layer: str, shapes: dict[str, tuple[int, ...]], out: str) -> None:
    model = random_model(
        f"g (float[1,6,8,8] x) => (float[{out}] y) {{ h = {layer}\n"
        "y = BatchNormalization<epsilon=0.003>(h, g, b, m, v) }",
        **shapes,
        **BN,
    )
    after, reasons = folded(model)
    assert reasons == []
    assert [node.op_type for node in after.nodes()] == [re.split("[<(]", layer, maxsplit=1)[0]]


@pytest.mark.parametrize("dims", ["1,3,9", "1,3,5,5,5"])
def test_in_one_and_three_dimensions(dims: str) -> None:
    rank = dims.count(",") - 1
    after, reasons = folded(
        random_model(
            f"g (float[{dims}] x) => (float[{','.join(['N', *['D'] * (rank + 1)])}] y) {{\n"
            "h = Conv(x, w)\n y = BatchNormalization(h, g, b, m, v) }".replace("N,D", "1,4", 1),
            w=(4, 3, *[2] * rank),
            **BN,
        )
    )
    assert reasons == []
    assert len(list(after.nodes())) == 1


@pytest.mark.parametrize(
    "layer",
    [
        "Gemm(x, w)",
        "Gemm(x, w, c)",
        "Gemm<transB=1>(x, wt, c)",
        "Gemm<alpha=0.5>(x, w, c)",
        "Gemm<transB=1, alpha=2.0>(x, wt)",
        "Gemm(x, w, row)",
        "Gemm(x, w, one)",
    ],
)
def test_behind_a_gemm(layer: str) -> None:
    shapes = {"w": (6, 4), "wt": (4, 6), "c": (4,), "row": (1, 4), "one": (1,)}
    names = layer.rstrip(")").split("(")[1].split(", ")
    used = {label: shapes[label] for label in names if label != "x"}
    model = random_model(
        f"g (float[3,6] x) => (float[3,4] y) {{ h = {layer}\n"
        "y = BatchNormalization(h, g, b, m, v) }",
        **used,
        **BN,
    )
    after, reasons = folded(model)
    assert reasons == []
    assert [node.op_type for node in after.nodes()] == ["Gemm"]


def test_two_in_a_row_and_the_output_name_stays() -> None:
    after, reasons = folded(
        random_model(
            """g (float[1,3,8,8] x) => (float[1,4,6,6] y) {
              h = Conv(x, w)
              n = BatchNormalization(h, g, b, m, v)
              y = BatchNormalization(n, g, b, m, v)
            }""",
            w=(4, 3, 3, 3),
            **BN,
        )
    )
    assert reasons == []
    assert [value.name for value in after.graph.graph.outputs] == ["y"]


def test_a_weight_that_another_layer_reads_is_kept_for_it() -> None:
    model = random_model(
        """g (float[1,4,8,8] x) => (float[1,4,6,6] y, float[1,4,6,6] z) {
          h = Conv(x, w)
          y = BatchNormalization(h, g, b, m, v)
          z = Conv(x, w)
        }""",
        w=(4, 4, 3, 3),
        **BN,
    )
    after, reasons = folded(model)
    assert reasons == []
    assert len({node.inputs[1].name for node in after.nodes("Conv") if node.inputs[1]}) == 2


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("h = Relu(x)\n y = BatchNormalization(h, g, b, m, v)", "does not come from Conv"),
        ("y = BatchNormalization(x, g, b, m, v)", "does not come from Conv"),
        (
            "h = Conv<pads=[1,1,1,1]>(x, w)\n n = BatchNormalization(h, g, b, m, v)\n"
            "y = Add(n, h)",
            "the Conv output is used elsewhere too",
        ),
        (
            "h = ConvTranspose<group=2, pads=[1,1,1,1]>(x, wg)\n"
            "y = BatchNormalization(h, g, b, m, v)",
            "a grouped ConvTranspose",
        ),
        (
            "d = ReduceMean<keepdims=0>(x, axes)\n e = Reshape(d, four)\n"
            "h = Conv<pads=[1,1,1,1]>(x, w, e)\n y = BatchNormalization(h, g, b, m, v)",
            "the bias is computed at run time",
        ),
        (
            "d = ReduceMean<keepdims=0>(x, axes)\n e = Reshape(d, four)\n"
            "h = Conv<pads=[1,1,1,1]>(x, w)\n y = BatchNormalization(h, g, e, m, v)",
            "computed at run time",
        ),
    ],
)
def test_every_reason_to_leave_it(body: str, reason: str) -> None:
    shapes = {"w": (4, 4, 3, 3), "wg": (4, 2, 3, 3), **BN}
    used = {k: s for k, s in shapes.items() if f"{k}," in body or f"{k})" in body}
    constants = " <int64[3] axes = {0, 2, 3}, int64[1] four = {4}>" if "axes" in body else ""
    model = random_model(
        f"g (float[1,4,6,6] x) => (float[1,4,6,6] y){constants} {{ {body} }}", **used
    )
    after, reasons = folded(model)
    assert len(reasons) == 1
    assert reason in reasons[0]
    assert after.to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("Gemm<beta=0.5>(x, w, c)", "the Gemm scales its bias"),
        ("Gemm(x, w, whole)", "another bias to each row"),
    ],
)
def test_gemms_that_cannot_take_it(layer: str, reason: str) -> None:
    bias = "c" if "whole" not in layer else "whole"
    shapes = {"w": (6, 4), bias: (4,) if bias == "c" else (3, 4)}
    model = random_model(
        f"g (float[3,6] x) => (float[3,4] y) {{ h = {layer}\n"
        "y = BatchNormalization(h, g, b, m, v) }",
        **shapes,
        **BN,
    )
    _, reasons = folded(model)
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_a_variance_of_zero_divides_by_epsilon_only() -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
      h = Conv(x, w)
      y = BatchNormalization<epsilon=0.01>(h, one, one, zero, zero)
    }"""
    eye = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    after, _ = folded(parse(text, w=eye, one=one, zero=zero))
    weight = next(after.nodes("Conv")).inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    np.testing.assert_allclose(weight.const_value.numpy(), eye * 10, rtol=1e-6)


def test_scale_channels_keeps_shape_and_dtype() -> None:
    weight = np.ones((2, 3, 4), np.float16)
    scaled = scale_channels(weight, np.array([1.0, 2.0, 3.0]), 1)
    assert scaled.shape == weight.shape
    assert scaled.dtype == np.float16
    np.testing.assert_array_equal(scaled[:, 1], 2)
