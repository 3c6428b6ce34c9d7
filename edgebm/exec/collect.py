"""Run the float graph over samples and stream chosen values to whoever asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BackendFailed, DataError
from edgebm.ir.model import Model
from edgebm.runtime.engines import import_vendor

ort = import_vendor("onnxruntime")  # and not its reports over the network
Feeds = Mapping[str, NDArray[Any]]
Sink = Callable[[NDArray[Any]], None]
Progress = Callable[[str, int, int], None]


class FloatRunner:
    """The graph on ONNX Runtime with any of its values fetched by name.

    `plain` keeps the graph as it is written: no fusion, so that a Q/DQ graph is computed in
    float with rounding (a simulation of integer kernels, free of their saturation). `fused` lets
    ONNX Runtime do all that it can: convolutions take half the time where few values are fetched.
    """

    def __init__(
        self, model: Model, fetch: Sequence[str], *, plain: bool = False, fused: bool = False
    ) -> None:
        probe = model.clone().graph
        values = {v.name: v for node in probe.graph for v in node.outputs}
        have = {v.name for v in (*probe.graph.inputs, *probe.graph.outputs)}
        probe.graph.outputs.extend(values[name] for name in fetch if name not in have)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Spinning workers would slow the observers, which run between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = ort.GraphOptimizationLevel
        most = level.ORT_ENABLE_ALL if fused else level.ORT_ENABLE_BASIC
        options.graph_optimization_level = level.ORT_DISABLE_ALL if plain else most
        try:
            self._session = ort.InferenceSession(
                Model(probe).to_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as cause:
            raise BackendFailed(
                f"onnxruntime {ort.__version__} does not load the model: {cause}"
            ) from cause
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._fetch = [name for name in fetch if name not in self._inputs]
        self._passed = [name for name in fetch if name in self._inputs]

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Values by name for one sample; a fetched model input is handed through."""
        try:
            got = self._session.run(self._fetch, dict(feeds)) if self._fetch else []
        except Exception as cause:
            raise DataError(
                f"onnxruntime {ort.__version__} does not run the model on a sample: {cause}",
                hint="run the uncompressed model on this sample with onnxruntime first",
            ) from cause
        named = dict(zip(self._fetch, got, strict=True))
        return {**named, **{name: feeds[name] for name in self._passed}}


def float_run(model: Model) -> Callable[[Feeds], dict[str, NDArray[Any]]]:
    """The float model as a function from feeds to its outputs."""
    runner = FloatRunner(model, [value.name or "" for value in model.graph.graph.outputs])
    return runner.run


def collect(
    model: Model, samples: Iterable[Feeds], sinks: Mapping[str, Sink], progress: Callable[[], None]
) -> int:
    """Feed each sink (by value name) every sample's value; one sweep, one sample in memory.

    Returns:
        The number of samples seen.

    Raises:
        DataError: a value has NaN or infinity on a sample, or there is no sample.
    """
    runner = FloatRunner(model, list(sinks))
    count = 0
    for index, feeds in enumerate(samples):
        for name, value in runner.run(feeds).items():
            _pass_on(sinks[name], np.asarray(value), f"calibration sample {index}, value '{name}'")
        count = index + 1
        progress()
    if count == 0:
        raise DataError("there are no calibration samples", hint="give data with -d")
    return count


def _pass_on(sink: Sink, value: NDArray[Any], where: str) -> None:
    try:
        sink(value)
    except ValueError as cause:
        raise DataError(f"{where}: {cause}") from cause
