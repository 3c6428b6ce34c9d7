"""Weights as integers on the real engines, as the device runs them.

Asked of every case: the engine computes with the values of the integers (exactly, where nothing
rounds its inputs), and says itself whether it multiplied from integers or unpacked them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from graphs import Feeds, face, nothing, outputs, parse, random_model, samples, sqnr_db

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends.dialects import EXACT, cpu_grids
from edgebm.errors import BackendFailed
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.runtime.cpu import cpu_features
from edgebm.runtime.engines import open_engine
from edgebm.search.build import build_weight_only
from edgebm.search.candidates import Artifact
from edgebm.spec import EngineConfig

GRIDS = cpu_grids(cpu_features())
EXACT_DB, ROUNDED_DB = 100.0, 35.0


@dataclass(frozen=True)
class Case:
    """A graph, its weights, and what OpenVINO multiplies from integers at 4 bits."""

    text: str
    shapes: dict[str, tuple[int, ...]]
    openvino: dict[str, int]


CASES = {
    "matmul": Case(
        "(float[4,64] x) => (float[4,48] y) { y = MatMul(x, w) }",
        {"w": (64, 48)},
        {"int4 weights": 1},
    ),
    "matmul of three axes": Case(
        "(float[1,6,64] x) => (float[1,6,48] y) { y = MatMul(x, w) }",
        {"w": (64, 48)},
        {"int4 weights": 1},
    ),
    "gemm": Case(
        "(float[4,64] x) => (float[4,48] y) { y = Gemm(x, w, b) }",
        {"w": (64, 48), "b": (48,)},
        {"int4 weights": 1},
    ),
    "gemm transB": Case(
        "(float[4,64] x) => (float[4,48] y) { y = Gemm<transB=1>(x, w, b) }",
        {"w": (48, 64), "b": (48,)},
        {"int4 weights": 1},
    ),
    "two layers": Case(
        "(float[4,64] x) => (float[4,32] y) { h = MatMul(x, w)\n r = Relu(h)\n y = MatMul(r, u) }",
        {"w": (64, 96), "u": (96, 32)},
        {"int4 weights": 2},
    ),
    "one weight for two layers": Case(
        "(float[4,64] x) => (float[4,64] y) { h = MatMul(x, w)\n y = MatMul(h, w) }",
        {"w": (64, 64)},
        {"int4 weights": 2},
    ),
    "one weight along two axes": Case(
        "(float[4,64] x) => (float[4,64] y) { h = MatMul(x, w)\n y = Gemm<transB=1>(h, w) }",
        {"w": (64, 64)},
        {"int4 weights": 2},
    ),
    "odd channels": Case(
        "(float[4,65] x) => (float[4,33] y) { y = MatMul(x, w) }",
        {"w": (65, 33)},
        {"int8 weights": 1},
    ),
    "odd outputs": Case(
        "(float[4,64] x) => (float[4,33] y) { y = MatMul(x, w) }",
        {"w": (64, 33)},
        {"int4 weights": 1},
    ),
    "embedding": Case(
        "(int64[1,8] x) => (float[1,8,48] y) { e = Gather(table, x)\n y = MatMul(e, w) }",
        {"table": (300, 32), "w": (32, 48)},
        {"int4 weights": 1},
    ),
    "embedding alone": Case(
        "(int64[1,8] x) => (float[1,8,32] y) { y = Gather(table, x) }", {"table": (300, 32)}, {}
    ),
    "conv": Case(
        "(float[1,16,9,9] x) => (float[1,32,7,7] y) { y = Conv(x, w, b) }",
        {"w": (32, 16, 3, 3), "b": (32,)},
        {},
    ),
    "transposed": Case(
        "(float[1,16,5,5] x) => (float[1,16,7,7] y) { y = ConvTranspose(x, w) }",
        {"w": (16, 16, 3, 3)},
        {},
    ),
    "stack": Case(
        "(float[3,6,64] x) => (float[3,6,32] y) { y = MatMul(x, w) }", {"w": (3, 64, 32)}, {}
    ),
    "LSTM": Case(
        "(float[6,1,32] x) => (float[6,1,1,32] y) { y = LSTM<hidden_size=32>(x, w, r, b) }",
        {"w": (1, 128, 32), "r": (1, 128, 32), "b": (1, 256)},
        {},
    ),
    "GRU": Case(
        "(float[6,1,32] x) => (float[6,1,1,32] y)"
        " { y = GRU<hidden_size=32, linear_before_reset=1>(x, w, r, b) }",
        {"w": (1, 96, 32), "r": (1, 96, 32), "b": (1, 192)},
        {},
    ),
    "RNN": Case(
        "(float[6,1,64] x) => (float[6,1,1,32] y) { y = RNN<hidden_size=32>(x, w, r, b) }",
        {"w": (1, 32, 64), "r": (1, 32, 32), "b": (1, 64)},
        {},
    ),
}


def built(model: Model, runtime: str, bits: int) -> list[Artifact]:
    step = QuantizeWeightsOnly(bits=bits, block_size=32)  # type: ignore[arg-type]
    decided, _ = run_passes(model, [step], Context())
    made = build_weight_only(decided, runtime, GRIDS, nothing)
    assert not [each for each in made if isinstance(each, BackendFailed)]
    return [each for each in made if isinstance(each, Artifact)]


def run(artifact: Artifact, model: Model, feeds: Feeds) -> tuple[np.ndarray, dict[str, int]]:  # type: ignore[type-arg]
    shown = face(model)
    config = EngineConfig(threads=1, settings=dict(artifact.settings))
    engine = open_engine(artifact.runtime, artifact.files, config, shown.inputs, shown.outputs)
    request = engine.request({name: value.shape for name, value in feeds.items()})
    for buffer, spec in zip(request.inputs, shown.inputs, strict=True):
        np.copyto(buffer, feeds[spec.name])
    request.infer()
    got, layers = np.array(request.outputs[0]), engine.executed()
    engine.close()
    if artifact.runtime == "onnxruntime":
        layers = onnxruntime_backend.executed_layers(dict(artifact.files), artifact.settings)
    return got, layers


def rounds_inputs(artifact: Artifact) -> bool:
    return artifact.kind.endswith(("-packed", "-rounded", "-dynamic", "-cells"))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("label", CASES)
def test_every_artifact_computes_with_the_integers(label: str, runtime: str, bits: int) -> None:
    case = CASES[label]
    model = random_model(f"g {case.text}", **case.shapes)
    feeds = next(iter(samples(model, 1, seed=7, rows=300).feeds()))
    artifacts = built(model, runtime, bits)
    assert artifacts, "weights are stored, whatever multiplies them"
    want = outputs(artifacts[0].lowered, feeds)["y"]
    assert sqnr_db(outputs(model, feeds)["y"], want) > (12 if bits == 4 else 35)
    for artifact in artifacts:
        got, layers = run(artifact, model, feeds)
        assert got.shape == want.shape
        least = ROUNDED_DB if rounds_inputs(artifact) else EXACT_DB
        assert sqnr_db(want, got) >= least, artifact.kind
        if runtime == "openvino":
            for kind, count in case.openvino.items():
                told = kind if bits == 4 else "int8 weights"
                assert layers.get(told, 0) == count, artifact.kind
        elif artifact.kind.endswith("-packed"):
            assert layers.get(f"int{bits} weights", 0) >= 1
        elif not rounds_inputs(artifact):
            assert set(layers) <= {"f32"}, "ONNX Runtime unpacks them when it loads"


def test_openvino_rounds_inputs_only_in_the_artifact_that_says_so() -> None:
    case = CASES["matmul"]
    model = random_model(f"g {case.text}", **case.shapes)
    feeds = next(iter(samples(model, 1, seed=7).feeds()))
    found = {each.kind: each for each in built(model, "openvino", 4)}
    assert set(found) == ({"w4", "w4-rounded"} if EXACT in GRIDS else {"w4"})
    assert all(each.files == found["w4"].files for each in found.values())
    want = outputs(found["w4"].lowered, feeds)["y"]
    assert sqnr_db(want, run(found["w4"], model, feeds)[0]) >= EXACT_DB
    if "w4-rounded" in found:
        assert sqnr_db(want, run(found["w4-rounded"], model, feeds)[0]) < EXACT_DB


def test_sizes_are_those_of_the_integers() -> None:
    model = random_model(
        "g (float[4,256] x) => (float[4,256] y) { h = MatMul(x, w)\n y = MatMul(h, u) }",
        w=(256, 256),
        u=(256, 256),
    )
    for runtime in ("onnxruntime", "openvino"):
        for bits, share in ((4, 0.18), (8, 0.31)):
            for artifact in built(model, runtime, bits):
                weights = max(map(len, artifact.files.values()))
                assert weights < share * 2 * 256 * 256 * 4, artifact.kind


def test_half_precision_models_are_left_as_they_are() -> None:
    model = parse(
        "g (float16[4,64] x) => (float16[4,48] y) { y = MatMul(x, w) }",
        w=np.ones((64, 48), np.float16),
    )
    for runtime in ("onnxruntime", "openvino"):
        assert built(model, runtime, 4) == []


def test_an_embedding_that_is_unpacked_is_no_integer_layer() -> None:
    case = CASES["embedding"]
    model = random_model(f"g {case.text}", **case.shapes)
    feeds = next(iter(samples(model, 1, seed=7, rows=300).feeds()))
    for artifact in built(model, "openvino", 4):
        _, layers = run(artifact, model, feeds)
        assert "int8" not in layers
        assert layers["int4 weights"] == 1
