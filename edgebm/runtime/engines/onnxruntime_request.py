"""A call of an ONNX Runtime session on arrays of the host, through IO binding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.engines import Arrays, Buffers, aligned_empty, aligned_zeros, vendor_error
from edgebm.spec import Shapes, TensorSpec

Face = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


class OnnxRuntimeRequest:
    """Tensors of the host, whatever computes: a session on a GPU copies them in and out itself.

    `face` are inputs and outputs of the model, `name` is the vendor's for errors, and `options` a
    new `RunOptions`.
    """

    __slots__ = (
        "_binding", "_free", "_made", "_name", "_options", "_ports", "_run", "fixed", "inputs",
        "session",
    )  # fmt: skip

    def __init__(
        self, name: str, session: Any, options: Any, face: Face, shapes: Shapes, buffers: Buffers
    ) -> None:
        self._name, self._options = name, options
        self.session = session
        inputs, outputs = face
        self._binding = session.io_binding()
        self._ports = [spec.name for spec in inputs]
        self.inputs: Arrays = tuple(
            buffers.inputs[spec.name]
            if spec.name in buffers.inputs
            else aligned_zeros(shapes[spec.name], np.dtype(spec.dtype))
            for spec in inputs
        )
        for index, array in enumerate(self.inputs):
            self._bind_input(index, array)
        known = {arg.name: arg.shape for arg in session.get_outputs()}
        self._made: list[Any] = []
        self._free: list[tuple[int, str]] = []
        for index, spec in enumerate(outputs):
            self._bind_output(index, spec, known[spec.name], buffers.outputs.get(spec.name))
        self._run = bare_run(session, self._binding, options)
        self.fixed: Arrays | None = None if self._free else tuple(self._made)

    def _bind_input(self, index: int, array: NDArray[Any]) -> None:
        kind, pointer = array.dtype.type, array.ctypes.data
        self._binding.bind_input(self._ports[index], "cpu", 0, kind, array.shape, pointer)

    def _bind_output(
        self, index: int, spec: TensorSpec, shape: Sequence[Any], given: NDArray[Any] | None
    ) -> None:
        # A rank-0 output and one of unknown rank both show an empty shape; the face decides.
        known = all(isinstance(dim, int) for dim in shape) and len(shape) == len(spec.shape)
        if given is not None or known:
            array = aligned_empty(shape, np.dtype(spec.dtype)) if given is None else given
            pointer = array.ctypes.data
            self._binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, pointer)
            self._made.append(array)
        else:
            self._binding.bind_output(spec.name, "cpu")
            self._made.append(None)
            self._free.append((index, spec.name))

    @property
    def outputs(self) -> Arrays:
        if self.fixed is not None:
            return self.fixed
        values = self._binding.get_outputs()
        return tuple(
            values[index].numpy() if array is None else array
            for index, array in enumerate(self._made)
        )

    carry = None  # its memory is the host's

    def bind(self, index: int, array: NDArray[Any]) -> None:
        try:
            self._bind_input(index, array)
        except Exception as cause:
            raise vendor_error(self._name, f"binding {self._ports[index]}", cause) from cause
        self.inputs = (*self.inputs[:index], array, *self.inputs[index + 1 :])

    def cancel(self) -> None:
        self._options.terminate = True

    def infer(self) -> None:
        try:
            # An output that ONNX Runtime allocated stays bound and must not be written again: its
            # size was that of the last call.
            for _, name in self._free:
                self._binding.bind_output(name, "cpu")
            self._run()
        except Exception as cause:
            raise vendor_error(self._name, "running", cause) from cause


def bare_run(session: Any, binding: Any, options: Any) -> Callable[[], Any]:
    """`session.run_with_iobinding` below its checks for GPUs, which cost a microsecond."""
    native = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    bound = getattr(binding, "_iobinding", None)
    if native is None or bound is None:
        return partial(session.run_with_iobinding, binding, options)
    return partial(native, bound, options)
