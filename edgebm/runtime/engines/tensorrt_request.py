"""One TensorRT request: an execution context with a stream and buffers of its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from edgebm.errors import BackendError, BackendFailed, InputShape
from edgebm.runtime.engines import Arrays, Buffers, Carry
from edgebm.runtime.engines.cuda_buffers import Stream, pinned_zeros
from edgebm.runtime.engines.tensorrt_library import ERRORS, keep_in_children
from edgebm.runtime.engines.tensorrt_plan import LoadedPlan
from edgebm.runtime.engines.tensorrt_tensors import InputTensor, OutputAllocator, OutputTensor
from edgebm.spec import Shapes

Copy = tuple[int, int, int]  # device, host, bytes


class TensorRtRequest:
    """Face arrays in pinned memory, or those that were given, beside memory on the device.

    `profile` is the number of the optimization profile; one that is `growing` takes other shapes
    in later calls.
    """

    # A call cannot be stopped: what was put into the stream runs to its end.
    cancel = None

    def __init__(
        self, plan: LoadedPlan, profile: int, shapes: Shapes, buffers: Buffers, *, growing: bool
    ) -> None:
        inputs, outputs = plan.face
        keep_in_children(self)
        self._plan, self._cuda, self._profile = plan, plan.cuda, profile
        self._cuda.refuse_if_lost()
        # In this order they are taken apart: the stream behind the context that used it.
        self._context = plan.context()
        self._stream = Stream(self._cuda)
        if plan.profiles:
            self._choose_profile()
        self._ins = [
            InputTensor(
                spec.name,
                buffers.inputs[spec.name]
                if spec.name in buffers.inputs
                else pinned_zeros(self._cuda, shapes[spec.name], np.dtype(spec.dtype)),
                on_host=self._is_on_host(spec.name),
            )
            for spec in inputs
        ]
        self._outs = [
            OutputTensor(
                spec.name,
                np.dtype(spec.dtype),
                buffers.outputs.get(spec.name),
                on_host=self._is_on_host(spec.name),
            )
            for spec in outputs
        ]
        self._allocators: dict[str, OutputAllocator] = {}
        self._fed = _pairs(buffers, self._ins, self._outs)
        self._uploads: list[Copy] = []
        self._downloads: list[Copy] = []
        # Values on the host may change shapes from call to call.
        self._always = any(each.on_host for each in self._ins)
        self._settled = False
        self._arrange()
        known = not (growing or self._allocators or self._always)
        self.fixed: Arrays | None = self.outputs if known else None

    @property
    def inputs(self) -> Arrays:
        return tuple(each.array for each in self._ins)

    @property
    def outputs(self) -> Arrays:
        return tuple(each.array for each in self._outs if each.array is not None)

    @property
    def carry(self) -> Carry | None:
        return self if self._fed else None

    def bind(self, index: int, array: NDArray[Any]) -> None:
        self._ins[index].take(array)
        self._settled = False

    def keep(self) -> None:
        """What the last call gave for each fed output is its input from now on."""
        for taken, given in self._fed:
            taken.block, given.block = given.block, taken.block
            assert given.shape is not None
            taken.shape, taken.carried = given.shape, True
        self._settled = False

    def drop(self) -> None:
        """Read the arrays of all inputs again."""
        for taken, _ in self._fed:
            taken.refill()
        self._settled = False

    def infer(self) -> None:
        cuda, stream = self._cuda, self._stream.handle
        cuda.refuse_if_lost()
        try:
            if self._always or not self._settled:
                self._arrange()
            for device, host, count in self._uploads:
                cuda.to_device(device, host, count, stream)
            self._execute()
            for device, host, count in self._downloads:
                cuda.to_host(host, device, count, stream)
            cuda.wait(stream)
            if self._allocators:
                self._fetch()
        except BaseException:
            # Nothing may still be copied when the arrays go.
            cuda.drain(stream)
            raise

    def times_us(self, calls: int) -> dict[str, float]:
        """The median microseconds of each layer over so many calls."""
        profiler = _Profiler()
        self._context.profiler = profiler
        for _ in range(calls):
            self.infer()
        return {label: statistics.median(each) for label, each in profiler.times_us.items()}

    def _execute(self) -> None:
        mark = ERRORS.mark()
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._failed("running", mark)

    def _choose_profile(self) -> None:
        mark = ERRORS.mark()
        stream = self._stream.handle
        if not self._context.set_optimization_profile_async(self._profile, stream):
            raise self._failed(f"choosing the shapes of profile {self._profile}", mark)
        self._cuda.wait(stream, "choosing the shapes")

    def _is_on_host(self, name: str) -> bool:
        """Whether a tensor decides shapes: TensorRT reads and writes such on the host."""
        return bool(self._plan.engine.get_tensor_location(name) == trt.TensorLocation.HOST)

    def _arrange(self) -> None:
        """Tell TensorRT the shapes and addresses of the next call; what is to be copied for it."""
        context, cuda = self._context, self._cuda
        for each in self._ins:
            mark = ERRORS.mark()
            if not context.set_input_shape(each.name, each.shape):
                raise self._outside(each, mark)
            self._point(each.name, each.place(cuda))
        if missing := context.infer_shapes():
            raise BackendFailed(f"{self._plan.name} cannot tell shapes without {list(missing)}")
        for out in self._outs:
            self._arrange_output(out)
        self._uploads = [
            (each.block.address, each.array.ctypes.data, each.array.nbytes)
            for each in self._ins
            if each.block is not None and not each.carried and each.array.nbytes
        ]
        self._downloads = [
            (out.block.address, out.array.ctypes.data, out.count)
            for out in self._outs
            if out.name not in self._allocators and out.block and out.array is not None
            if out.count
        ]
        self._settled = True

    def _arrange_output(self, out: OutputTensor) -> None:
        shape = tuple(self._context.get_tensor_shape(out.name))
        if min(shape, default=0) >= 0:
            out.make(self._cuda, shape)
            self._point(out.name, out.place(self._cuda))
        elif out.name not in self._allocators:
            allocator = OutputAllocator(self._cuda, out)
            if not self._context.set_output_allocator(out.name, allocator):
                raise self._failed(f"taking memory for {out.name!r}", ERRORS.mark())
            self._allocators[out.name] = allocator

    def _point(self, name: str, address: int) -> None:
        mark = ERRORS.mark()
        if not self._context.set_tensor_address(name, address):
            raise self._failed(f"taking memory for {name!r}", mark)

    def _fetch(self) -> None:
        """Copy outputs whose shapes the call has told."""
        cuda, stream = self._cuda, self._stream.handle
        for out in self._outs:
            if out.name not in self._allocators:
                continue
            assert out.shape is not None
            out.make(cuda, out.shape)
            if out.block is not None and out.array is not None and out.count:
                cuda.to_host(out.array.ctypes.data, out.block.address, out.count, stream)
        cuda.wait(stream)

    def _failed(self, doing: str, mark: int) -> BackendError:
        self._cuda.wait(self._stream.handle, doing)
        for allocator in self._allocators.values():
            if isinstance(allocator.error, BackendError):
                return allocator.error
        return self._plan.failed(doing, mark)

    def _outside(self, tensor: InputTensor, mark: int) -> BackendError | InputShape:
        if not self._plan.profiles:
            return self._failed(f"taking the shape {list(tensor.shape)}", mark)
        sizes = self._plan.profiles[self._profile][tensor.name]
        return InputShape(
            f"{tensor.name!r} is {list(tensor.shape)}, outside the profile {sizes} that the "
            "engine was built for",
            hint="compress the model with the sizes that are needed",
            details={"input": tensor.name, "shape": list(tensor.shape)},
        )


class _Profiler(trt.IProfiler):
    """Collects what TensorRT's own clock says of each layer."""

    def __init__(self) -> None:
        trt.IProfiler.__init__(self)
        self.times_us: dict[str, list[float]] = {}

    def report_layer_time(self, layer_name: str, ms: SupportsFloat) -> None:
        self.times_us.setdefault(layer_name, []).append(float(ms) * 1e3)


def _pairs(
    buffers: Buffers, inputs: Sequence[InputTensor], outputs: Sequence[OutputTensor]
) -> list[tuple[InputTensor, OutputTensor]]:
    """What is fed back on the device; tensors on the host are fed back there."""
    takers = {each.name: each for each in inputs if not each.on_host}
    givers = {each.name: each for each in outputs if not each.on_host}
    pairs = [(takers.get(taken), givers.get(given)) for taken, given in buffers.fed.items()]
    found = [(a, b) for a, b in pairs if a is not None and b is not None]
    return found if len(found) == len(pairs) else []
