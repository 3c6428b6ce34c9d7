"""One small protocol over the vendor runtimes. A vendor module is imported when it is opened."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BackendFailed, BackendUnavailable, ResourceError
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.onnx_faults import onnx_faults
from edgebm.spec import EngineConfig, Shapes, TensorSpec

Files = Mapping[str, bytes]
Arrays = tuple[NDArray[Any], ...]
CPU_RUNTIMES = ("openvino", "onnxruntime")
RUNTIMES = (*CPU_RUNTIMES, "tensorrt", "onnxruntime-cuda")
# These compile for minutes, in a process of their own that may die.
BUILT_APART = frozenset({"tensorrt"})
PROFILE = {"profile": "1"}  # settings of an engine that shall time its layers
# All that an artifact may ask of its vendor. Others can write files (`CACHE_DIR`) or change how
# the caller's own thread computes (`CPU_DENORMALS_OPTIMIZATION`, `session.set_denormal_as_zero`).
_SETTINGS = {
    "openvino": {"profile", "DYNAMIC_QUANTIZATION_GROUP_SIZE"},
    "onnxruntime": {
        "profile",
        "emulate",
        "session.disable_quant_qdq",
        "session.intra_op.allow_spinning",
    },
    "onnxruntime-cuda": {"profile"},
    "tensorrt": {"profile", "sparse_weights"},
}
# How the vendors' texts say that memory or threads ran out; most have no class of their own.
_SHORTAGE = re.compile(
    "bad_alloc|[Ff]ailed to allocate|[Cc]annot allocate memory|failed to map segment"
    "|Resource temporarily unavailable|pthread_create failed"
)
_REPORTER = "openvino_telemetry"
# Vendors ask for cache-line or vector alignment before they use a buffer without a copy.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Buffers:
    """Arrays by name that a request shall use in place of its own.

    Each starts at a multiple of 64 bytes and has the shape and dtype of the face. An output whose
    array is given has that shape in every call. `fed` names the output that an input is fed back
    from: see `Request.carry`.
    """

    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    fed: Mapping[str, str] = field(default_factory=dict)


OWN = Buffers()
PLAIN = Building()


class Carry(Protocol):
    """Outputs of one call that are inputs of the next, on a device that has memory of its own.

    They still come to the host, to be looked at. A call that raises leaves the inputs as they are.
    """

    def keep(self) -> None:
        """What the last call gave is the input of the next ones; their arrays are not read."""
        ...

    def drop(self) -> None:
        """The arrays of all inputs are read again."""
        ...


class Request(Protocol):
    """One set of pre-bound tensors for one set of input shapes; used by one thread at a time.

    Write `inputs` in place, call `infer`, read `outputs`: they are valid until the next call.
    `fixed` are the outputs where each call fills the same arrays, None where their shapes depend
    on the call.
    """

    @property
    def fixed(self) -> Arrays | None: ...

    @property
    def inputs(self) -> Arrays: ...

    @property
    def outputs(self) -> Arrays: ...

    @property
    def cancel(self) -> Callable[[], None] | None:
        """Stops `infer` from another thread, which then raises and ends the use of the request.

        None where the runtime cannot.
        """
        ...

    @property
    def carry(self) -> Carry | None:
        """For the inputs that `Buffers.fed` names; None where the host's memory does."""
        ...

    def infer(self) -> None: ...

    def bind(self, index: int, array: NDArray[Any]) -> None:
        """Use `array`, aligned as in `Buffers`, as input `index` from now on.

        Its shape may be another one if the request was made with `growing`.
        """
        ...


class Engine(Protocol):
    """A compiled artifact. Tensors have the names, order and dtypes of the model's face.

    `device` is the name of what computes where that is not the processor; else empty. `warnings`
    are sentences for the report about what the vendor made of the artifact.
    """

    runtime: str
    version: str
    device: str
    warnings: tuple[str, ...]

    def request(self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False) -> Request:
        """A new request for inputs of these shapes; a static copy is used where there is one.

        One that is `growing` takes inputs of other shapes later on (`Request.bind`), so it never
        uses a static copy.
        """
        ...

    def executed(self) -> dict[str, int]:
        """Layers that really run, by precision; empty where the runtime cannot say."""
        ...

    def cells(self) -> dict[str, str]:
        """What each recurrent layer really runs in, by its name in the model.

        Empty where there is none, or where the runtime cannot say.
        """
        ...

    def left_float(self) -> tuple[str, ...]:
        """Nodes of the model that are meant for int8 and are known to run in float; see `cells`.

        Empty where the runtime cannot say.
        """
        ...

    def profile(self, request: Request, calls: int) -> dict[str, float]:
        """Call `calls` times; the median microseconds of each layer, by the runtime's name for it.

        The names of the source nodes that were joined into a layer follow behind commas, where
        the runtime tells them. Once per engine, which must have been opened with the setting
        `PROFILE`: the runtime's own clock costs time.
        """
        ...

    def export(self) -> Compiled | None:
        """What a later start can open in place of the artifact; None where there is no such form.

        Raises:
            BackendFailed: the vendor cannot write it.
        """
        ...

    def close(self) -> None: ...


