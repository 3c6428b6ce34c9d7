"""One OpenVINO request: tensors bound once, filled and read in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import ResourceError
from edgebm.runtime.engines import (
    Arrays,
    Buffers,
    aligned_empty,
    aligned_zeros,
    vendor_error,
)
from edgebm.runtime.engines.openvino_written import watched
from edgebm.spec import Dim, Shapes, TensorSpec

Face = tuple[Sequence[TensorSpec], Sequence[TensorSpec]]
_NATIVE_ARGUMENTS = "inputs: dict, share_outputs: bool, decode_strings: bool"


class OpenVinoRequest:
    """Face arrays, and where OpenVINO wants another dtype, its own arrays beside them.

    `face` are the inputs and outputs of the model, in order.
    """

    __slots__ = (
        "_after",
        "_before",
        "_face",
        "_infer",
        "_made",
        "_name",
        "_ports",
        "_request",
        "_specs",
        "_tensor",
        "_written",
        "compiled",
        "fixed",
        "inputs"
    )  # fmt: skip

    def __init__(
        self, ov: Any, compiled: Any, face: Face, shapes: Shapes, buffers: Buffers
    ) -> None:
        inputs, outputs = self._face = face
        self._tensor = ov.Tensor
        self._name = f"openvino {vendor_version(ov)}"
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._infer = _bare_infer(ov, self._request)
        self._before: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._ports = [_port(compiled.inputs, s.name) for s in inputs]
        self.inputs: Arrays = tuple(
            buffers.inputs[spec.name]
            if spec.name in buffers.inputs
            else aligned_zeros(shapes[spec.name], np.dtype(spec.dtype))
            for spec in inputs
        )
        for port, array in zip(self._ports, self.inputs, strict=True):
            self._bind_input(port, array)
        self._specs = [
            (_port(compiled.outputs, spec.name), np.dtype(spec.dtype)) for spec in outputs
        ]
        self._made: list[NDArray[Any] | None] = []
        self._after: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._written: list[NDArray[Any]] = []
        for (port, dtype), spec in zip(self._specs, outputs, strict=True):
            self._made.append(self._bind_output(port, dtype, buffers.outputs.get(spec.name)))
        # Buffers that were given may be inputs at the same time.
        if not buffers.outputs and any(p.partial_shape.is_dynamic for p in compiled.inputs):
            self._infer = watched(self._infer, self._written)
        fixed = tuple(array for array in self._made if array is not None)
        self.fixed: Arrays | None = fixed if len(fixed) == len(self._made) else None

    def _bind_input(self, port: int, array: NDArray[Any]) -> None:
        bound = _matching(array, self.compiled.inputs[port].element_type.to_dtype())
        if bound is not array:
            self._before.append((bound, array))
        self._request.set_input_tensor(port, self._tensor(bound, shared_memory=True))

    def _bind_output(
        self, port: int, dtype: np.dtype[Any], given: NDArray[Any] | None
    ) -> NDArray[Any] | None:
        output = self.compiled.outputs[port]
        if given is None and output.partial_shape.is_dynamic:
            return None
        array = aligned_empty(tuple(output.shape), dtype) if given is None else given
        bound = _matching(array, output.element_type.to_dtype())
        if bound is not array:
            self._after.append((array, bound))
        self._written.append(bound)
        self._request.set_output_tensor(port, self._tensor(bound, shared_memory=True))
        return array

    def bind(self, index: int, array: NDArray[Any]) -> None:
        old = self.inputs[index]
        self._before = [pair for pair in self._before if pair[1] is not old]
        try:
            self._bind_input(self._ports[index], array)
        except Exception as cause:
            raise vendor_error(self._name, f"binding input {index}", cause) from cause
        self.inputs = (*self.inputs[:index], array, *self.inputs[index + 1 :])

    @property
    def outputs(self) -> Arrays:
        if self.fixed is not None:
            return self.fixed
        return tuple(
            self._fetch(k) if array is None else array for k, array in enumerate(self._made)
        )

    def _fetch(self, index: int) -> NDArray[Any]:
        port, dtype = self._specs[index]
        data: NDArray[Any] = self._request.get_output_tensor(port).data
        if not data.size:
            self._check_empty(self._face[1][index], data)
        return data.astype(dtype, copy=False)

    def _check_empty(self, spec: TensorSpec, data: NDArray[Any]) -> None:
        """OpenVINO hands out an empty output, and no error, where it finds no memory for it."""
        known: dict[Dim, int] = {}
        for given, array in zip(self._face[0], self.inputs, strict=True):
            known.update(zip(given.shape, array.shape, strict=True))
        due = [d if isinstance(d, int) else known.get(d, 0) for d in spec.shape]
        if any(size and not got for size, got in zip(due, data.shape, strict=True)):
            raise ResourceError(
                f"{self._name} gave {list(data.shape)} for {spec}: there is no memory for it",
                hint="use smaller inputs, or free memory",
            )

    def layers(self) -> Sequence[Any]:
        """The vendor's times of each layer in the last call."""
        found: Sequence[Any] = self._request.profiling_info
        return found

    # `InferRequest.cancel` does not reach a call of `infer`: it goes on to its end (2026.4).
    cancel = None
    carry = None  # its memory is the host's

    def infer(self) -> None:
        for theirs, ours in self._before:
            np.copyto(theirs, ours, casting="unsafe")
        try:
            self._infer()
        except Exception as cause:
            raise vendor_error(self._name, "running", cause) from cause
        for ours, theirs in self._after:
            np.copyto(ours, theirs, casting="unsafe")


def _bare_infer(ov: Any, request: Any) -> Callable[[], Any]:
    """`request.infer` below its dispatch of inputs, which are bound already."""
    native = super(ov.InferRequest, request).infer
    if _NATIVE_ARGUMENTS in (native.__doc__ or ""):
        return partial(native, {}, True, False)  # noqa: FBT003 - names cost a microsecond here
    return partial(request.infer, share_outputs=True)


def vendor_version(ov: Any) -> str:
    """Such as "2026.4.1", without the build."""
    return str(ov.__version__).partition("-")[0]


def _port(ports: Sequence[Any], name: str) -> int:
    return next(index for index, port in enumerate(ports) if name in port.names)


def _matching(array: NDArray[Any], wanted: Any) -> NDArray[Any]:
    dtype = np.dtype(wanted)
    return array if array.dtype == dtype else aligned_empty(array.shape, dtype)
