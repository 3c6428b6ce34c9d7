"""The CUDA provider of ONNX Runtime, as far as a machine without a GPU can tell.

What ran where is read from real profiles; `OnProcessor` is the engine with the CPU's provider in
the place of CUDA's, and nothing else changed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from test_engines import X, onnx_bytes

from edgebm.errors import BackendFailed, BackendUnavailable
from edgebm.runtime.engines import PROFILE, open_engine
from edgebm.runtime.engines.onnxruntime_cuda import (
    PROVIDER,
    OnnxRuntimeCudaEngine,
    judged,
    require_build,
)
from edgebm.runtime.engines.onnxruntime_nodes import NodeRun, elsewhere, layers, node_runs
from edgebm.runtime.engines.vendors import installed_versions, usable_version
from edgebm.spec import EngineConfig, TensorSpec

WITH_CUDA = PROVIDER in ort.get_available_providers()
Y = TensorSpec("y", "float32", (1, 4))
W = np.arange(32, dtype=np.float32).reshape(8, 4)
needs_cpu_package = pytest.mark.skipif(WITH_CUDA, reason="the package here has CUDA")


class OnProcessor(OnnxRuntimeCudaEngine):
    provider = "CPUExecutionProvider", {}

    def _gpu(self) -> str:
        return "the processor"


def product() -> dict[str, bytes]:
    text = "(float[1,8] x, float[8,4] w) => (float[1,4] y) { a = MatMul(x, w) y = Relu(a) }"
    return {"model.onnx": onnx_bytes(text, w=W)}


def free_product() -> dict[str, bytes]:
    """Its shape is computed, too: x [n, 8] is flattened and comes back."""
    text = """(float[n,8] x, float[8,4] w, int64[1] flat) => (float[n,4] y)
        { s = Shape(x) f = Reshape(x, flat) b = Reshape(f, s) y = MatMul(b, w) }"""
    return {"model.onnx": onnx_bytes(text, w=W, flat=np.array([-1]))}


def profiled(model: bytes, tmp_path: Path, **feeds: np.ndarray[Any, Any]) -> list[NodeRun]:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "p")
    # As the graph says: nothing is fused or folded away.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    return node_runs(session.end_profiling())


@needs_cpu_package
def test_the_package_for_the_cpu_is_refused_with_what_to_do() -> None:
    with pytest.raises(BackendUnavailable, match="made without CUDA") as caught:
        require_build(ort)
    assert "pip uninstall onnxruntime" in caught.value.hint
    with pytest.raises(BackendUnavailable) as opened:
        open_engine("onnxruntime-cuda", product(), EngineConfig(), (X,), (Y,))
    with pytest.raises(BackendUnavailable) as asked:
        usable_version("onnxruntime-cuda")
    assert str(opened.value) == str(asked.value)
    assert opened.value.hint


@needs_cpu_package
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_package_for_the_cpu_would_carry_on_silently() -> None:
    session = ort.InferenceSession(product()["model.onnx"], providers=[PROVIDER])
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_settings_of_the_cpu_are_not_handed_on() -> None:
    config = EngineConfig(settings={"emulate": "1"})
    with pytest.raises(BackendFailed, match="settings"):
        open_engine("onnxruntime-cuda", product(), config, (X,), (Y,))


def test_a_profile_tells_what_ran_where_and_in_what(tmp_path: Path) -> None:
    runs = profiled(product()["model.onnx"], tmp_path, x=np.zeros((1, 8), np.float32))
    assert [run.op for run in runs] == ["MatMul", "Relu"]
    assert runs[0].provider == "CPUExecutionProvider"
    assert (runs[0].outputs, runs[0].elements) == (("float",), 4)
    assert layers(runs) == {"f32": 2}
    assert elsewhere(runs, "CPUExecutionProvider") == []


def test_a_product_on_the_processor_is_an_error_that_names_it(tmp_path: Path) -> None:
    runs = profiled(product()["model.onnx"], tmp_path, x=np.zeros((1, 8), np.float32))
    with pytest.raises(BackendFailed, match="computes them on the processor: MatMul") as caught:
        judged("onnxruntime-cuda 1", runs)
    assert caught.value.details["layers"] == [runs[0].label]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_cell_on_the_processor_is_an_error(op: str, tmp_path: Path) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    text = f"""(float[3,1,2] x, float[1,{gates * 2},2] w, float[1,{gates * 2},2] r)
        => (float[3,1,1,2] y) {{ y = {op} <hidden_size = 2> (x, w, r) }}"""
    weights = np.ones((1, gates * 2, 2), np.float32)
    model = onnx_bytes(text, w=weights, r=weights)
    with pytest.raises(BackendFailed, match=op):
        judged("cuda", profiled(model, tmp_path, x=np.zeros((3, 1, 2), np.float32)))


def test_shapes_on_the_processor_are_as_they_should_be_and_data_is_named(tmp_path: Path) -> None:
    text = """(float[n,40] x, float[1] two) => (float[n,40] y, int64[1] last)
        { s = Shape(x) at = Constant <value_ints = [1]> () last = Gather(s, at)
          half = Cast <to = 1> (last) twice = Mul(half, two) y = Softplus(x) }"""
    model = onnx_bytes(text, two=np.array([2], np.float32))
    runs = profiled(model, tmp_path, x=np.zeros((2, 40), np.float32))
    assert {"Shape", "Gather", "Cast", "Mul", "Softplus"} <= {run.op for run in runs}
    (warning,) = judged("cuda", runs)
    assert "Softplus" in warning
    assert all(op not in warning for op in ("Shape", "Gather", "Cast", "Mul"))


def test_integer_layers_are_counted_as_such(tmp_path: Path) -> None:
    text = """(uint8[1,8] q, uint8[8,4] w) => (int32[1,4] y) { y = MatMulInteger(q, w) }"""
    model = onnx_bytes(text, w=W.astype(np.uint8))
    runs = profiled(model, tmp_path, q=np.ones((1, 8), np.uint8))
    assert layers(runs) == {"int8": 1}


def test_the_engine_answers_and_tells_what_ran() -> None:
    engine = OnProcessor(product(), EngineConfig(precision="f16"), (X,), (Y,))
    assert engine.device == "the processor"
    assert sum(engine.executed().values()) >= 1
    assert engine.warnings == ()
    request = engine.request({"x": (1, 8)})
    request.inputs[0][...] = 1
    request.infer()
    np.testing.assert_allclose(request.outputs[0][0], W.sum(axis=0))
    with pytest.raises(BackendFailed, match="'bf16'"):
        OnProcessor(product(), EngineConfig(precision="bf16"), (X,), (Y,))


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(),
        EngineConfig(axes={"n": (1, 3, 9)}),
        EngineConfig(static_shapes=({"x": (5, 8)},)),
    ],
    ids=["size 1", "usual size", "static"],
)
def test_free_axes_have_a_size_for_the_run_that_is_looked_at(config: EngineConfig) -> None:
    inputs = (TensorSpec("x", "float32", ("n", 8)),)
    engine = OnProcessor(free_product(), config, inputs, (TensorSpec("y", "float32", ("n", 4)),))
    for count in (5, 7):
        request = engine.request({"x": (count, 8)})
        request.inputs[0][...] = 1
        request.infer()
        np.testing.assert_allclose(request.outputs[0], np.tile(W.sum(axis=0), (count, 1)))


def test_layers_are_timed_where_that_was_asked_for() -> None:
    engine = OnProcessor(product(), EngineConfig(settings=PROFILE), (X,), (Y,))
    times = engine.profile(engine.request({"x": (1, 8)}), 3)
    assert times
    assert all(taken_us >= 0 for taken_us in times.values())
    engine.close()


def test_versions_are_those_of_what_is_installed() -> None:
    found = installed_versions()
    assert found["onnxruntime"] == ort.__version__
    assert ("tensorrt" in found) == (find_spec("tensorrt") is not None)
