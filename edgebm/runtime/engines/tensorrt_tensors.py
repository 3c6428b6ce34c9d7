"""Inputs and outputs of one request: their arrays on the host and their memory on the device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from edgebm.errors import BackendFailed, EdgebmError
from edgebm.runtime.engines.cuda_buffers import DeviceBlock, pinned_zeros
from edgebm.runtime.engines.cuda_runtime import CudaRuntime

Array = NDArray[Any]
Shape = tuple[int, ...]
_GROWTH = 2  # of memory for tensors that grow from call to call


class InputTensor:
    """An input. `shape` is that of the next call.

    That of `array`, unless the tensor is `carried`: then what the device holds is used.
    """

    __slots__ = ("array", "block", "carried", "name", "on_host", "shape")

    def __init__(self, name: str, array: Array, *, on_host: bool) -> None:
        self.name, self.on_host = name, on_host
        self.block: DeviceBlock | None = None
        self.take(array)

    def take(self, array: Array) -> None:
        """Read `array` from now on."""
        self.array = array
        self.refill()

    def refill(self) -> None:
        """Read the array again."""
        self.shape: Shape = self.array.shape
        self.carried = False

    def place(self, cuda: CudaRuntime) -> int:
        """The address for the next call: of memory that is large enough."""
        if self.on_host:
            return self.array.ctypes.data
        if self.carried:
            assert self.block is not None
            return self.block.address
        self.block = _roomy(cuda, self.block, self.array.nbytes)
        return self.block.address


class OutputTensor:
    """An output. `array` is what the last call gave.

    `given` has the shape of every call; without it the array is made where the shape is known, at
    once or for each call.
    """

    __slots__ = ("_stage", "array", "block", "dtype", "given", "name", "on_host", "shape")

    def __init__(
        self, name: str, dtype: np.dtype[Any], given: Array | None, *, on_host: bool
    ) -> None:
        self.name, self.dtype, self.given, self.on_host = name, dtype, given, on_host
        self.block: DeviceBlock | None = None
        self.shape: Shape | None = None
        self.array: Array | None = given
        self._stage: Array | None = None

    @property
    def count(self) -> int:
        """Bytes of an output whose shape is known."""
        assert self.shape is not None
        return math.prod(self.shape) * self.dtype.itemsize

    def make(self, cuda: CudaRuntime, shape: Shape) -> None:
        """Make the array for this shape, on the same memory as before if there is enough.

        Raises:
            BackendFailed: the array that was given has another shape.
        """
        self.shape = shape
        if self.array is not None and self.array.shape == shape:
            return
        if self.given is not None:
            raise BackendFailed(
                f"the output {self.name!r} is {list(shape)}, its buffer {list(self.given.shape)}"
            )
        if self._stage is None or self._stage.nbytes < self.count:
            room = self.count if self._stage is None else self.count * _GROWTH
            self._stage = pinned_zeros(cuda, (max(room, 1),), np.dtype(np.uint8))
        self.array = self._stage[: self.count].view(self.dtype).reshape(shape)

    def place(self, cuda: CudaRuntime) -> int:
        """The address for the next call, which gives the shape that is known."""
        if self.on_host:
            assert self.array is not None
            return self.array.ctypes.data
        self.block = _roomy(cuda, self.block, self.count)
        return self.block.address


class OutputAllocator(trt.IOutputAllocator):
    """Gives TensorRT memory for an output whose shape only the call itself tells.

    TensorRT calls it while it runs; `error` is why there was no memory.
    """

    def __init__(self, cuda: CudaRuntime, tensor: OutputTensor) -> None:
        trt.IOutputAllocator.__init__(self)
        self._cuda, self._tensor = cuda, tensor
        self.error: EdgebmError | None = None

    def reallocate_output(
        self, tensor_name: str, memory: int | None, size: int, alignment: int
    ) -> int:
        try:
            self._tensor.block = _roomy(self._cuda, self._tensor.block, size)
        except EdgebmError as error:  # it must not get into TensorRT's own code
            self.error = error
            return 0
        return self._tensor.block.address

    def reallocate_output_async(
        self, tensor_name: str, memory: int | None, size: int, alignment: int, stream: int
    ) -> int:
        return self.reallocate_output(tensor_name, memory, size, alignment)

    def notify_shape(self, tensor_name: str, shape: trt.Dims) -> None:
        self._tensor.shape = tuple(shape)


def _roomy(cuda: CudaRuntime, block: DeviceBlock | None, count: int) -> DeviceBlock:
    """`block` if it is large enough, else a new one, with room to grow if there was one before."""
    if block is not None and block.size >= count:
        return block
    return DeviceBlock(cuda, count if block is None else count * _GROWTH)
