"""ONNX Runtime on the CPU, called through IO binding."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgebm.errors import BackendFailed
from edgebm.runtime.cpu import arch
from edgebm.runtime.engines import (
    OWN,
    Buffers,
    Files,
    Request,
    check_face,
    shape_key,
    vendor_error,
)
from edgebm.runtime.engines.onnxruntime_nodes import node_runs
from edgebm.runtime.engines.onnxruntime_request import OnnxRuntimeRequest
from edgebm.runtime.engines.vendors import import_runtime
from edgebm.spec import EngineConfig, Shapes, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
_BF16_KEY = "mlas.enable_gemm_fastmath_arm64_bfloat16"


class OnnxRuntimeEngine:
    """`model.onnx` as one session for free shapes and one for each static set."""

    runtime = "onnxruntime"
    device = ""
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        files: Files,
        config: EngineConfig,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._ort = import_runtime(self.runtime)
        self.version = str(self._ort.__version__)
        self._face = tuple(inputs), tuple(outputs)
        self._name = f"{self.runtime} {self.version}"
        self._config = config
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        model = files["model.onnx"]
        self._free = self._open(model, None)
        self._static = {
            shape_key(shapes, inputs): self._open(model, shapes) for shapes in config.static_shapes
        }

    def request(self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False) -> Request:
        static = None if growing else self._static.get(shape_key(shapes, self._face[0]))
        return self._request(static or self._free, shapes, buffers)

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
        assert isinstance(request, OnnxRuntimeRequest)
        for _ in range(calls):
            request.infer()
        times: dict[str, list[float]] = {}
        for run in node_runs(request.session.end_profiling()):
            times.setdefault(run.label, []).append(run.taken_us)
        return {label: statistics.median(each) for label, each in times.items()}

    def export(self) -> None:
        """None: nothing of what ONNX Runtime makes of an artifact is kept."""

    def close(self) -> None:
        self._free = None
        self._static = {}
        if self._scratch is not None:
            self._scratch.cleanup()

    def _request(self, session: Any, shapes: Shapes, buffers: Buffers = OWN) -> OnnxRuntimeRequest:
        try:
            options = self._ort.RunOptions()
            return OnnxRuntimeRequest(self._name, session, options, self._face, shapes, buffers)
        except Exception as cause:
            raise vendor_error(self._name, f"binding {dict(shapes)}", cause) from cause

    def _open(self, model: bytes, shapes: Shapes | None) -> Any:
        """A session for inputs of these shapes, or of any."""
        if self._is_timed():
            self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="edgebm-")
            return self._session(model, shapes, self._scratch.name)
        return self._session(model, shapes)

    def _is_timed(self) -> bool:
        return self._config.settings.get("profile", "0") == "1"

    def _session(self, model: bytes, shapes: Shapes | None, folder: str = "") -> Any:
        """As `_open`; one that keeps a profile of its runs if there is a `folder` for it."""
        options, providers = self._options(), self._providers()
        if folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "layers")
        for axis, size in _axis_sizes(shapes, self._face[0]).items():
            options.add_free_dimension_override_by_name(axis, size)
        try:
            session = self._ort.InferenceSession(
                model, sess_options=options, providers=providers, enable_fallback=0
            )
        except Exception as cause:
            raise vendor_error(self._name, "opening model.onnx", cause) from cause
        self._check(session)
        return session

    def _providers(self) -> list[Any]:
        """Whose kernels may compute, the first first."""
        return ["CPUExecutionProvider"]

    def _options(self) -> Any:
        ort, config = self._ort, self._config
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        settings = {key: value for key, value in config.settings.items() if key != "profile"}
        # Without fusion the integer layers are computed in float, as the Q/DQ nodes say: the
        # answers of a processor with wider integer instructions than this one.
        if settings.pop("emulate", "0") == "1":
            settings["session.disable_quant_qdq"] = "1"
        for key, value in {**settings, **self._precision()}.items():
            options.add_session_config_entry(key, value)
        return options

    def _precision(self) -> Mapping[str, str]:
        """The settings that make float layers compute in what is asked for.

        Raises:
            BackendFailed: they cannot.
        """
        precision = self._config.precision
        if precision == "bf16" and arch() == "aarch64":
            return {_BF16_KEY: "1"}
        if precision != "f32":
            raise BackendFailed(f"{self._name} has no float precision {precision!r} here")
        return {}

    def _check(self, session: Any) -> None:
        inputs, outputs = self._face
        found = {arg.name: arg.type for arg in (*session.get_inputs(), *session.get_outputs())}
        check_face(self._name, "input", inputs, [a.name for a in session.get_inputs()])
        check_face(self._name, "output", outputs, [a.name for a in session.get_outputs()])
        wrong = [
            f"{spec} is {found[spec.name]}"
            for spec in (*inputs, *outputs)
            if _DTYPES.get(found[spec.name]) != spec.dtype
        ]
        if wrong:
            raise BackendFailed(f"{self._name}: the artifact has other dtypes: {'; '.join(wrong)}")


def _axis_sizes(shapes: Shapes | None, inputs: Sequence[TensorSpec]) -> dict[str, int]:
    if shapes is None:
        return {}
    return {
        dim: size
        for spec in inputs
        for dim, size in zip(spec.shape, shapes[spec.name], strict=True)
        if isinstance(dim, str)
    }
