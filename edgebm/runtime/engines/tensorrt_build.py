"""From an ONNX file to an engine plan, with TensorRT's builder; runs in a process of its own.

The network is strongly typed: every precision is in the graph, and nothing is asked for beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tensorrt as trt

from edgebm.errors import BackendFailed
from edgebm.runtime.engines import check_face
from edgebm.runtime.engines.tensorrt_library import ERRORS, tensorrt_error, the_logger
from edgebm.runtime.engines.tensorrt_logger import Progress, Report
from edgebm.runtime.engines.tensorrt_profiles import Profile, profiles_of
from edgebm.spec import EngineConfig, TensorSpec

_NODES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built. `workspace_bytes` is the most scratch memory of one layer.

    `timings` are those of an earlier build on this device; None where nobody keeps them.
    """

    config: EngineConfig
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    workspace_bytes: int
    timings: bytes | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """An engine plan, and the timings of kernels: those that were given and new ones."""

    plan: bytes
    timings: bytes


def build(model: bytes, plan: Plan, report: Report, stop: threading.Event) -> Built:
    """Build an engine for the GPU of this machine.

    Args:
        model: an ONNX file.
        plan: what is to be built.
        report: called with phase, steps done and steps in all, from threads of TensorRT.
        stop: ends the build at its next step.

    Raises:
        BackendFailed: TensorRT refuses it, or it was stopped; names the nodes.
        ResourceError: memory of the device ran out.
    """
    name = f"tensorrt {trt.__version__}"
    builder = trt.Builder(the_logger())
    # 10.x has two kinds of networks, and the number of this flag is another one in 11.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, the_logger())
    mark = ERRORS.mark()
    if not parser.parse(model):
        raise _refused(name, parser, mark)
    _check(name, network, plan)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_bytes)
    # The names of the graph's nodes, so that the report can say what runs in which precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if plan.config.settings.get("sparse_weights", "0") == "1":
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    for profile in profiles_of(plan.inputs, plan.config):
        _add(name, builder, config, profile)
    if plan.timings is not None:
        _use_timings(config, plan.timings)
    progress = Progress(report, stop)
    config.progress_monitor = progress
    mark = ERRORS.mark()
    built = builder.build_serialized_network(network, config)
    if stop.is_set():
        raise BackendFailed(f"{name}: the build was cancelled", details={"cancelled": True})
    if built is None:
        raise tensorrt_error(name, "building the engine", mark)
    return Built(bytes(memoryview(built)), _timings(config))


def _use_timings(config: trt.IBuilderConfig, content: bytes) -> None:
    """Begin with these timings; with none where they are of another device or version."""
    if content:
        known = config.create_timing_cache(content)
        if known is not None and config.set_timing_cache(known, ignore_mismatch=False):
            return
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _timings(config: trt.IBuilderConfig) -> bytes:
    known = config.get_timing_cache()
    return b"" if known is None else bytes(memoryview(known.serialize()))


def _add(name: str, builder: trt.Builder, config: trt.IBuilderConfig, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for tensor, sizes in profile.items():
        made.set_shape(tensor, sizes.low, sizes.usual, sizes.high)
    mark = ERRORS.mark()
    if config.add_optimization_profile(made) < 0:
        raise tensorrt_error(name, f"taking the shapes {_shown(profile)}", mark)


def _shown(profile: Profile) -> str:
    return ", ".join(f"{tensor} {sizes}" for tensor, sizes in profile.items())


def _refused(name: str, parser: trt.OnnxParser, mark: int) -> BackendFailed:
    """Every error of the parser, by node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    nodes = list(dict.fromkeys(error.node_name() for error in errors if error.node_name()))
    lines = list(dict.fromkeys(map(_sentence, errors))) or ERRORS.since(mark)
    more = f"; and {len(lines) - _NODES_SHOWN} more" if len(lines) > _NODES_SHOWN else ""
    return BackendFailed(
        f"{name} refuses the model: {'; '.join(lines[:_NODES_SHOWN])}{more}",
        hint="'edgebm inspect MODEL --lint tensorrt' names such nodes beforehand; the bundle's "
        "variant for a CPU runs without TensorRT",
        details={"nodes": nodes, "errors": lines},
    )


def _sentence(error: trt.ParserError) -> str:
    text = " ".join(error.desc().split())
    if not error.node_name():
        return text
    return f"node {error.node_name()!r} ({error.node_operator()}): {text}"


def _check(name: str, network: trt.INetworkDefinition, plan: Plan) -> None:
    """Refuse a graph without the face of the model before minutes are spent on it."""
    inputs = {t.name: t for t in map(network.get_input, range(network.num_inputs))}
    outputs = [network.get_output(index).name for index in range(network.num_outputs)]
    check_face(name, "input", plan.inputs, list(inputs))
    check_face(name, "output", plan.outputs, outputs)
    if unknown := sorted(inputs.keys() - {spec.name for spec in plan.inputs}):
        raise BackendFailed(f"{name}: the artifact has inputs that the model has not: {unknown}")
    faults = list(_input_faults(plan.inputs, inputs))
    if faults:
        raise BackendFailed(f"{name}: the artifact does not fit the model: {'; '.join(faults)}")


def _input_faults(specs: Sequence[TensorSpec], inputs: dict[str, trt.ITensor]) -> Iterable[str]:
    for spec in specs:
        tensor = inputs[spec.name]
        if tensor.is_shape_tensor:
            yield f"the values of the input {spec.name!r} decide shapes, whose range nobody knows"
        sizes = tuple(tensor.shape)
        wanted = tuple(-1 if isinstance(dim, str) else dim for dim in spec.shape)
        if sizes != wanted:
            yield f"{spec} is {list(sizes)} there"
