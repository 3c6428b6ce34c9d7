from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgebm.errors import BackendFailed, BackendUnavailable
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.engines import (
    CPU_RUNTIMES,
    Buffers,
    Engine,
    aligned_empty,
    aligned_zeros,
    import_vendor,
    open_engine,
)
from edgebm.spec import EngineConfig, TensorSpec

DATA = Path(__file__).parents[2] / "device" / "data"
X = TensorSpec("x", "float32", (1, 8))


def onnx_bytes(text: str, **weights: np.ndarray[Any, Any]) -> bytes:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 18]> m {text}')
    for value in list(model.graph.inputs):
        if value.name in weights:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(weights[value.name], name=value.name)
            model.graph.register_initializer(value)
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def opened(bundle: Bundle, runtime: str, **config: Any) -> Engine:
    manifest = bundle.manifest
    variant = next(v for v in manifest.variants if v.runtime == runtime)
    return open_engine(
        runtime,
        bundle.files(variant),
        EngineConfig(**config),
        manifest.inputs,
        manifest.outputs,
    )


def qdq() -> bytes:
    """x -> Q -> DQ -> MatMul with a DQ weight -> Q -> DQ: one integer layer where it is fused."""
    return onnx_bytes(
        """(float[1,8] x, float s, uint8 z, int8[8,4] w, float ws, int8 wz) => (float[1,4] y)
        { q = QuantizeLinear(x, s, z)
          d = DequantizeLinear(q, s, z)
          dw = DequantizeLinear(w, ws, wz)
          m = MatMul(d, dw)
          mq = QuantizeLinear(m, s, z)
          y = DequantizeLinear(mq, s, z) }""",
        s=np.array(0.05, np.float32),
        z=np.array(128, np.uint8),
        w=np.arange(-16, 16, dtype=np.int8).reshape(8, 4),
        ws=np.array(0.01, np.float32),
        wz=np.array(0, np.int8),
    )


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_static_and_free_copies_give_the_same_answers(runtime: str) -> None:
    bundle = read_bundle(DATA / "tokens.edgebm")
    shapes = {"ids": (1, 4), "mask": (1, 4)}
    answers = []
    for config in ({}, {"static_shapes": (shapes,)}):
        request = opened(bundle, runtime, **config).request(shapes)
        request.inputs[0][...] = [[1, 2, 3, 4]]
        request.inputs[1][...] = 1
        request.infer()
        answers.append([np.array(y) for y in request.outputs])
    for first, second in zip(*answers, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_requests_are_bound_once_and_aligned(runtime: str) -> None:
    engine = opened(read_bundle(DATA / "image.edgebm"), runtime)
    first, second = (engine.request({"image": (1, 3, 4, 5)}) for _ in range(2))
    assert first.inputs[0].ctypes.data % 64 == 0
    assert first.fixed is not None
    assert first.outputs[0] is first.fixed[0]
    first.inputs[0][...], second.inputs[0][...] = 1, 2
    second.infer()
    kept = second.outputs[0].copy()
    first.infer()
    np.testing.assert_array_equal(second.outputs[0], kept)
    assert not np.array_equal(first.outputs[0], kept)


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_outputs_whose_shape_depends_on_values_follow_each_call(runtime: str) -> None:
    request = opened(read_bundle(DATA / "tokens.edgebm"), runtime).request(
        {"ids": (1, 3), "mask": (1, 3)}
    )
    assert request.fixed is None
    for mask in ([1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]):
        request.inputs[1][...] = mask
        request.infer()
        np.testing.assert_array_equal(request.outputs[1], np.nonzero([mask]))


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_outputs_come_in_the_order_of_the_face(runtime: str) -> None:
    model = onnx_bytes("(float[1,8] x) => (float[1,8] a, float[1,8] b) { a = Neg(x) b = Abs(x) }")
    face = [TensorSpec(name, "float32", (1, 8)) for name in ("b", "a")]
    request = open_engine(runtime, {"model.onnx": model}, EngineConfig(), [X], face).request(
        {"x": (1, 8)}
    )
    request.inputs[0][...] = 3
    request.infer()
    assert [float(y[0, 0]) for y in request.outputs] == [3, -3]


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_an_artifact_with_another_face_is_refused(runtime: str) -> None:
    model = onnx_bytes("(float[1,8] x) => (float[1,8] y) { y = Neg(x) }")
    other = TensorSpec("z", "float32", (1, 8))
    with pytest.raises(BackendFailed, match=r"no input \['z'\], it has \['x'\]"):
        open_engine(runtime, {"model.onnx": model}, EngineConfig(), [other], [X])
    with pytest.raises(BackendFailed, match=r"no output \['z'\], it has \['y'\]"):
        open_engine(runtime, {"model.onnx": model}, EngineConfig(), [X], [other])


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_a_refusal_of_the_vendor_is_wrapped_once(runtime: str) -> None:
    with pytest.raises(BackendFailed, match=f"{runtime} [0-9.]+ failed opening") as caught:
        open_engine(runtime, {"model.onnx": b"\x08\x0anonsense"}, EngineConfig(), [X], [X])
    assert caught.value.__cause__ is not None
    assert caught.value.exit_code == 5


@pytest.mark.row(62)
def test_openvino_says_which_layers_really_run_in_int8() -> None:
    y = TensorSpec("y", "float32", (1, 4))
    engine = open_engine("openvino", {"model.onnx": qdq()}, EngineConfig(), [X], [y])
    assert engine.executed().get("int8", 0) >= 1
    floats = opened(read_bundle(DATA / "image.edgebm"), "openvino")
    assert set(floats.executed()) == {"f32"}


def test_integer_dtypes_of_the_face_win_over_those_of_openvino() -> None:
    """OpenVINO may read an artifact with int32 ids: the caller's int64 goes in all the same."""
    model = onnx_bytes("(int32[n] x) => (int32[n] y) { y = Add(x, x) }")
    spec = [TensorSpec("x", "int64", ("n",))], [TensorSpec("y", "int64", ("n",))]
    request = open_engine("openvino", {"model.onnx": model}, EngineConfig(), *spec).request(
        {"x": (3,)}
    )
    assert request.inputs[0].dtype == np.int64
    request.inputs[0][...] = [1, -2, 3]
    request.infer()
    assert request.outputs[0].dtype == np.int64
    np.testing.assert_array_equal(request.outputs[0], [2, -4, 6])


@pytest.mark.parametrize("queries", ["1", "t"])
@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_one_query_over_many_keys_is_answered_right(runtime: str, queries: str) -> None:
    """OpenVINO 2026.4 fuses this attention wrongly from 16 keys on, without a word."""
    text = f"""(float[1,2,{queries},8] q, float[1,2,keys,8] k) => (float[1,2,{queries},8] y) {{
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        s = MatMul(q, kt)
        p = Softmax<axis = -1>(s)
        y = MatMul(p, k) }}"""
    rows = int(queries) if queries.isdigit() else queries
    query, key = (
        TensorSpec("q", "float32", (1, 2, rows, 8)),
        TensorSpec("k", "float32", (1, 2, "keys", 8)),
    )
    out = TensorSpec("y", "float32", query.shape)
    files = {"model.onnx": onnx_bytes(text)}
    engine = open_engine(runtime, files, EngineConfig(threads=1), [query, key], [out])
    rng = np.random.default_rng(4)
    for count in (1, 15, 16, 17, 40):
        request = engine.request({"q": (1, 2, 1, 8), "k": (1, 2, count, 8)})
        q, k = (rng.normal(size=x.shape).astype(np.float32) for x in request.inputs)
        request.inputs[0][...], request.inputs[1][...] = q, k
        request.infer()
        scores = np.exp(q @ k.transpose(0, 1, 3, 2))
        expected = scores / scores.sum(-1, keepdims=True) @ k
        np.testing.assert_allclose(request.outputs[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", CPU_RUNTIMES)
def test_a_request_uses_the_arrays_it_is_given(runtime: str) -> None:
    model = onnx_bytes("(float[n] x, float[n] h) => (float[n] y) { y = Add(x, h) }")
    x, h, y = (TensorSpec(name, "float32", ("n",)) for name in "xhy")
    engine = open_engine(runtime, {"model.onnx": model}, EngineConfig(threads=1), [x, h], [y])
    mine, answer, other = (aligned_zeros((3,), np.dtype(np.float32)) for _ in range(3))
    request = engine.request({"x": (3,), "h": (3,)}, Buffers({"h": mine}, {"y": answer}))
    assert request.inputs[1] is mine
    assert request.fixed == (answer,)
    request.inputs[0][...], mine[...], other[...] = 1, 2, 5
    request.infer()
    assert answer.tolist() == [3, 3, 3]
    request.bind(1, other)
    request.infer()
    assert answer.tolist() == [6, 6, 6]
    grown = engine.request({"x": (1,), "h": (1,)}, growing=True)
    longer = [aligned_zeros((size,), np.dtype(np.float32)) for size in (4, 4)]
    longer[1][...] = 7
    for index, array in enumerate(longer):
        grown.bind(index, array)
    grown.infer()
    assert grown.outputs[0].tolist() == [7, 7, 7, 7]


def test_onnxruntime_emulates_integer_layers_in_float() -> None:
    y = TensorSpec("y", "float32", (1, 4))
    config = EngineConfig(settings={"emulate": "1", "session.intra_op.allow_spinning": "0"})
    request = open_engine("onnxruntime", {"model.onnx": qdq()}, config, [X], [y]).request(
        {"x": (1, 8)}
    )
    x = np.linspace(-1, 1, 8, dtype=np.float32)
    request.inputs[0][...] = x
    request.infer()
    grid = np.round(x / 0.05) * 0.05
    weight = np.arange(-16, 16).reshape(8, 4) * 0.01
    expected = np.clip(np.round(grid @ weight / 0.05), -128, 127) * 0.05
    np.testing.assert_allclose(request.outputs[0][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("runtime", "setting"),
    [
        ("openvino", "CACHE_DIR"),
        ("openvino", "CPU_DENORMALS_OPTIMIZATION"),
        ("onnxruntime", "session.set_denormal_as_zero"),
    ],
)
def test_settings_that_reach_beyond_the_session_are_refused(runtime: str, setting: str) -> None:
    config = EngineConfig(settings={setting: "1", "profile": "1"})
    with pytest.raises(BackendFailed, match=f"does not hand on: {setting}$"):
        open_engine(runtime, {"model.onnx": qdq()}, config, [X], [X])


@pytest.mark.row(62)
def test_onnxruntime_has_no_bf16_on_x86() -> None:
    model = onnx_bytes("(float[1,8] x) => (float[1,8] y) { y = Neg(x) }")
    config = EngineConfig(precision="f16")
    with pytest.raises(BackendFailed, match="no float precision 'f16'"):
        open_engine("onnxruntime", {"model.onnx": model}, config, [X], [X])


@pytest.mark.row(56)
def test_a_runtime_nobody_knows_and_one_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match="no engine for the runtime 'tflite'"):
        open_engine("tflite", {}, EngineConfig(), [X], [X])
    with pytest.raises(BackendUnavailable, match="surely_missing is not installed") as caught:
        import_vendor("surely_missing")
    assert caught.value.hint == "pip install 'edgebm[surely_missing]'"
    assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"]


@pytest.mark.row(56)
def test_a_package_that_breaks_while_loading_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_vendor.py").write_text("raise OSError('libfoo.so.1: no such file')")
    (tmp_path / "needy_vendor.py").write_text("import surely_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"does not load: OSError: libfoo\.so\.1"):
        import_vendor("broken_vendor")
    with pytest.raises(BackendUnavailable, match="lacks a package: .*surely_missing"):
        import_vendor("needy_vendor")


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5)])
def test_aligned_arrays_have_the_shape_asked_for(shape: tuple[int, ...]) -> None:
    array = aligned_empty(shape, np.dtype(np.float64))
    assert array.shape == shape
    assert array.ctypes.data % 64 == 0 or array.size == 0
    assert array.flags.c_contiguous


@pytest.mark.row(46)
def test_ctrl_c_is_only_ctrl_c_after_sessions_closed_in_the_order_they_were_opened() -> None:
    code = f"""
import gc, os, signal
import edgebm
signal.signal(signal.SIGINT, signal.default_int_handler)
path = {str(next(iter(sorted(DATA.glob("*.edgebm")))))!r}
sessions = [edgebm.load(path, target="openvino") for _ in range(2)]
while sessions:
    sessions.pop(0).close()
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
