"""Forms of ops that the standard's own cases leave out: ONNX Runtime's answers, and gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import outputs, parse, random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.errors import UnsupportedModel  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.ops import OPS  # noqa: E402

torch.set_num_threads(1)
# Op, its attributes, shape of x, shapes of the constants.
LAYERS = [
    ("Conv", "kernel_shape=[3]", (2, 4, 9), [(6, 4, 3), (6,)]),
    ("Conv", "kernel_shape=[3], pads=[2,0], strides=[2]", (2, 4, 9), [(6, 4, 3), (6,)]),
    ("Conv", 'auto_pad="SAME_UPPER", strides=[2,3]', (2, 3, 8, 7), [(4, 3, 3, 2)]),
    ("Conv", 'auto_pad="SAME_LOWER", strides=[2,1]', (2, 3, 8, 7), [(4, 3, 2, 4), (4,)]),
    ("Conv", 'auto_pad="VALID", group=3', (2, 3, 8, 7), [(6, 1, 3, 3), (6,)]),
    ("Conv", "pads=[0,1,2,1], group=2, dilations=[1,2]", (1, 4, 8, 9), [(6, 2, 3, 3), (6,)]),
    ("Conv", "pads=[1,1,1,1,1,1], strides=[1,2,2]", (1, 2, 4, 5, 6), [(3, 2, 3, 3, 3), (3,)]),
    ("ConvTranspose", "strides=[2]", (2, 4, 5), [(4, 3, 3), (3,)]),
    ("ConvTranspose", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", (1, 4, 5, 6),
     [(4, 3, 3, 3), (3,)]),
    ("ConvTranspose", "strides=[2,3], pads=[0,1,1,2], group=2", (1, 4, 5, 6),
     [(4, 3, 3, 4), (6,)]),
    ("ConvTranspose", 'auto_pad="SAME_UPPER", strides=[2,2]', (1, 2, 5, 4), [(2, 3, 3, 3), (3,)]),
    ("ConvTranspose", 'auto_pad="SAME_LOWER", strides=[2,2]', (1, 2, 5, 4), [(2, 3, 3, 3)]),
    ("ConvTranspose", "strides=[2,2], output_shape=[11,10]", (1, 2, 5, 4), [(2, 3, 3, 3), (3,)]),
    ("ConvTranspose", "dilations=[2,2], strides=[1,2]", (1, 2, 5, 4), [(2, 3, 3, 2), (3,)]),
    ("ConvTranspose", "strides=[1,2,1]", (1, 2, 3, 4, 3), [(2, 3, 2, 2, 2), (3,)]),
    ("MaxPool", "kernel_shape=[3], strides=[2], pads=[1,1]", (2, 3, 9), []),
    ("MaxPool", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1", (1, 2, 8, 10), []),
    ("MaxPool", "kernel_shape=[2,2], strides=[3,3], ceil_mode=1, pads=[0,1,1,0]", (1, 2, 8, 10),
     []),
    ("MaxPool", "kernel_shape=[2,3], pads=[0,2,1,0], dilations=[2,2]", (1, 2, 8, 9), []),
    ("MaxPool", 'kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"', (1, 2, 8, 9), []),
    ("MaxPool", "kernel_shape=[2,2,2], strides=[2,2,2]", (1, 2, 4, 6, 4), []),
    ("AveragePool", "kernel_shape=[3], strides=[2], pads=[1,1]", (2, 3, 9), []),
    ("AveragePool", "kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1", (1, 2, 7, 6), []),
    ("AveragePool", "kernel_shape=[3,3], pads=[0,1,2,1], strides=[2,2]", (1, 2, 7, 6), []),
    ("AveragePool", 'kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER"', (1, 2, 7, 6), []),
    ("AveragePool", "kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,0,0]", (1, 2, 8, 8),
     []),
    ("AveragePool", "kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]", (1, 2, 7, 7), []),
    ("AveragePool", "kernel_shape=[2,2,2]", (1, 2, 4, 5, 4), []),
    ("LpPool", "kernel_shape=[3,3], p=3, strides=[2,2]", (1, 2, 7, 7), []),
    ("GlobalLpPool", "p=3", (2, 3, 4, 5), []),
    ("GlobalLpPool", "", (2, 3, 6), []),
    ("GlobalMaxPool", "", (2, 3, 4, 5, 2), []),
    ("GlobalAveragePool", "", (2, 3, 6), []),
    ("BatchNormalization", "epsilon=0.01", (4, 3), [(3,), (3,), (3,), "v"]),
    ("BatchNormalization", "", (2, 3, 4, 2, 2), [(3,), (3,), (3,), "v"]),
    ("LayerNormalization", "axis=1", (2, 3, 4), [(3, 4), (3, 4)]),
    ("LayerNormalization", "axis=1", (2, 3, 4), [(4,), (4,)]),
    ("LayerNormalization", "axis=-1, epsilon=0.1", (2, 3, 4), [(4,)]),
    ("InstanceNormalization", "", (2, 3, 5), [(3,), (3,)]),
    ("InstanceNormalization", "epsilon=0.1", (2, 3, 2, 3, 2), [(3,), (3,)]),
    ("LRN", "size=5, alpha=0.1, beta=0.6, bias=1.5", (2, 7, 3, 2), []),
    ("LpNormalization", "axis=1, p=1", (2, 5, 3), []),
    ("PRelu", "", (2, 3, 4), [(3, 1)]),
    ("Gemm", "alpha=0.5, beta=2.0, transA=1", (4, 3), [(4, 5), (5,)]),
    ("Gemm", "transB=1", (4, 3), [(5, 3), (4, 1)]),
    ("Einsum", 'equation="bij,jk->bki"', (2, 3, 4), [(4, 5)]),
    ("Softplus", "", (2, 30), []),
    ("Celu", "alpha=2.0", (2, 30), []),
    ("Selu", "", (2, 30), []),
    ("ThresholdedRelu", "alpha=0.3", (2, 30), []),
    ("Shrink", "bias=0.2, lambd=0.4", (2, 30), []),
    ("SpaceToDepth", "blocksize=2", (1, 2, 4, 6), []),
    ("DepthToSpace", 'blocksize=2, mode="CRD"', (1, 8, 2, 3), []),
]  # fmt: skip
# Mode, where the coordinates lie, more attributes, and scales (one number) or sizes.
RESIZES = [
    ("nearest", "asymmetric", 'nearest_mode="floor"', 2.0),
    ("nearest", "asymmetric", 'nearest_mode="floor"', (8, 13)),
    ("nearest", "asymmetric", 'nearest_mode="ceil"', (8, 4)),
    ("nearest", "half_pixel", "", (10, 18)),
    ("nearest", "half_pixel", "", (7, 9)),
    ("nearest", "align_corners", 'nearest_mode="round_prefer_ceil"', (7, 9)),
    ("linear", "half_pixel", "", 2.0),
    ("linear", "half_pixel", "", 1.7),
    ("linear", "half_pixel", "antialias=1", (3, 4)),
    ("linear", "pytorch_half_pixel", "", (1, 9)),
    ("linear", "align_corners", "", (8, 13)),
    ("linear", "asymmetric", "", (10, 3)),
    ("cubic", "half_pixel", "", 2.0),
    ("cubic", "half_pixel", "cubic_coeff_a=-0.5", (8, 13)),
    ("cubic", "half_pixel", "exclude_outside=1", 1.5),
    ("cubic", "align_corners", "", (9, 7)),
]


def layer(op: str, attributes: str, shape: tuple[int, ...], constants: list) -> GraphModule:
    rank = range(len(shape))
    names = {("v" if s == "v" else "w") + str(i): s for i, s in enumerate(constants)}
    shapes = {k: (constants[0] if s == "v" else s) for k, s in names.items()}
    x = ",".join(map(str, shape))
    y = ",".join(f"a{i}" for i in rank)
    written = f"<{attributes}>" if attributes else ""
    args = ", ".join(["x", *names])
    return random_model(
        f"g (float[{x}] x) => (float[{y}] y) {{ y = {op}{written}({args}) }}", **shapes
    )


def compared(model, shape: tuple[int, ...]) -> None:
    module = GraphModule(model, trainable=lambda _: False)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    (want,) = outputs(model, {"x": x}).values()
    got = module({"x": torch.from_numpy(x)})["y"]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)
    assert torch.autograd.gradcheck(
        lambda v: module.double()({"x": v})["y"],
        torch.from_numpy(x).double().requires_grad_(),
        fast_mode=True,
    )


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: f"{case[0]} {case[1]}")
def test_layers(case: tuple[str, str, tuple[int, ...], list]) -> None:
    compared(layer(*case), case[2])


@pytest.mark.parametrize("case", RESIZES, ids=str)
def test_resize(case: tuple[str, str, str, float | tuple[int, ...]]) -> None:
    mode, coordinates, more, wanted = case
    if isinstance(wanted, float):
        given, at = np.array([1, 1, wanted, wanted], np.float32), "x, , to"
    else:
        given, at = np.array([1, 2, *wanted]), "x, , , to"
    where = f'mode="{mode}", coordinate_transformation_mode="{coordinates}"'
    text = f"""g (float[1,2,5,6] x) => (float[1,2,h,w] y) {{
      y = Resize<{", ".join(filter(None, (where, more)))}>({at})
    }}"""
    compared(parse(text, to=given), (1, 2, 5, 6))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pads(mode: str) -> None:
    text = f"""g (float[2,3,5] x) => (float[2,n,m] y) <float fill = {{1.5}}> {{
      y = Pad<mode="{mode}">(x, pads, fill, axes)
    }}"""
    compared(parse(text, pads=np.array([2, -1, 1, 2]), axes=np.array([1, -1])), (2, 3, 5))


def test_no_convolution_over_four_axes() -> None:
    model = layer("Conv", "", (1, 1, 3, 3, 3, 3), [(1, 1, 2, 2, 2, 2)])
    with pytest.raises(UnsupportedModel, match="no convolution over 4 spatial axes"):
        GraphModule(model)


def test_tied_elements_are_taken_in_order() -> None:
    (values, places) = OPS["TopK"](ir.node("TopK", [], {"axis": -1}))(
        torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0]), torch.tensor([2])
    )
    assert values.tolist() == [3.0, 3.0]
    assert places.tolist() == [1, 2]


def test_scattered_updates_have_gradients() -> None:
    compute = OPS["ScatterND"](ir.node("ScatterND", [], {"reduction": "add"}))
    indices = torch.tensor([[1], [-1], [1]])
    assert torch.autograd.gradcheck(
        lambda x, u: compute(x, indices, u),
        (
            torch.randn(3, 2, dtype=torch.double, requires_grad=True),
            torch.randn(3, 2, dtype=torch.double, requires_grad=True),
        ),
    )
