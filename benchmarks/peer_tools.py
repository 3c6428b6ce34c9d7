"""The other tools, each with its own documented defaults, and how their artifacts are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
from numpy.typing import NDArray
from onnxruntime import quantization as ortq
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

Feeds = Mapping[str, NDArray[Any]]
CORE = ov.Core()


@dataclass(frozen=True)
class Source:
    """A float model, the one shape it is timed at, and its calibration samples."""

    model: Path
    shapes: Mapping[str, tuple[int, ...]]
    calibration: Path
    folder: Path
    transformer: bool

    def samples(self) -> list[dict[str, NDArray[Any]]]:
        """The calibration samples, one at a time with a batch axis of 1."""
        with np.load(self.calibration) as stored:
            arrays = {name: stored[name] for name in stored.files}
        count = len(next(iter(arrays.values())))
        return [{k: v[i : i + 1] for k, v in arrays.items()} for i in range(count)]


@dataclass(frozen=True)
class Built:
    """A file a runtime can load, and the seconds it took to quantize."""

    path: Path
    seconds: float


def size_of(path: Path) -> int:
    """Bytes of an artifact; an IR is two files."""
    weights = path.with_suffix(".bin")
    extra = weights.stat().st_size if path.suffix == ".xml" else 0
    return path.stat().st_size + extra


def _is_stale(path: Path, origin: Path) -> bool:
    """Whether ``path`` is missing or older than what it is made from."""
    return not path.exists() or path.stat().st_mtime < origin.stat().st_mtime


def fixed_onnx(source: Source) -> Path:
    """The source with its axes fixed to the timed shape."""
    path = source.folder / "float.onnx"
    if _is_stale(path, source.model):
        model = onnx.load(source.model)
        for name, shape in source.shapes.items():
            make_input_shape_fixed(model.graph, name, shape)
        onnx.save(model, path)
    return path


def build_openvino(source: Source) -> Built:
    """The float model as OpenVINO IR."""
    path = source.folder / "float.xml"
    ov.save_model(ov.convert_model(fixed_onnx(source)), path, compress_to_fp16=False)
    return Built(path, 0.0)


def build_nncf(source: Source, *, transformer: bool = False) -> Built:
    """``nncf.quantize`` with its defaults, or told that the model is a Transformer."""
    import nncf

    model = ov.convert_model(fixed_onnx(source))
    dataset = nncf.Dataset(source.samples())
    options = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
    begin = time.perf_counter()
    quantized = nncf.quantize(model, dataset, **options)
    seconds = time.perf_counter() - begin
    path = source.folder / f"nncf{'_transformer' if transformer else ''}.xml"
    ov.save_model(quantized, path, compress_to_fp16=False)
    return Built(path, seconds)


class Reader(ortq.CalibrationDataReader):
    """Calibration samples in the form ONNX Runtime asks for."""

    def __init__(self, samples: list[dict[str, NDArray[Any]]]) -> None:
        self.rest = iter(samples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self.rest, None)


def preprocessed(source: Source) -> Path:
    """The model after the preparation that ONNX Runtime's documentation asks for."""
    path = source.folder / "preprocessed.onnx"
    if _is_stale(path, source.model):
        # Its symbolic shape inference stops at Expand nodes of exported Transformers.
        quant_pre_process(fixed_onnx(source), path, skip_symbolic_shape=True)
    return path


def build_ort_static(source: Source, *, reduced: bool) -> Built:
    """``quantize_static`` with its defaults, or as its documentation says for AVX2 CPUs.

    That is: unsigned activations, signed weights of 7 bits (``reduce_range``) per channel.
    """
    options: dict[str, Any] = {}
    if reduced:
        options = {
            "activation_type": ortq.QuantType.QUInt8,
            "weight_type": ortq.QuantType.QInt8,
            "per_channel": True,
            "reduce_range": True,
        }
    path = source.folder / f"ort_static{'_reduced' if reduced else ''}.onnx"
    prepared = preprocessed(source)
    begin = time.perf_counter()
    ortq.quantize_static(prepared, path, Reader(source.samples()), **options)
    return Built(path, time.perf_counter() - begin)


