"""Parser, network and builder."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import onnx
from onnx import shape_inference

from tensorrt import _cuda, _names
from tensorrt._names import Interface, Sealed, made

MAGIC = b"STANDPLN"
_TYPES = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}
# Nodes whose second input decides a shape.
_SHAPED = {"Reshape", "Expand", "Tile", "Slice", "Unsqueeze", "Squeeze", "ReduceSum"}


def datatype(number: int) -> Any:
    return getattr(_names.ENUMS["DataType"], _TYPES[number])


def graph_inputs(model: onnx.ModelProto) -> list[Any]:
    stored = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in stored]


def sizes(value: Any) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)


def shape_inputs(model: onnx.ModelProto) -> set[str]:
    return {n.input[1] for n in model.graph.node if n.op_type in _SHAPED and len(n.input) > 1}


class ILogger(Interface):
    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class Dims(Sealed):
    def __init__(self, values: Any) -> None:
        self._values = tuple(values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> int:
        return self._values[index]


class ITensor(Sealed):
    def __init__(self, value: Any, *, decides_shapes: bool = False) -> None:
        self._value, self._decides_shapes = value, decides_shapes

    name = property(lambda self: self._value.name)
    shape = property(lambda self: Dims(sizes(self._value)))
    dtype = property(lambda self: datatype(self._value.type.tensor_type.elem_type))
    is_shape_tensor = property(lambda self: self._decides_shapes)


class INetworkDefinition(Sealed):
    def __init__(self) -> None:
        self._model: Any = None

    num_inputs = property(lambda self: len(graph_inputs(self._model)))
    num_outputs = property(lambda self: len(self._model.graph.output))

    def get_input(self, index: int) -> ITensor:
        value = graph_inputs(self._model)[index]
        return ITensor(value, decides_shapes=value.name in shape_inputs(self._model))

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._model.graph.output[index])


class ParserError(Sealed):
    def __init__(self, node: Any, text: str) -> None:
        self._node, self._text = node, text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return self._node.name if self._node is not None else ""

    def node_operator(self) -> str:
        return self._node.op_type if self._node is not None else ""


class OnnxParser(Sealed):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, made(logger, ILogger)
        self._errors: list[ParserError] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        try:
            found = onnx.load_from_string(model)
            foreign = [n for n in found.graph.node if n.domain not in ("", "ai.onnx")]
            if not foreign:
                onnx.checker.check_model(found, full_check=True)
        except Exception as cause:  # noqa: BLE001 - whatever the checker raises
            self._errors = [ParserError(None, str(cause))]
            return False
        self._errors = [
            ParserError(n, f"no importer registered for op: {n.op_type}") for n in foreign
        ]
        self._network._model = found
        return not self._errors

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IOptimizationProfile(Sealed):
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self._shapes[input] = [list(min), list(opt), list(max)]


class IProgressMonitor(Interface): ...


class IBuilderConfig(Sealed):
    def __init__(self, logger: ILogger) -> None:
        self._logger, self._pools, self._flags, self._profiles = logger, {}, set(), []
        self._timings: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = int(pool_size)

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        try:
            return ITimingCache(bytes(serialized_timing_cache))
        except ValueError:
            self._logger.log(_names.ENUMS["ILogger.Severity"].ERROR, "no timing cache")
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert isinstance(cache, ITimingCache)
        if cache._facts["place"] != place() and not ignore_mismatch:
            return False
        self._timings = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timings

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        for low, usual, high in profile._shapes.values():
            if not all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True)):
                error = _names.ENUMS["ILogger.Severity"].ERROR
                self._logger.log(error, "kMIN <= kOPT <= kMAX does not hold")
                return -1
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1


class ITimingCache(Sealed):
    """Which nodes were timed, by which version on which device."""

    def __init__(self, content: bytes) -> None:
        self._facts = json.loads(content) if content else {"place": place(), "nodes": []}

    def serialize(self) -> bytes:
        return json.dumps(self._facts).encode()


def place() -> list[str]:
    return [_names.VERSION, _cuda.device()]


class IHostMemory(bytes):
    """The bytes of a plan; the real one has the buffer protocol, too."""


class Builder(Sealed):
    def __init__(self, logger: ILogger) -> None:
        self._logger = made(logger, ILogger)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        typed = 1 << int(_names.ENUMS["NetworkDefinitionCreationFlag"].STRONGLY_TYPED)
        assert flags == typed, "only strongly typed networks, by the number of this version"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        model, error = network._model, _names.ENUMS["ILogger.Severity"].ERROR
        assert config._pools["WORKSPACE"] > 0
        assert config.profiling_verbosity == _names.ENUMS["ProfilingVerbosity"].DETAILED
        if any(-1 in sizes(v) for v in graph_inputs(model)) and not config._profiles:
            self._logger.log(error, "Network has dynamic inputs, but no optimization profile")
            return None
        os.write(1, b"noise of the vendor\n")
        _fault()
        memory = _cuda.Memory(model.ByteSize() + config._pools["WORKSPACE"] // 1024)
        if memory.code:
            self._logger.log(error, _cuda.shortage(memory))
            return None
        if not self._steps(config, len(model.graph.node)):
            return None
        timed = None
        if config._timings is not None:
            known = config._timings._facts["nodes"]
            timed = sum(node.name in known for node in model.graph.node)
            known += [n.name for n in model.graph.node if n.name not in known]
        head = {
            "version": _names.VERSION,
            "device": _cuda.device(),
            "profiles": config._profiles,
            "flags": sorted(config._flags),
            "workspace": config._pools["WORKSPACE"],
            "known_timings": timed,
        }
        text = json.dumps(head).encode()
        return IHostMemory(
            MAGIC + len(text).to_bytes(4, "little") + text + model.SerializeToString()
        )

    def _steps(self, config: IBuilderConfig, count: int) -> bool:
        monitor = made(config.progress_monitor, IProgressMonitor)
        monitor.phase_start("Building Engine", None, count)
        for step in range(count):
            time.sleep(float(os.environ.get("STANDIN_TRT_STEP_S", "0")))
            if not monitor.step_complete("Building Engine", step):
                return False
        monitor.phase_finish("Building Engine")
        return True


def _fault() -> None:
    fault = os.environ.get("STANDIN_TRT_FAULT", "")
    if fault in {"SIGSEGV", "SIGKILL"}:
        os.kill(os.getpid(), getattr(signal, fault))
    if fault == "exit":
        os._exit(7)
    if fault == "hang":
        time.sleep(600)


def shape_of(model: onnx.ModelProto, name: str, shapes: dict[str, tuple[int, ...]]) -> Any:
    """The shape of an output for inputs of these shapes; -1 where only values tell it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
        ):
            dim.dim_value = size
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    made_of = shape_inference.infer_shapes(copy, data_prop=True)
    return next(sizes(value) for value in made_of.graph.output if value.name == name)


CLASSES = (
    Builder,
    Dims,
    IBuilderConfig,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
