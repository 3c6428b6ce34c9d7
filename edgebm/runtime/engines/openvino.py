"""OpenVINO on the CPU, called through tensors bound once."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgebm.errors import BackendFailed
from edgebm.runtime.engines import (
    OWN,
    Buffers,
    Files,
    Request,
    check_face,
    import_vendor,
    shape_key,
    vendor_error,
)
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.openvino_core import compile_options, the_core
from edgebm.runtime.engines.openvino_request import OpenVinoRequest, vendor_version
from edgebm.spec import EngineConfig, Shapes, TensorSpec

# These move data or run once, when weights are packed.
_NOT_LAYERS = frozenset(
    {"Input", "Output", "Const", "Reorder", "Convert", "Reshape", "Transpose", "ShapeOf", "Gather"}
)
_CELLS = frozenset({"RNNSeq", "RNNCell"})
# Other precisions, such as i32, belong to shape arithmetic.
_PRECISIONS = {
    "f32": "f32", "f16": "f16", "bf16": "bf16", "i8": "int8", "u8": "int8", "i4": "int4",
    "u4": "int4",
}  # fmt: skip

# A compiled model of the vendor, and the options that it was compiled with.
Made = tuple[Any, Mapping[str, str]]
_FLOATS = ("f32", "f16", "bf16")

# OpenVINO 2026.4 fuses an attention over a free number of keys wrongly for a single query: from 16
# keys on the answers are off by a hundred times. Without the fusion they are right, and as fast.
_NO_FUSED_ATTENTION = {"SNIPPETS_MODE": "DISABLE"}


class OpenVinoEngine:
    """IR (`model.xml`, `model.bin`) or `model.onnx`, read from memory; the vendor's cache is off.

    One compiled model serves free shapes; each static set has a reshaped copy of its own. Given
    `compiled`, these are read back and `files` are not looked at.
    """

    runtime = "openvino"
    device = ""
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        files: Files,
        config: EngineConfig,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        compiled: Compiled | None = None,
    ) -> None:
        self._ov = import_vendor("openvino")
        self.version = vendor_version(self._ov)
        self._name = f"openvino {self.version}"
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        keys = [shape_key(shapes, inputs) for shapes in config.static_shapes]
        core = the_core(self._ov)
        try:
            if compiled is None:
                self._made = _compile(core, files, config, inputs)
            else:
                self._made = _read_back(core, compiled)
            self._free, *copies = (model for model, _ in self._made)
            self._static = dict(zip(keys, copies, strict=True))
        except Exception as cause:
            raise vendor_error(self._name, "opening the artifact", cause) from cause
        self._check()

    def request(self, shapes: Shapes, buffers: Buffers = OWN, *, growing: bool = False) -> Request:
        static = None if growing else self._static.get(shape_key(shapes, self._inputs))
        try:
            return OpenVinoRequest(
                self._ov, static or self._free, (self._inputs, self._outputs), shapes, buffers
            )
        except Exception as cause:
            raise vendor_error(self._name, f"binding {dict(shapes)}", cause) from cause

    def executed(self) -> dict[str, int]:
        """Read from the runtime's own graph: of the first static copy, else of the free one."""
        counts: Counter[str] = Counter()
        for node in self._first().get_runtime_model().get_ops():
            info = node.get_rt_info()
            kind, precision = _info(info, "layerType"), _info(info, "runtimePrecision")
            if kind in _NOT_LAYERS or precision not in _PRECISIONS:
                continue
            if kind == "Subgraph" and (inside := _integer_products(node)):
                counts["int8"] += inside
            elif kind == "Subgraph" and _info(info, "outputPrecisions") in _FLOATS:
                # Elementwise, and shown with what it reads: it unpacks integers.
                counts[_info(info, "outputPrecisions")] += 1
            else:
                counts[_computed_in(precision, _info(info, "primitiveType"))] += 1
        return dict(sorted(counts.items()))

    def cells(self) -> dict[str, str]:
        """Read from the runtime's own graph, as `executed`."""
        found: dict[str, str] = {}
        for node in self._first().get_runtime_model().get_ops():
            info = node.get_rt_info()
            if _info(info, "layerType") in _CELLS:
                ran = _PRECISIONS[_info(info, "runtimePrecision")]
                found |= dict.fromkeys(_info(info, "originalLayersNames").split(","), ran)
        return found

    def left_float(self) -> tuple[str, ...]:
        """Empty: what is meant for int8 shows in `executed` alone."""
        return ()

    def _first(self) -> Any:
        """The compiled model that answers the expected shapes."""
        return next(iter(self._static.values()), self._free)

    def profile(self, request: Request, calls: int) -> dict[str, float]:
        assert isinstance(request, OpenVinoRequest)
        compiled, joined = request.compiled, {}
        for node in compiled.get_runtime_model().get_ops():
            sources = _info(node.get_rt_info(), "originalLayersNames")
            joined[node.get_friendly_name()] = f"{node.get_friendly_name()},{sources}"
        times: dict[str, list[float]] = {}
        for _ in range(calls):
            request.infer()
            for layer in request.layers():
                if layer.status == layer.Status.EXECUTED:
                    label = joined.get(layer.node_name, layer.node_name)
                    times.setdefault(label, []).append(layer.real_time.total_seconds() * 1e6)
        return {label: statistics.median(each) for label, each in times.items()}

    def export(self) -> Compiled:
        try:
            blobs = tuple(bytes(model.export_model().getbuffer()) for model, _ in self._made)
        except Exception as cause:
            raise vendor_error(self._name, "exporting what it compiled", cause) from cause
        return Compiled(blobs, tuple(options for _, options in self._made))

    def close(self) -> None:
        self._free = None
        self._made = []
        self._static = {}

    def _check(self) -> None:
        check_face(self._name, "input", self._inputs, _names(self._free.inputs))
        check_face(self._name, "output", self._outputs, _names(self._free.outputs))
        if len(self._free.inputs) != len(self._inputs):
            raise BackendFailed(
                f"{self._name}: the artifact has {len(self._free.inputs)} inputs, the manifest "
                f"{len(self._inputs)}"
            )


