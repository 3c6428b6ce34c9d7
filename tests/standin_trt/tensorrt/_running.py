"""Runtime, engine and execution context."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from tensorrt import _cuda, _names
from tensorrt._building import (
    MAGIC,
    Dims,
    IHostMemory,
    ILogger,
    datatype,
    graph_inputs,
    shape_inputs,
    shape_of,
    sizes,
)
from tensorrt._names import Interface, Sealed, made

_NUMPY = {
    "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32,
    "INT64": np.int64, "BOOL": np.bool_, "UINT8": np.uint8,
}  # fmt: skip
_WORDS = {1: "Float", 10: "Half", 3: "Int8", 6: "Int32", 7: "Int64"}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
ALIGNMENT = 256


def nptype(dtype: Any) -> Any:
    return _NUMPY[dtype.name]


def _error(logger: Any, text: str) -> None:
    logger.log(_names.ENUMS["ILogger.Severity"].ERROR, text)


class IOutputAllocator(Interface): ...


class IProfiler(Interface): ...


class Runtime(Sealed):
    def __init__(self, logger: Any) -> None:
        self._logger = made(logger, ILogger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        raw = bytes(serialized_engine)
        if not raw.startswith(MAGIC):
            _error(self._logger, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        end = len(MAGIC) + 4 + int.from_bytes(raw[len(MAGIC) : len(MAGIC) + 4], "little")
        head = json.loads(raw[len(MAGIC) + 4 : end])
        if head["version"] != _names.VERSION or head["device"] != _cuda.device():
            _error(self._logger, f"the plan is of {head['version']} for {head['device']}")
            return None
        memory = _cuda.Memory(len(raw))
        if memory.code:
            _error(self._logger, _cuda.shortage(memory))
            return None
        return ICudaEngine(onnx.load_from_string(raw[end:]), head, raw, self._logger, memory)


class EngineInspector(Sealed):
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        assert format == _names.ENUMS["LayerInformationFormat"].JSON
        model = onnx.shape_inference.infer_shapes(self._engine._model)
        types = {
            v.name: v.type.tensor_type.elem_type
            for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        }
        unpacked = {o for n in model.graph.node if n.op_type in _QDQ for o in n.output}
        in_float = os.environ.get("STANDIN_TRT_FLOAT", "").split(",")
        layers = []
        for node in model.graph.node:
            if node.op_type in _QDQ:
                continue
            words = _WORDS.get(types.get(node.input[0] if node.input else "", 0), "")
            is_int8 = node.op_type in _PRODUCTS and {*node.input[:2]} <= unpacked
            if is_int8 and node.name not in in_float:
                words = "Int8"
            layers.append(
                {
                    "Name": f"{node.name}_myl0",
                    "LayerType": node.op_type.lower(),
                    "Inputs": [{"Name": node.input[0], "Format/Datatype": words}],
                    "Outputs": [],
                    "Metadata": f"[ONNX Layer: {node.name}]",
                }
                if node.input
                else f"{node.name}"
            )
        tensors = "Bindings" if _names.VERSION.startswith("10.") else "I/O Tensors"
        return json.dumps({"Layers": layers, tensors: list(self._engine._tensors)})


class ICudaEngine(Sealed):
    def __init__(self, model: Any, head: Any, raw: bytes, logger: Any, memory: Any) -> None:
        self._model, self._head, self._raw, self._logger = model, head, raw, logger
        self._memory = memory
        self._tensors = {v.name: (v, True) for v in graph_inputs(model)}
        self._tensors |= {v.name: (v, False) for v in model.graph.output}
        self._host = shape_inputs(model) | {
            o for n in model.graph.node if n.op_type in {"Shape", "Size"} for o in n.output
        }

    num_io_tensors = property(lambda self: len(self._tensors))
    num_optimization_profiles = property(lambda self: max(1, len(self._head["profiles"])))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = _names.ENUMS["TensorIOMode"]
        return modes.INPUT if self._tensors[name][1] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return datatype(self._tensors[name][0].type.tensor_type.elem_type)

    def get_tensor_location(self, name: str) -> Any:
        places = _names.ENUMS["TensorLocation"]
        return places.HOST if name in self._host else places.DEVICE

    def create_execution_context(self) -> IExecutionContext | None:
        memory = _cuda.Memory(4096)
        if memory.code:
            _error(self._logger, _cuda.shortage(memory))
            return None
        return IExecutionContext(self, memory)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._raw)


class IExecutionContext(Sealed):
    def __init__(self, engine: ICudaEngine, memory: Any) -> None:
        self._engine, self._memory, self._logger = engine, memory, engine._logger
        self._profile = 0 if len(engine._head["profiles"]) < 2 else None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._kept: list[Any] = []
        self._known: dict[Any, tuple[int, ...]] = {}
        self._profiler: Any = None
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            engine._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    profiler = property(
        lambda self: self._profiler,
        lambda self, value: object.__setattr__(self, "_profiler", made(value, IProfiler)),
    )

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert _cuda.wait(stream_handle) == 0
        self._profile = profile_index
        return 0 <= profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None, "a profile is chosen before the shapes"
        wanted = sizes(self._engine._tensors[name][0])
        fits = len(shape) == len(wanted) and all(
            w in (-1, s) for w, s in zip(wanted, shape, strict=True)
        )
        if fits and -1 in wanted:
            low, _, high = self._engine._head["profiles"][self._profile][name]
            fits = all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
        if not fits:
            _error(self._logger, f"setInputShape: {name} {shape} satisfies no profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [
            n for n, (_, is_in) in self._engine._tensors.items() if is_in > (n in self._shapes)
        ]

    def get_tensor_shape(self, name: str) -> Dims:
        key = (name, *self._shapes.items())
        if key not in self._known:
            self._known[key] = shape_of(self._engine._model, name, self._shapes)
        return Dims(self._known[key])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert isinstance(memory, int)
        assert name in self._engine._tensors
        if name not in self._engine._host and memory % ALIGNMENT:
            _error(self._logger, f"setTensorAddress: {memory:#x} is not aligned")
            return False
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = made(output_allocator, IOutputAllocator)
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        tensors = self._engine._tensors
        free = {n for n in tensors if n not in self._addresses and n not in self._allocators}
        if free:
            _error(self._logger, f"enqueueV3: no address for {sorted(free)}")
            return False
        if self._allocators:
            # Shapes that values tell are known when the values are.
            if code := _cuda.wait(stream_handle):
                _error(self._logger, f"Error Code 1: Cuda Runtime ({_cuda.text(code)})")
                return False
            return self._run(stream_handle)
        self._kept = self._kept[-4:]
        code, kept = _cuda.launch(lambda: self._run(stream_handle), stream_handle)
        self._kept.append(kept)
        if code:
            _error(self._logger, f"Error Code 1: Cuda Runtime ({_cuda.text(code)})")
        return not code

    def _run(self, stream: int) -> bool:
        tensors = self._engine._tensors
        feeds = {
            n: self._at(n, self._shapes[n]).copy() for n, (_, is_in) in tensors.items() if is_in
        }
        names = [n for n, (_, is_in) in tensors.items() if not is_in]
        for name, array in zip(names, self._session.run(names, feeds), strict=True):
            if name in self._allocators:
                allocator = self._allocators[name]
                old = self._addresses.get(name, 0)
                count = max(array.nbytes, 1)
                where = allocator.reallocate_output_async(name, old, count, ALIGNMENT, stream)
                if not where:
                    _error(self._logger, f"no memory for {name}")
                    return False
                self._addresses[name] = where
                allocator.notify_shape(name, Dims(array.shape))
            self._at(name, array.shape)[...] = array
        if self._profiler is not None:
            for node in self._engine._model.graph.node:
                self._profiler.report_layer_time(f"{node.name}_myl0", 0.25)
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = np.dtype(nptype(self._engine.get_tensor_dtype(name)))
        where = _cuda.host if name in self._engine._host else _cuda.view
        return where(self._addresses[name], shape, dtype)


CLASSES = (
    EngineInspector,
    ICudaEngine,
    IExecutionContext,
    IOutputAllocator,
    IProfiler,
    Runtime,
)