def open_engine(  # noqa: PLR0913 - one call opens an engine
    runtime: str,
    files: Files,
    config: EngineConfig,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    compiled: Compiled | None = None,
    *,
    building: Building = PLAIN,
) -> Engine:
    """Compile an artifact, or read back what `Engine.export` of the same one gave.

    `building` is for runtimes that compile for minutes.

    Raises:
        BackendUnavailable: the vendor package is missing or does not load.
        BackendFailed: the vendor refused the artifact, its inputs and outputs are not these, it
            refers to other files, has loops or branches, or asks for a setting that is not one
            of an artifact.
        EngineStale: the vendor does not take what `compiled` holds.
        CompileTimeout, BackendCrashed: see `Building`.
        BackendLost: the device cannot be used any more in this process.
        ResourceError: memory or threads ran out.
        ForkedUse: the vendor cannot be used in a forked child of a process that has used it.
    """
    _check_files(files)
    if unknown := sorted(config.settings.keys() - _SETTINGS.get(runtime, config.settings.keys())):
        raise BackendFailed(
            f"the artifact asks {runtime} for settings that this edgebm does not hand on: "
            f"{', '.join(unknown)}",
            hint="a newer edgebm may know them; it never hands on those that write files or "
            "change how the caller's thread computes",
        )
    if runtime == "openvino":
        from edgebm.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(files, config, inputs, outputs, compiled)
    if runtime == "onnxruntime":
        from edgebm.runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(files, config, inputs, outputs)
    if runtime == "onnxruntime-cuda":
        from edgebm.runtime.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine(files, config, inputs, outputs)
    if runtime == "tensorrt":
        from edgebm.runtime.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(files, config, (inputs, outputs), compiled, building=building)
    raise BackendUnavailable(
        f"this edgebm has no engine for the runtime {runtime!r}",
        hint=f"it has: {', '.join(RUNTIMES)}",
    )


def _check_files(files: Files) -> None:
    faults = onnx_faults(files["model.onnx"]) if "model.onnx" in files else []
    if "model.xml" in files:
        from edgebm.runtime.engines.openvino_faults import openvino_faults

        faults += openvino_faults(files["model.xml"])
    if faults:
        raise BackendFailed(
            f"the artifact is none of edgebm's: {'; '.join(faults)}",
            hint="an artifact is complete and has neither loops nor branches: compress the model "
            "with edgebm",
        )


def prepare(runtime: str) -> None:
    """Import what a runtime needs, so that doing so is not timed as compiling.

    Raises:
        BackendUnavailable: it is missing, does not load, or finds no device.
        ForkedUse: as `open_engine`.
    """
    if runtime == "tensorrt":
        from edgebm.runtime.engines.tensorrt_library import the_tensorrt

        the_tensorrt()
    elif runtime in RUNTIMES:
        from edgebm.runtime.engines.vendors import import_runtime

        import_runtime(runtime)


def cache_facts(runtime: str, config: EngineConfig) -> Mapping[str, Any] | None:
    """What `Engine.export` depends on beside artifact and processor; None if it gives nothing.

    Raises:
        BackendUnavailable: the vendor package is missing or does not load.
        BackendFailed: it does not say what it is.
    """
    if runtime == "tensorrt":
        from edgebm.runtime.engines import tensorrt

        return tensorrt.cache_facts(config)
    if runtime != "openvino":
        return None
    from edgebm.runtime.engines import openvino_core

    return openvino_core.cache_facts(config)


def import_vendor(package: str, hint: str = "") -> ModuleType:
    """Import a vendor package without its usage reports, or say why it cannot be imported.

    ONNX Runtime and OpenVINO both send a report over the network when they are imported, and
    write an identity below the home folder. A user who wants the first sets
    `ORT_DISABLE_TELEMETRY=0`. A package that the program imported before stays as it is. `hint`
    says how to get the package where the extra of its name does not bring it.

    Raises:
        BackendUnavailable: with the pip command, or with the loader's own words.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with _without(_REPORTER):
            return importlib.import_module(package)
    except ModuleNotFoundError as cause:
        if cause.name == package:
            raise BackendUnavailable(
                f"{package} is not installed", hint=hint or f"pip install 'edgebm[{package}]'"
            ) from cause
        raise BackendUnavailable(f"{package} lacks a package: {cause}") from cause
    except Exception as cause:  # a broken native library raises whatever its loader raises
        raise BackendUnavailable(
            f"{package} is installed but does not load: {type(cause).__name__}: {cause}",
            hint="edgebm doctor",
        ) from cause


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Make `import module` fail inside the block; OpenVINO then takes its own silent stub."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(module, None)


def vendor_error(name: str, doing: str, cause: BaseException) -> BackendFailed | ResourceError:
    """The one wrapping of a vendor exception; raise it `from` the original."""
    text = " ".join(str(cause).split())
    message = f"{name} failed {doing}: {text[:600] or type(cause).__name__}"
    if isinstance(cause, MemoryError) or _SHORTAGE.search(text):
        return ResourceError(message, hint="free memory, or allow more of it and more threads")
    return BackendFailed(message, details={"vendor": name, "exception": type(cause).__name__})


def aligned_empty(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised C-contiguous array that starts at a multiple of 64 bytes."""
    count = 1
    for size in shape:
        count *= size
    raw = np.empty(count * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


def aligned_zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`aligned_empty`, filled with zeros."""
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


def shape_key(shapes: Shapes, inputs: Sequence[TensorSpec]) -> tuple[tuple[int, ...], ...]:
    """Input shapes in the order of the face, to look a request up by."""
    return tuple(tuple(shapes[spec.name]) for spec in inputs)


def check_face(vendor: str, kind: str, specs: Sequence[TensorSpec], found: Sequence[str]) -> None:
    """Refuse an artifact without the inputs or outputs of the face.

    Raises:
        BackendFailed: lists what is missing and what there is.
    """
    if missing := [spec.name for spec in specs if spec.name not in found]:
        raise BackendFailed(
            f"{vendor}: the artifact has no {kind} {missing}, it has {sorted(found)}"
        )
