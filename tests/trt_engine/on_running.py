from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trt_cases import Opened, numbers

from edgebm.errors import BackendFailed, BackendLost, Closed, ForkedUse, InputShape, ResourceError
from edgebm.runtime.engines import Buffers

Open = Callable[[str], Opened]


def test_a_fixed_shape(open_case: Open, version: str) -> None:
    case = open_case("fixed")
    assert (case.engine.runtime, case.engine.version) == ("tensorrt", version)
    assert case.engine.device == "Stand-in"
    request = case.request((1, 8))
    assert request.fixed is not None
    for k in range(3):
        case.check(request, numbers(1, 8) + k)
        assert request.outputs[0] is request.fixed[0]


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_free_shapes_and_a_static_set(open_case: Open, rows: int) -> None:
    case = open_case("rows")
    request = case.request((rows, 8))
    assert request.fixed is not None
    case.check(request, numbers(rows, 8))
    case.check(request, -numbers(rows, 8))


@pytest.mark.parametrize("rows", [0, 5])
def test_a_shape_outside_the_profile(open_case: Open, rows: int) -> None:
    case = open_case("rows")
    with pytest.raises(InputShape, match=r"'x' is \[., 8\], outside the profile \[1, 8\] to"):
        case.request((rows, 8))
    case.check(case.request((2, 8)), numbers(2, 8))


def test_several_inputs_dtypes_and_static_sets(open_case: Open) -> None:
    case = open_case("two")
    for rows in (1, 2, 3):
        case.check(case.request((rows, 8), (rows,)), numbers(rows, 8), np.arange(rows) - 1)


def test_outputs_whose_shape_only_values_tell(open_case: Open) -> None:
    case = open_case("values")
    request = case.request((2, 8))
    assert request.fixed is None
    full, empty = np.ones((2, 8), np.float32), np.zeros((2, 8), np.float32)
    for array in (empty, full, np.eye(2, 8, dtype=np.float32), empty, full):
        case.check(request, array)


def test_an_output_that_is_on_the_host(open_case: Open) -> None:
    case = open_case("shape")
    for rows in (2, 3):
        case.check(case.request((rows, 8)), numbers(rows, 8))


def test_requests_do_not_share_anything(open_case: Open) -> None:
    case = open_case("rows")
    first, second = (case.request((2, 8)) for _ in range(2))
    case.check(first, numbers(2, 8))
    kept = first.outputs[0].copy()
    case.check(second, numbers(2, 8) * 2)
    np.testing.assert_array_equal(first.outputs[0], kept)


def test_threads_each_with_a_request(open_case: Open) -> None:
    case = open_case("rows")
    wrong: list[object] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float32)
        request = case.request((2, 8))
        for _ in range(30):
            request.inputs[0][...] = x
            request.infer()
            if not np.allclose(request.outputs[0], np.tanh(x) + x, atol=1e-6):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


def test_arrays_of_the_caller_that_are_not_pinned(open_case: Open) -> None:
    case = open_case("rows")
    x, y = np.ones((2, 8), np.float32), np.zeros((2, 8), np.float32)
    request = case.request((2, 8), buffers=Buffers({"x": x}, {"y": y}))
    assert request.inputs[0] is x
    assert request.outputs[0] is y
    x[...] = numbers(2, 8)
    request.infer()
    np.testing.assert_allclose(y, np.tanh(x) + x, atol=1e-6)


def test_a_buffer_of_another_shape_is_refused(open_case: Open) -> None:
    case = open_case("rows")
    small = np.zeros((1, 8), np.float32)
    with pytest.raises(BackendFailed, match=r"'y' is \[2, 8\], its buffer \[1, 8\]"):
        case.request((2, 8), buffers=Buffers({}, {"y": small}))


def test_inputs_that_grow(open_case: Open) -> None:
    case = open_case("grows")
    request = case.request((1, 2), (0, 2), growing=True)
    assert request.fixed is None
    for rows in (0, 1, 7, 40, 2):
        held = numbers(rows, 2)
        request.bind(1, held)
        case.check(request, numbers(1, 2), held)
    request.bind(1, numbers(41, 2))
    with pytest.raises(InputShape, match="outside the profile"):
        request.infer()


def test_a_state_stays_on_the_device(open_case: Open, gpu: ctypes.CDLL) -> None:
    case = open_case("grows")
    how: dict[str, Any] = {"buffers": Buffers(fed={"c": "d"}), "growing": True}
    request = case.request((1, 2), (0, 2), **how)
    assert request.carry is not None
    request.inputs[0][...] = 1
    gpu.standin_copied(1)
    for step in range(1, 30):
        request.infer()
        assert request.outputs[1].shape == (step, 2)
        assert request.outputs[0][0, 0] == step
        assert gpu.standin_copied(1) == 8  # x alone
        request.carry.keep()
    # A call after which nothing is kept changes nothing.
    request.infer()
    request.infer()
    assert request.outputs[0][0, 0] == 30
    request.carry.drop()
    request.infer()
    assert request.outputs[0][0, 0] == 1


def test_memory_is_given_back(open_case: Open, gpu: ctypes.CDLL) -> None:
    gc.collect()
    before = gpu.standin_used(), gpu.standin_streams()
    case = open_case("values")
    request = case.request((2, 8))
    case.check(request, numbers(2, 8))
    kept = request.outputs
    assert gpu.standin_used() > before[0]
    case.engine.close()
    with pytest.raises(Closed):
        case.request((2, 8))
    del request
    # Arrays that somebody still has stay readable.
    assert kept[0].sum() != 0
    del kept, case
    gc.collect()
    assert (gpu.standin_used(), gpu.standin_streams()) == before


