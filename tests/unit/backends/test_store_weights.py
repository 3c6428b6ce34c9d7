"""Decisions on weights as integers behind DequantizeLinear."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import nothing, outputs, random_model, samples

from edgebm.backends.weight_only import Stored, store_weights
from edgebm.exec.collect import FloatRunner
from edgebm.ir.annotate import quant_of
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.quant.params import fake_quantize

TEXTS = {
    "matmul": ("(float[2,64] x) => (float[2,33] y) { y = MatMul(x, w) }", {"w": (64, 33)}, 4),
    "gemm": (
        "(float[2,64] x) => (float[2,24] y) { y = Gemm<transB=1>(x, w) }",
        {"w": (24, 64)},
        4,
    ),
    "odd": ("(float[2,65] x) => (float[2,33] y) { y = MatMul(x, w) }", {"w": (65, 33)}, 8),
    "conv": ("(float[1,16,9] x) => (float[1,32,7] y) { y = Conv(x, w) }", {"w": (32, 16, 3)}, 8),
    "table": ("(int64[2,3] x) => (float[2,3,32] y) { y = Gather(w, x) }", {"w": (64, 32)}, 8),
    "lstm": (
        "(float[6,1,16] x) => (float[6,1,1,32] y) { y = LSTM<hidden_size=32>(x, w, r) }",
        {"w": (1, 128, 16), "r": (1, 128, 32)},
        8,
    ),
}


def decided(text: str, shapes: dict[str, tuple[int, ...]], bits: int = 4) -> Model:
    step = QuantizeWeightsOnly(bits=bits, block_size=32)  # type: ignore[arg-type]
    return run_passes(random_model(f"g {text}", **shapes), [step], Context())[0]


def stored(label: str, bits: int = 4) -> tuple[Model, Stored]:
    text, shapes, _ = TEXTS[label]
    model = decided(text, shapes, bits)
    return model, store_weights(model, nothing)


@pytest.mark.parametrize("label", TEXTS)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_file_computes_with_the_decided_values(label: str, bits: int) -> None:
    model, made = stored(label, bits)
    assert list(made.bits.values()) == [TEXTS[label][2] if bits == 4 else 8]
    assert made.reasons == {}
    want = model.clone()
    for value in want.graph.graph.initializers.values():
        params, array = quant_of(value), const(value)
        if params is not None and array is not None:
            value.const_value = ir.tensor(fake_quantize(array, params), name=value.name)
    feeds = next(iter(samples(model, 1).feeds()))
    got = FloatRunner(made.model, ["y"], plain=True).run(feeds)["y"]
    np.testing.assert_allclose(got, outputs(want, feeds)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", TEXTS)
def test_it_is_valid_onnx_of_opset_21_without_the_float_weights(label: str) -> None:
    model, made = stored(label)
    proto = onnx.load(io.BytesIO(made.model.to_bytes()))
    onnx.checker.check_model(proto, full_check=True)
    assert {o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")} == {21}
    floats = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    largest = max((np.prod(t.dims) for t in floats), default=0)
    assert largest < min(np.prod(shape) for shape in TEXTS[label][1].values())
    assert len(made.model.to_bytes()) < len(model.to_bytes())


def test_two_bytes_hold_four_integers_of_four_bits() -> None:
    model, made = stored("matmul")
    held = {name: v.const_value for name, v in made.model.graph.graph.initializers.items()}
    assert held["w.q"] is not None
    assert held["w.q"].nbytes == 64 * 33 // 2
    assert held["w.zero_point"] is not None
    assert held["w.zero_point"].nbytes == 33
    assert len(made.model.to_bytes()) < 0.25 * len(model.to_bytes())


def test_the_graph_that_was_decided_on_is_not_changed() -> None:
    text, shapes, _ = TEXTS["matmul"]
    model = decided(text, shapes)
    before = model.to_bytes()
    store_weights(model, nothing)
    assert model.to_bytes() == before


def test_readers_of_one_weight_share_its_integers() -> None:
    model = decided(
        "(float[2,64] x) => (float[2,64] y) { h = MatMul(x, w)\n y = MatMul(h, w) }",
        {"w": (64, 64)},
    )
    made = store_weights(model, nothing)
    assert sum(node.op_type == "DequantizeLinear" for node in made.model.nodes()) == 1
    assert made.bits == {"MatMul_0": 4, "MatMul_1": 4}


def test_every_other_layer_says_why_it_is_float() -> None:
    model = decided(
        """(float[1,6,64] x, int64[1,6] ids) => (float[1,6,6] y, float[1,6,4] z, float[1,6,32] e) {
          [proj] k = MatMul(x, w)
          [tiny] z = MatMul(x, v)
          t = Transpose<perm=[0,2,1]>(k)
          [scores] y = MatMul(k, t)
          [words] e = Gather(table, ids)
        }""",
        {"w": (64, 64), "v": (64, 4), "table": (64, 32)},
    )
    made = store_weights(model, lambda name, op: name in ("proj", "words"))
    assert made.bits == {}
    assert made.reasons == {
        "proj": "it is on the ignored list",
        "words": "it is on the ignored list",
        "tiny": "its weight was not quantized",
        "scores": "it has no weight",
    }
    assert made.model.graph.opset_imports[""] == 20
