"""ONNX Runtime on an NVIDIA GPU, through its CUDA provider: where there is no TensorRT.

ONNX Runtime carries on with the CPU where CUDA does not load, and gives nodes without a CUDA
kernel to the CPU: both in a line of its log. Here the first is an error, and what ran where is
read after one run: a convolution on the CPU is an error, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edgebm.errors import BackendFailed, BackendUnavailable
from edgebm.runtime.engines import Files
from edgebm.runtime.engines.cuda_driver import probe_gpu
from edgebm.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgebm.runtime.engines.onnxruntime_nodes import (
    NodeRun,
    cells,
    elsewhere,
    layers,
    named,
    node_runs,
)
from edgebm.runtime.engines.vendors import import_runtime
from edgebm.spec import EngineConfig, Shapes, TensorSpec

PROVIDER = "CUDAExecutionProvider"
_LIBRARY = "libonnxruntime_providers_cuda.so"
# TF32 has ten bits of a mantissa where f32 was asked for; ONNX Runtime takes it if nobody objects.
_OPTIONS = {"device_id": "0", "use_tf32": "0"}
_PRECISIONS = {"f32", "f16"}
# The smallest ONNX file that gives the provider something to compute: y = Relu(x).
_RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


class OnnxRuntimeCudaEngine(OnnxRuntimeEngine):
    """As on the CPU, with arrays of the host that ONNX Runtime copies to the GPU and back.

    Each session runs once on zeros while it is opened, with the sizes of the first static shapes,
    or the usual ones of `config.axes`; a free axis that is not in there has size 1.
    """

    runtime = "onnxruntime-cuda"
    provider: tuple[str, Mapping[str, str]] = PROVIDER, _OPTIONS

    def __init__(
        self,
        files: Files,
        config: EngineConfig,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._ran: list[NodeRun] = []
        self.device = self._gpu()
        super().__init__(files, config, inputs, outputs)

    def executed(self) -> dict[str, int]:
        """Layers on the GPU, as they ran: of a static copy, else of the free one."""
        return layers(run for run in self._ran if run.provider == self.provider[0])

    def cells(self) -> dict[str, str]:
        """As `executed`."""
        return cells(self._ran)

    def _gpu(self) -> str:
        return probe_gpu().name

    def _providers(self) -> list[Any]:
        require_build(self._ort, self.provider[0])
        _preload(self._ort)
        return [self.provider]

    def _precision(self) -> Mapping[str, str]:
        # The artifact says which layers compute in FP16.
        if (precision := self._config.precision) not in _PRECISIONS:
            raise BackendFailed(f"{self._name} has no float precision {precision!r}")
        return {}

    def _open(self, model: bytes, shapes: Shapes | None) -> Any:
        with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
            session = self._session(model, shapes, folder)
            if self.provider[0] not in session.get_providers():
                raise _unavailable(self._ort)
            self._request(session, shapes or self._usual()).infer()
            # Beside the free copy, which opens first, the static ones all hold the same layers.
            self._ran = node_runs(session.end_profiling())
        found = judged(self._name, self._ran, self.provider[0])
        self.warnings = tuple(dict.fromkeys((*self.warnings, *found)))
        # A profile that has ended does not begin again.
        return super()._open(model, shapes) if self._is_timed() else session

    def _usual(self) -> Shapes:
        if self._config.static_shapes:
            return self._config.static_shapes[0]
        axes = self._config.axes
        return {
            spec.name: tuple(
                dim if isinstance(dim, int) else axes.get(dim, (1, 1, 1))[1] for dim in spec.shape
            )
            for spec in self._face[0]
        }


def judged(name: str, runs: Sequence[NodeRun], provider: str = PROVIDER) -> list[str]:
    """A warning where small things ran elsewhere.

    Raises:
        BackendFailed: layers that are the work of the model did; names them.
    """
    strays = elsewhere(runs, provider)
    if heavy := [run for run in strays if run.is_heavy]:
        raise BackendFailed(
            f"{name} has no CUDA kernel for these layers and computes them on the processor: "
            f"{named(heavy)}",
            hint="use the runtime 'onnxruntime', which computes all of it on the processor, or "
            "'tensorrt'",
            details={"layers": sorted({run.label for run in heavy})},
        )
    return [f"these nodes run on the processor, not on the GPU: {named(strays)}"] if strays else []


def usable_version() -> str:
    """The version of the package, where its CUDA provider has what it needs.

    Raises:
        BackendUnavailable: it has not; says what is missing and what to do.
    """
    probe_gpu()
    ort = import_runtime(OnnxRuntimeCudaEngine.runtime)
    require_build(ort)
    _preload(ort)
    try:
        session = ort.InferenceSession(_RELU, providers=[(PROVIDER, _OPTIONS)], enable_fallback=0)
    except Exception as cause:
        raise BackendUnavailable(
            f"onnxruntime-gpu {ort.__version__} cannot compute on CUDA here: {cause}",
            hint="'nvidia-smi' (on a Jetson 'tegrastats') shows whether the driver works",
        ) from cause
    if PROVIDER not in session.get_providers():
        raise _unavailable(ort)
    return str(ort.__version__)


def require_build(ort: ModuleType, provider: str = PROVIDER) -> None:
    """Refuse a package that was made without CUDA.

    Raises:
        BackendUnavailable: it was; says how to get the other one.
    """
    if provider in ort.get_available_providers():
        return
    with contextlib.suppress(metadata.PackageNotFoundError):
        raise BackendUnavailable(
            f"onnxruntime-gpu {metadata.version('onnxruntime-gpu')} is installed, and the files "
            f"of another onnxruntime package ({ort.__version__}) have replaced its own",
            hint="pip uninstall onnxruntime onnxruntime-gpu, then pip install 'edgebm[cuda]'",
        )
    raise BackendUnavailable(
        f"the onnxruntime {ort.__version__} that is installed was made without CUDA",
        hint="pip uninstall onnxruntime, then pip install 'edgebm[cuda]': both packages bring the "
        "same files, so only one can be there. On a Jetson take the onnxruntime-gpu made for its "
        "JetPack",
    )


def _preload(ort: ModuleType) -> None:
    """Load CUDA and cuDNN from where pip puts them, which the loader does not know."""
    # Not there before 1.21. What it fails to load it prints, and the provider says it again.
    if preload := getattr(ort, "preload_dlls", None):
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def _missing(ort: ModuleType) -> str:
    """Why the library of the CUDA provider does not load, in the loader's words; "" if it does."""
    path = Path(ort.__file__ or "").parent / "capi" / _LIBRARY
    try:
        ctypes.CDLL(str(path))
    except OSError as why:
        return str(why)
    return ""


def _unavailable(ort: ModuleType) -> BackendUnavailable:
    missing = _missing(ort) or "ONNX Runtime's own log says why"
    hint = "install NVIDIA's driver; a container must be started with access to the GPU"
    if "libcuda.so" not in missing:
        version = getattr(ort, "cuda_version", "") or "of the version it was made for"
        hint = (
            f"onnxruntime-gpu {ort.__version__} needs CUDA {version} and cuDNN: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or the release made for the CUDA that is "
            "installed here"
        )
    return BackendUnavailable(
        f"onnxruntime-gpu {ort.__version__} cannot compute on CUDA here: {missing}", hint=hint
    )
