"""An engine plan that TensorRT has read: what requests of one engine share."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import tensorrt as trt

from edgebm.errors import BackendError, BackendFailed, EngineStale, ResourceError
from edgebm.runtime.engines import check_face
from edgebm.runtime.engines.cuda_runtime import CudaRuntime
from edgebm.runtime.engines.tensorrt_layers import Layer, layers_of
from edgebm.runtime.engines.tensorrt_library import (
    ERRORS,
    keep_in_children,
    tensorrt_error,
    the_logger,
)
from edgebm.runtime.engines.tensorrt_profiles import Profile
from edgebm.spec import TensorSpec

Face = tuple[Sequence[TensorSpec], Sequence[TensorSpec]]


class LoadedPlan:
    """A plan on the device, for the face of one model and the profiles that it was built with.

    Raises:
        EngineStale: TensorRT does not take the bytes, or it is the plan of another model.
        ResourceError: memory of the device ran out.
        BackendLost: the GPU cannot be used any more.
    """

    def __init__(
        self, plan: bytes, cuda: CudaRuntime, face: Face, profiles: Sequence[Profile]
    ) -> None:
        keep_in_children(self)
        self.name = f"tensorrt {trt.__version__}"
        self.cuda, self.face, self.profiles = cuda, face, profiles
        self._lock = threading.Lock()
        self._runtime = trt.Runtime(the_logger())
        mark = ERRORS.mark()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._unread(mark)
        self.engine = engine
        self._check()

    def context(self) -> trt.IExecutionContext:
        """A new execution context, with its scratch memory.

        Raises:
            ResourceError, BackendFailed, BackendLost: TensorRT gives none.
        """
        with self._lock:
            mark = ERRORS.mark()
            context = self.engine.create_execution_context()
        if context is None:
            raise self.failed("making an execution context", mark)
        return context

    def failed(self, doing: str, mark: int) -> BackendError:
        """What TensorRT's None or False means; that the GPU is lost comes first."""
        self.cuda.free_bytes()
        return tensorrt_error(self.name, doing, mark)

    def layers(self) -> tuple[Layer, ...]:
        """What really runs, by the engine's own inspector."""
        with self._lock:
            inspector = self.engine.create_engine_inspector()
            return layers_of(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def serialized(self) -> bytes:
        """The plan as bytes.

        Raises:
            BackendFailed: TensorRT cannot write it.
        """
        with self._lock:
            mark = ERRORS.mark()
            found = self.engine.serialize()
        if found is None:
            raise self.failed("writing the engine", mark)
        return bytes(memoryview(found))

    def _unread(self, mark: int) -> BackendError:
        why = self.failed("reading the engine", mark)
        if isinstance(why, ResourceError):
            return why
        return EngineStale(
            f"{why} (it may be of another version of TensorRT, or of another GPU)",
            hint="have it built anew: 'edgebm build'",
            details=why.details,
        )

    def _check(self) -> None:
        """Refuse the plan of another model.

        Raises:
            EngineStale: says what is different.
        """
        engine = self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        ours, outputs = self.face
        try:
            check_face(self.name, "input", ours, inputs)
            check_face(self.name, "output", outputs, [n for n in names if n not in inputs])
        except BackendFailed as why:
            raise EngineStale(str(why)) from why
        faults = list(self._faults(inputs))
        if faults:
            raise EngineStale(f"{self.name}: the engine is of another model: {'; '.join(faults)}")

    def _faults(self, inputs: Sequence[str]) -> Iterable[str]:
        specs, outputs = self.face
        if unknown := sorted(set(inputs) - {spec.name for spec in specs}):
            yield f"it has inputs {unknown}"
        for spec in (*specs, *outputs):
            found = self.engine.get_tensor_dtype(spec.name)
            if not _is_dtype(found, spec.dtype):
                yield f"{spec} is {found.name} there"
        if self.profiles and self.engine.num_optimization_profiles != len(self.profiles):
            yield f"it is built for {self.engine.num_optimization_profiles} sets of shapes"


def _is_dtype(found: trt.DataType, wanted: str) -> bool:
    try:
        return bool(np.dtype(trt.nptype(found)) == np.dtype(wanted))
    except TypeError:  # bf16, fp8 and the like have no dtype in numpy
        return False
