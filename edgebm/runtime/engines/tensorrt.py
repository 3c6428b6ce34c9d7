"""TensorRT on an NVIDIA GPU: built on this device, or read back from an earlier build here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgebm.errors import BackendFailed, Closed, EdgebmError
from edgebm.runtime.engines import (
    OWN,
    PLAIN,
    Buffers,
    Files,
    Request,
    shape_key,
    vendor_error,
)
from edgebm.runtime.engines.building import Building
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.cuda_runtime import CudaRuntime
from edgebm.runtime.engines.onnx_planned import planned_int8
from edgebm.runtime.engines.tensorrt_child import build_in_child
from edgebm.runtime.engines.tensorrt_layers import count_layers, in_float
from edgebm.runtime.engines.tensorrt_library import the_tensorrt
from edgebm.runtime.engines.tensorrt_profiles import profiles_of
from edgebm.spec import EngineConfig, Shapes

if TYPE_CHECKING:
    from edgebm.runtime.engines.tensorrt_plan import Face, LoadedPlan

# Of how edgebm builds engines; a change makes every plan that was stored before a miss.
BUILD_VERSION = 1
_PLANNED = "planned_int8"


class TensorRtEngine:
    """`model.onnx` as an engine plan with one profile for free sizes and one for each static set.

    Given `compiled`, that plan is read and `files` are not looked at. `face` are inputs and
    outputs of the model.
    """

    runtime = "tensorrt"
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        files: Files,
        config: EngineConfig,
        face: Face,
        compiled: Compiled | None = None,
        *,
        building: Building = PLAIN,
    ) -> None:
        trt, gpu = the_tensorrt()
        from edgebm.runtime.engines.tensorrt_plan import LoadedPlan

        self.version, self.device = str(trt.__version__), gpu.name
        self._name = f"tensorrt {self.version}"
        self._inputs, _ = face
        cuda = CudaRuntime(gpu.driver)
        profiles = profiles_of(self._inputs, config)
        if compiled is None:
            if "model.onnx" not in files:
                raise BackendFailed(f"{self._name}: the artifact has no model.onnx")
            plan = build_in_child(files["model.onnx"], config, face, building)
            self._planned = planned_int8(files["model.onnx"])
        else:
            (plan,), (options,) = compiled.blobs, compiled.options
            self._planned = tuple(json.loads(options[_PLANNED]))
        try:
            self._plan: LoadedPlan | None = LoadedPlan(plan, cuda, face, profiles)
        except EdgebmError:
            raise
        except Exception as cause:
            raise vendor_error(self._name, "opening the engine", cause) from cause
        self._static = {
            shape_key(shapes, self._inputs): index
            for index, shapes in enumerate(config.static_shapes if profiles else (), 1)
        }

    def request(self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False) -> Request:
        from edgebm.runtime.engines.tensorrt_request import TensorRtRequest

        profile = 0 if growing else self._static.get(shape_key(shapes, self._inputs), 0)
        try:
            return TensorRtRequest(self._loaded(), profile, shapes, buffers, growing=growing)
        except EdgebmError:
            raise
        except Exception as cause:
            raise vendor_error(self._name, f"binding {dict(shapes)}", cause) from cause

    def executed(self) -> dict[str, int]:
        """Read from the engine's inspector, for the first profile."""
        return count_layers(self._loaded().layers())

    def cells(self) -> dict[str, str]:
        """Empty: a cell is a loop of several layers, which nobody counts as one."""
        return {}

    def left_float(self) -> tuple[str, ...]:
        """By what the inspector says of the nodes in each layer."""
        return in_float(self._loaded().layers(), self._planned)

    def profile(self, request: Request, calls: int) -> dict[str, float]:
        from edgebm.runtime.engines.tensorrt_request import TensorRtRequest

        assert isinstance(request, TensorRtRequest)
        times_us = request.times_us(calls)
        joined = {
            layer.name: ",".join((layer.name, *layer.nodes)) for layer in self._loaded().layers()
        }
        return {joined.get(name, name): value for name, value in times_us.items()}

    def export(self) -> Compiled:
        options = {_PLANNED: json.dumps(self._planned)}
        return Compiled((self._loaded().serialized(),), (options,))

    def close(self) -> None:
        self._plan = None

    def _loaded(self) -> LoadedPlan:
        if (plan := self._plan) is None:
            raise Closed("the engine is closed", hint="load the bundle again")
        return plan


def cache_facts(config: EngineConfig) -> Mapping[str, Any]:
    """What a plan depends on, beside the artifact and the configuration.

    Raises:
        BackendUnavailable: as `the_tensorrt`.
        BackendLost: the GPU cannot be used any more.
        ForkedUse: as `probe_gpu`.
    """
    trt, gpu = the_tensorrt()
    return {
        "version": str(trt.__version__),
        "gpu": gpu.facts(),
        "cuda_runtime": CudaRuntime(gpu.driver).version(),
        "build_version": BUILD_VERSION,
        "options": dict(config.settings),
        # Whether float32 products are computed in TF32.
        "tf32": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
    }