def build_ort_dynamic(source: Source, *, prepare: bool = True) -> Built:
    """``quantize_dynamic`` with its defaults, but unsigned weights where a Conv needs them.

    Without ``prepare`` it gets the file as the framework exported it.
    """
    prepared = preprocessed(source) if prepare else source.model
    # ONNX Runtime has no ConvInteger kernel for signed weights.
    convolves = any(node.op_type == "Conv" for node in onnx.load(prepared).graph.node)
    kind = ortq.QuantType.QUInt8 if convolves else ortq.QuantType.QInt8
    path = source.folder / f"ort_dynamic{'' if prepare else '_as_exported'}.onnx"
    begin = time.perf_counter()
    ortq.quantize_dynamic(prepared, path, weight_type=kind)
    return Built(path, time.perf_counter() - begin)


class OpenVino:
    """A compiled IR with its tensors bound once."""

    def __init__(self, path: Path, source: Source, threads: int, precision: str) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self.compiled = CORE.compile_model(path, "CPU", settings)
        self.request = self.compiled.create_infer_request()
        self.names = [output.get_any_name() for output in self.compiled.outputs]
        self.call: Callable[[], object] = self.request.infer

    def bind(self, feeds: Feeds) -> None:
        """Bind copies of ``feeds`` as the inputs of the calls to come."""
        self.inputs = {k: ov.Tensor(np.ascontiguousarray(v).copy()) for k, v in feeds.items()}
        for name, tensor in self.inputs.items():
            self.request.set_tensor(name, tensor)

    def run(self, feeds: Feeds) -> Feeds:
        """One answer, for evaluation."""
        for name, array in feeds.items():
            self.inputs[name].data[...] = array
        self.request.infer()
        return {name: self.request.get_tensor(name).data for name in self.names}


class OnnxRuntime:
    """An ONNX Runtime session with its tensors bound once."""

    def __init__(self, path: Path, source: Source, threads: int, precision: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.names = [output.name for output in self.session.get_outputs()]
        for name in self.names:
            self.binding.bind_output(name, "cpu")

    def bind(self, feeds: Feeds) -> None:
        """Bind copies of ``feeds`` as the inputs of the calls to come."""
        # A value has the memory of its array, and `run` writes there.
        copies = {name: np.array(array, order="C") for name, array in feeds.items()}
        self.inputs = {k: ort.OrtValue.ortvalue_from_numpy(v) for k, v in copies.items()}
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)

    def call(self) -> None:
        """Run the bound tensors."""
        self.session.run_with_iobinding(self.binding)

    def run(self, feeds: Feeds) -> Feeds:
        """One answer, for evaluation."""
        for name, array in feeds.items():
            self.inputs[name].update_inplace(np.ascontiguousarray(array))
        self.call()
        values = self.binding.get_outputs()
        return {n: v.numpy() for n, v in zip(self.names, values, strict=True)}


Engine = type[OpenVino] | type[OnnxRuntime]


@dataclass(frozen=True)
class Peer:
    """One setting of another tool."""

    name: str
    engine: Engine
    build: Callable[[Source], Built]
    precision: str = "f32"

    def artifact(self, source: Source) -> str:
        """Peers that share it differ only in how it is run."""
        return self.name.removesuffix(", bf16")


def peers_for(source: Source) -> list[Peer]:
    """Every peer that fits this model and this CPU."""
    capable = "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    builds: list[tuple[str, Callable[[Source], Built]]] = [
        ("OpenVINO float", build_openvino),
        ("NNCF + OpenVINO", build_nncf),
    ]
    if source.transformer:
        transformer = lambda s: build_nncf(s, transformer=True)  # noqa: E731
        builds.append(("NNCF (TRANSFORMER) + OpenVINO", transformer))
    found = [Peer(name, OpenVino, build) for name, build in builds]
    if capable:
        found += [Peer(f"{name}, bf16", OpenVino, build, "bf16") for name, build in builds]
    static = lambda s: build_ort_static(s, reduced=False)  # noqa: E731
    reduced = lambda s: build_ort_static(s, reduced=True)  # noqa: E731
    return [
        *found,
        Peer("ONNX Runtime float", OnnxRuntime, lambda s: Built(fixed_onnx(s), 0.0)),
        Peer("ONNX Runtime static", OnnxRuntime, static),
        Peer("ONNX Runtime static, u8 x s7", OnnxRuntime, reduced),
        Peer("ONNX Runtime dynamic", OnnxRuntime, build_ort_dynamic),
    ]
