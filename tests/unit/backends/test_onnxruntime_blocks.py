"""`MatMulNBits` against the arithmetic of the integers it is given."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import nothing, outputs, parse, random_model, samples, sqnr_db

from edgebm.backends.dialects import EXACT, cpu_grids
from edgebm.backends.onnxruntime import build_packed, executed_layers
from edgebm.backends.onnxruntime_blocks import pack_products
from edgebm.backends.weight_only import store_weights
from edgebm.exec.collect import FloatRunner
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.runtime.cpu import cpu_features

# Inputs of eight bits per block have about 45 dB of their own.
ROUNDED_DB, EXACT_DB = 35.0, 100.0
TEXTS = {
    "matmul": ("(float[3,96] x) => (float[3,33] y) { y = MatMul(x, w) }", {"w": (96, 33)}),
    "of three axes": (
        "(float[2,3,64] x) => (float[2,3,24] y) { y = MatMul(x, w) }", {"w": (64, 24)},
    ),
    "gemm": (
        "(float[3,64] x) => (float[3,24] y) { y = Gemm(x, w, b) }", {"w": (64, 24), "b": (24,)},
    ),
    "gemm transB": (
        "(float[3,64] x) => (float[3,24] y) { y = Gemm<transB=1>(x, w, b) }",
        {"w": (24, 64), "b": (24,)},
    ),
    "gemm without bias": (
        "(float[3,64] x) => (float[3,24] y) { y = Gemm<transB=1>(x, w) }", {"w": (24, 64)},
    ),
    "one block": ("(float[3,16] x) => (float[3,80] y) { y = MatMul(x, w) }", {"w": (16, 80)}),
}  # fmt: skip
LEFT = {
    "no block of 16": (
        "(float[3,40] x) => (float[3,64] y) { y = MatMul(x, w) }", {"w": (40, 64)},
    ),
    "alpha": ("(float[3,64] x) => (float[3,24] y) { y = Gemm<alpha=2.0>(x, w) }", {"w": (64, 24)}),
    "transA": ("(float[64,3] x) => (float[3,24] y) { y = Gemm<transA=1>(x, w) }", {"w": (64, 24)}),
    "one bias for all": (
        "(float[3,64] x) => (float[3,24] y) { y = Gemm(x, w, b) }", {"w": (64, 24), "b": (1,)},
    ),
    "a computed bias": (
        "(float[3,64] x, float[24] z) => (float[3,24] y) { b = Exp(z)\n y = Gemm(x, w, b) }",
        {"w": (64, 24)},
    ),
    "a stack": ("(float[2,3,64] x) => (float[2,3,24] y) { y = MatMul(x, w) }", {"w": (2, 64, 24)}),
}  # fmt: skip


def stored(case: tuple[str, dict[str, tuple[int, ...]]], step: object) -> Model:
    text, shapes = case
    model = random_model(f"g {text}", **shapes)
    return store_weights(run_passes(model, [step], Context())[0], nothing).model  # type: ignore[list-item]


STEPS = {
    "w4 blocks": QuantizeWeightsOnly(bits=4, block_size=32),
    "w8 blocks": QuantizeWeightsOnly(bits=8, block_size=128),
    "w8 channels": QuantizeWeights(),
}


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("label", TEXTS)
def test_the_packed_product_is_the_product(label: str, step: str, *, wide: bool) -> None:
    model = stored(TEXTS[label], STEPS[step])
    packed, count = pack_products(model, wide=wide)
    assert count == 1
    assert [node.op_type for node in packed.nodes()] == ["MatMulNBits"]
    feeds = next(iter(samples(model, 1, seed=3).feeds()))
    want = FloatRunner(model, ["y"], plain=True).run(feeds)["y"]
    got = outputs(packed, feeds)["y"]
    assert got.shape == want.shape
    exact = not wide and step != "w4 blocks"
    assert sqnr_db(want, got) >= (EXACT_DB if exact else ROUNDED_DB)


@pytest.mark.parametrize("step", STEPS)
def test_the_largest_sums_do_not_overflow(step: str) -> None:
    """Every weight and every input at its largest, as where pairs are added in 16 bits."""
    text = "g (float[3,96] x) => (float[3,33] y) { y = MatMul(x, w) }"
    weights = parse(text, w=np.full((96, 33), 0.5, np.float32))
    decided, _ = run_passes(weights, [STEPS[step]], Context())  # type: ignore[list-item]
    wide = EXACT in cpu_grids(cpu_features())
    packed, _ = pack_products(store_weights(decided, nothing).model, wide=wide)
    got = outputs(packed, {"x": np.ones((3, 96), np.float32)})["y"]
    np.testing.assert_allclose(got, 48.0, rtol=1e-2)


@pytest.mark.parametrize("label", LEFT)
def test_what_the_operator_does_not_compute_stays_as_it_was(label: str) -> None:
    model = stored(LEFT[label], STEPS["w8 channels"])
    packed, count = pack_products(model)
    assert count == 0
    assert packed.to_bytes() == model.to_bytes()


def test_names_and_types_are_kept_and_the_argument_too() -> None:
    model = stored(TEXTS["gemm"], STEPS["w4 blocks"])
    before = model.to_bytes()
    packed, _ = pack_products(model)
    assert model.to_bytes() == before
    assert [node.name for node in packed.nodes()] == ["Gemm_0"]
    output = packed.graph.graph.outputs[0]
    assert (output.name, list(output.shape or ())) == ("y", [3, 24])
    assert packed.graph.opset_imports["com.microsoft"] == 1


@pytest.mark.parametrize(("step", "kind"), [("w4 blocks", "int4 weights"),
                                            ("w8 blocks", "int8 weights")])  # fmt: skip
def test_what_runs_is_read_back(step: str, kind: str) -> None:
    files, count = build_packed(stored(TEXTS["gemm"], STEPS[step]), wide=True)
    assert count == 1
    assert executed_layers(files) == {kind: 1}