@pytest.mark.parametrize("function", [b"cudaMalloc", b"cudaHostAlloc"])
def test_no_memory_for_a_request(open_case: Open, gpu: ctypes.CDLL, function: bytes) -> None:
    case = open_case("rows")
    gpu.standin_fail(function, 1, 2)
    with pytest.raises(ResourceError, match="out of memory"):
        case.request((2, 8))
    case.check(case.request((2, 8)), numbers(2, 8))


def test_no_memory_for_an_execution_context(open_case: Open, gpu: ctypes.CDLL) -> None:
    case = open_case("rows")
    gpu.standin_limit(100)
    with pytest.raises(ResourceError, match="making an execution context: .*out of memory"):
        case.request((2, 8))
    gpu.standin_reset()
    case.check(case.request((2, 8)), numbers(2, 8))


def test_no_memory_to_read_an_engine(open_case: Open, gpu: ctypes.CDLL) -> None:
    open_case("rows")
    gpu.standin_limit(0)
    with pytest.raises(ResourceError, match="reading the engine: .*out of memory"):
        open_case("rows")


def test_memory_that_runs_out_in_a_call(open_case: Open, gpu: ctypes.CDLL) -> None:
    case = open_case("values")
    request = case.request((4, 8))
    case.check(request, np.eye(4, 8, dtype=np.float32))
    gpu.standin_limit(0)
    request.inputs[0][...] = 1
    with pytest.raises(ResourceError, match="CUDA failed asking for .* on the device"):
        request.infer()
    gpu.standin_reset()
    case.check(case.request((4, 8)), np.ones((4, 8), np.float32))


@pytest.mark.parametrize(
    ("function", "after"),
    [
        (b"cudaMemcpyAsync", 0),
        (b"cudaMemcpyAsync", 1),
        (b"launch", 0),
        (b"cudaStreamSynchronize", 0),
    ],
)
@pytest.mark.parametrize("code", [700, 719, 999])
def test_a_lost_device_stays_lost(
    open_case: Open, gpu: ctypes.CDLL, function: bytes, after: int, code: int
) -> None:
    case = open_case("rows")
    request, other = case.request((2, 8)), case.request((1, 8))
    case.check(request, numbers(2, 8))
    gpu.standin_fail(function, after, code)
    with pytest.raises(BackendLost, match=f"CUDA failed .*{code}") as caught:
        request.infer()
    assert "process anew" in caught.value.hint
    # From here on nothing is asked of the device: it would even seem to work again.
    gpu.standin_reset()
    for call in (request.infer, other.infer, lambda: case.request((2, 8))):
        with pytest.raises(BackendLost, match="the GPU was lost before: CUDA failed"):
            call()


def test_a_fault_that_passes_does_not_lose_the_device(open_case: Open, gpu: ctypes.CDLL) -> None:
    case = open_case("rows")
    request = case.request((2, 8))
    gpu.standin_fail(b"cudaMemcpyAsync", 0, 1)
    with pytest.raises(BackendFailed, match="copying to the device: invalid argument") as caught:
        request.infer()
    assert caught.value.details == {"code": 1, "name": "cudaErrorInvalidValue"}
    case.check(case.request((2, 8)), numbers(2, 8))


def test_nothing_is_copied_behind_a_failed_call(open_case: Open, gpu: ctypes.CDLL) -> None:
    """The arrays may be gone by then."""
    request = open_case("rows").request((2, 8))
    gpu.standin_fail(b"cudaMemcpyAsync", 1, 1)
    with pytest.raises(BackendFailed):
        request.infer()
    assert gpu.standin_waiting() == 0


def test_a_failed_call_leaves_the_carried_state(open_case: Open, gpu: ctypes.CDLL) -> None:
    case = open_case("grows")
    request = case.request((1, 2), (0, 2), buffers=Buffers(fed={"c": "d"}), growing=True)
    request.inputs[0][...] = 1
    request.infer()
    assert request.carry is not None
    request.carry.keep()
    gpu.standin_fail(b"cudaMemcpyAsync", 1, 1)
    with pytest.raises(BackendFailed):
        request.infer()
    request.infer()
    assert request.outputs[1].shape == (2, 2)


def test_what_runs_is_read_from_the_inspector(
    open_case: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_case("int8").engine
    assert engine.executed() == {"f32": 1, "int8": 2}
    assert engine.left_float() == ()
    assert engine.cells() == {}
    nodes = [f"MatMul_{k}" for k in range(20)]
    monkeypatch.setenv("STANDIN_TRT_FLOAT", ",".join(nodes))
    assert engine.executed() == {"f32": 3}
    left = engine.left_float()
    assert len(left) == 2
    assert set(left) < set(nodes)


def test_layers_are_timed(open_case: Open) -> None:
    case = open_case("rows")
    times = case.engine.profile(case.request((2, 8)), 3)
    assert times == {"Tanh_0_myl0,Tanh_0": 250.0, "Add_1_myl0,Add_1": 250.0}


def test_a_forked_child_is_refused_and_takes_nothing_apart(
    open_case: Open, gpu: ctypes.CDLL
) -> None:
    case = open_case("rows")
    request = case.request((2, 8))
    case.check(request, numbers(2, 8))
    gc.collect()
    child = os.fork()
    if not child:
        try:
            open_case("rows")
        except ForkedUse:
            before = gpu.standin_used()
            del case, request
            gc.collect()
            os._exit(gpu.standin_used() != before)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    case.check(request, numbers(2, 8))
