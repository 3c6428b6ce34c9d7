"""ONNX Runtime on the CPU, called through IO binding."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BackendFailed
from edgebm.runtime.cpu import arch
from edgebm.runtime.engines import (
    OWN,
    Arrays,
    Buffers,
    Files,
    Request,
    aligned_empty,
    aligned_zeros,
    check_face,
    import_vendor,
    shape_key,
    vendor_error,
)
from edgebm.spec import EngineConfig, Shapes, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
_TIMED = "_kernel_time"  # how its profile marks a node's own time
_BF16_KEY = "mlas.enable_gemm_fastmath_arm64_bfloat16"


class OnnxRuntimeEngine:
    """`model.onnx` as one session for free shapes and one for each static set."""

    runtime = "onnxruntime"
    device = ""

    def __init__(
        self,
        files: Files,
        config: EngineConfig,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._ort = import_vendor("onnxruntime")
        self.version = str(self._ort.__version__)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._name = f"onnxruntime {self.version}"
        self._config = config
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        model = files["model.onnx"]
        self._free = self._open(model, {})
        self._check(self._free)
        self._static = {
            shape_key(shapes, inputs): self._open(model, _axis_sizes(shapes, inputs))
            for shapes in config.static_shapes
        }

    def request(self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False) -> Request:
        static = None if growing else self._static.get(shape_key(shapes, self._inputs))
        try:
            return _Request(self, static or self._free, shapes, buffers)
        except Exception as cause:
            raise vendor_error(self._name, f"binding {dict(shapes)}", cause) from cause

    def executed(self) -> dict[str, int]:
        """Empty: the runtime tells what it really runs only in a profile file."""
        return {}

    def cells(self) -> dict[str, str]:
        """Empty, as `executed`."""
        return {}

    def left_float(self) -> tuple[str, ...]:
        """Empty: what is meant for int8 shows in `executed` alone."""
        return ()

    def profile(self, request: Request, calls: int) -> dict[str, float]:
        assert isinstance(request, _Request)
        for _ in range(calls):
            request.infer()
        path = Path(request.session.end_profiling())
        times: dict[str, list[float]] = {}
        for event in json.loads(path.read_text(encoding="utf-8")):
            if event.get("cat") == "Node" and event["name"].endswith(_TIMED):
                times.setdefault(event["name"].removesuffix(_TIMED), []).append(event["dur"])
        return {label: statistics.median(each) for label, each in times.items()}

    def export(self) -> None:
        """None: nothing of what ONNX Runtime makes of an artifact is kept."""

    def close(self) -> None:
        self._free = None
        self._static = {}

    def _open(self, model: bytes, sizes: Mapping[str, int]) -> Any:
        options = self._options()
        for axis, size in sizes.items():
            options.add_free_dimension_override_by_name(axis, size)
        try:
            return self._ort.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as cause:
            raise vendor_error(self._name, "opening model.onnx", cause) from cause

    def _options(self) -> Any:
        ort, config = self._ort, self._config
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        settings = dict(config.settings)
        # Without fusion the integer layers are computed in float, as the Q/DQ nodes say: the
        # answers of a processor with wider integer instructions than this one.
        if settings.pop("profile", "0") == "1":
            self._scratch = tempfile.TemporaryDirectory(prefix="edgebm-")
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._scratch.name) / "layers")
        if settings.pop("emulate", "0") == "1":
            settings["session.disable_quant_qdq"] = "1"
        if config.precision == "bf16" and arch() == "aarch64":
            settings[_BF16_KEY] = "1"
        elif config.precision != "f32":
            raise BackendFailed(f"{self._name} has no float precision {config.precision!r} here")
        for key, value in settings.items():
            options.add_session_config_entry(key, value)
        return options

    def _check(self, session: Any) -> None:
        found = {arg.name: arg.type for arg in (*session.get_inputs(), *session.get_outputs())}
        check_face(self._name, "input", self._inputs, [a.name for a in session.get_inputs()])
        check_face(self._name, "output", self._outputs, [a.name for a in session.get_outputs()])
        wrong = [
            f"{spec} is {found[spec.name]}"
            for spec in (*self._inputs, *self._outputs)
            if _DTYPES.get(found[spec.name]) != spec.dtype
        ]
        if wrong:
            raise BackendFailed(f"{self._name}: the artifact has other dtypes: {'; '.join(wrong)}")


class _Request:
    __slots__ = (
        "_binding", "_free", "_made", "_name", "_options", "_ports", "_run", "fixed", "inputs",
        "session",
    )  # fmt: skip

    def __init__(
        self, engine: OnnxRuntimeEngine, session: Any, shapes: Shapes, buffers: Buffers
    ) -> None:
        self._name = engine._name  # noqa: SLF001 - one module
        self.session = session
        self._binding = session.io_binding()
        self._ports = [spec.name for spec in engine._inputs]  # noqa: SLF001
        self.inputs: Arrays = tuple(
            buffers.inputs[spec.name]
            if spec.name in buffers.inputs
            else aligned_zeros(shapes[spec.name], np.dtype(spec.dtype))
            for spec in engine._inputs  # noqa: SLF001
        )
        for index, array in enumerate(self.inputs):
            self._bind_input(index, array)
        known = {arg.name: arg.shape for arg in session.get_outputs()}
        self._made: list[Any] = []
        self._free: list[tuple[int, str]] = []
        for index, spec in enumerate(engine._outputs):  # noqa: SLF001
            self._bind_output(index, spec, known[spec.name], buffers.outputs.get(spec.name))
        self._options = engine._ort.RunOptions()  # noqa: SLF001
        self._run = _bare_run(session, self._binding, self._options)
        self.fixed: Arrays | None = None if self._free else tuple(self._made)

    def _bind_input(self, index: int, array: NDArray[Any]) -> None:
        kind, pointer = array.dtype.type, array.ctypes.data
        self._binding.bind_input(self._ports[index], "cpu", 0, kind, array.shape, pointer)

    def _bind_output(
        self, index: int, spec: TensorSpec, shape: Sequence[Any], given: NDArray[Any] | None
    ) -> None:
        # A rank-0 output and one of unknown rank both show an empty shape; the face decides.
        known = all(isinstance(dim, int) for dim in shape) and len(shape) == len(spec.shape)
        if given is not None or known:
            array = aligned_empty(shape, np.dtype(spec.dtype)) if given is None else given
            pointer = array.ctypes.data
            self._binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, pointer)
            self._made.append(array)
        else:
            self._binding.bind_output(spec.name, "cpu")
            self._made.append(None)
            self._free.append((index, spec.name))

    @property
    def outputs(self) -> Arrays:
        if self.fixed is not None:
            return self.fixed
        values = self._binding.get_outputs()
        return tuple(
            values[index].numpy() if array is None else array
            for index, array in enumerate(self._made)
        )

    carry = None  # its memory is the host's

    def bind(self, index: int, array: NDArray[Any]) -> None:
        try:
            self._bind_input(index, array)
        except Exception as cause:
            raise vendor_error(self._name, f"binding {self._ports[index]}", cause) from cause
        self.inputs = (*self.inputs[:index], array, *self.inputs[index + 1 :])

    def cancel(self) -> None:
        self._options.terminate = True

    def infer(self) -> None:
        try:
            # An output that ONNX Runtime allocated stays bound and must not be written again: its
            # size was that of the last call.
            for _, name in self._free:
                self._binding.bind_output(name, "cpu")
            self._run()
        except Exception as cause:
            raise vendor_error(self._name, "running", cause) from cause


def _bare_run(session: Any, binding: Any, options: Any) -> Callable[[], Any]:
    """`session.run_with_iobinding` below its checks for GPUs, which cost a microsecond."""
    native = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    bound = getattr(binding, "_iobinding", None)
    if native is None or bound is None:
        return partial(session.run_with_iobinding, binding, options)
    return partial(native, bound, options)


def _axis_sizes(shapes: Shapes, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    return {
        dim: size
        for spec in inputs
        for dim, size in zip(spec.shape, shapes[spec.name], strict=True)
        if isinstance(dim, str)
    }