def _compile(
    core: Any, files: Files, config: EngineConfig, inputs: Sequence[TensorSpec]
) -> list[Made]:
    """The free model, then its static copies."""
    model = _read(core, files)
    plain = compile_options(config)
    free = {**plain, **_NO_FUSED_ATTENTION} if _attends_with_one_row(model, inputs) else plain
    made: list[Made] = [(core.compile_model(model, "CPU", free), free)]
    for shapes in config.static_shapes:
        copy = model.clone()
        copy.reshape({name: list(shape) for name, shape in shapes.items()})
        made.append((core.compile_model(copy, "CPU", plain), plain))
    return made


def _read_back(core: Any, compiled: Compiled) -> list[Made]:
    return [
        (core.import_model(blob, "CPU", dict(options)), options)
        for blob, options in zip(compiled.blobs, compiled.options, strict=True)
    ]


def _read(core: Any, files: Files) -> Any:
    if "model.xml" in files:
        return core.read_model(files["model.xml"], files["model.bin"])
    return core.read_model(files["model.onnx"], b"")


def _attends_with_one_row(model: Any, inputs: Sequence[TensorSpec]) -> bool:
    """Whether one query may meet a free number of keys, as in a decoder's step.

    Where queries and keys are the same free axis, one query meets one key: an encoder.
    """
    free = {dim for spec in inputs for dim in spec.shape[1:] if isinstance(dim, str)}
    for node in model.get_ops():
        sizes = _queries_and_keys(node)
        if sizes is None:
            continue
        queries, keys = sizes
        if keys.is_dynamic and (queries == 1 or (queries.is_dynamic and len(free) > 1)):
            return True
    return False


def _queries_and_keys(node: Any) -> tuple[Any, Any] | None:
    """How many of each an attention has, written out or as OpenVINO stores it; None for others."""
    kind = node.get_type_name()
    if kind == "ScaledDotProductAttention":
        rows = [node.get_input_partial_shape(port) for port in (0, 1)]
        return (rows[0][-2], rows[1][-2]) if min(map(len, rows)) > 1 else None
    if kind != "Softmax" or len(node.get_output_partial_shape(0)) < 2:
        return None
    *_, queries, keys = node.get_output_partial_shape(0)
    return queries, keys


def _names(ports: Sequence[Any]) -> list[str]:
    return [name for port in ports for name in port.names]


def _computed_in(precision: str, primitive: str) -> str:
    """What a layer is for people: a float kernel has the precision of its weights as its own."""
    label = _PRECISIONS[precision]
    unpacks = label == "int4" or primitive.endswith(("_f32", "_f16", "_bf16"))
    return f"{label} weights" if unpacks and label in ("int8", "int4") else label


def _integer_products(subgraph: Any) -> int:
    """Products in a fused chain of layers, by the int8 matrices that it reads.

    A chain shows the precision of its outer ends, which is f32 where integers are inside.
    """
    sources = [port.get_source_output().get_node() for port in subgraph.inputs()]
    return sum(
        _info(source.get_rt_info(), "layerType") == "Const"
        and _info(source.get_rt_info(), "runtimePrecision") == "i8"
        and len(source.get_output_partial_shape(0)) > 1
        for source in sources
    )


def _info(info: Any, key: str) -> str:
    value = info[key] if key in info else ""  # noqa: SIM401 - the vendor's map has no get
    return str(getattr(value, "value", value))
