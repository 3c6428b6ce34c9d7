"""Lines that are wrong at known versions. A check that does not say so proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from wheels import VERSIONS

FIRST, LAST = VERSIONS[0], VERSIONS[-1]
PRELUDE = """\
import tensorrt as trt

def planted(
    builder: trt.Builder,
    config: trt.IBuilderConfig,
    runtime: trt.Runtime,
    engine: trt.ICudaEngine,
    context: trt.IExecutionContext,
) -> None:
"""


@dataclass(frozen=True, slots=True)
class Plant:
    """One line, the error code that mypy has for it, and the versions where it must say so."""

    line: str
    code: str
    versions: tuple[str, ...]


PLANTS = (
    # Removed in 11.
    Plant("config.set_flag(trt.BuilderFlag.FP16)", "attr-defined", (LAST,)),
    Plant("trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "attr-defined", (LAST,)),
    Plant("engine.device_memory_size", "attr-defined", (LAST,)),
    Plant("builder.platform_has_fast_int8", "attr-defined", (LAST,)),
    Plant("config.int8_calibrator = None", "attr-defined", (LAST,)),
    # Removed before 10.3, and younger than 10.3.
    Plant("context.execute_async_v2([], 0)", "attr-defined", VERSIONS),
    Plant("config.tiling_optimization_level", "attr-defined", (FIRST,)),
    # Wrong at every version.
    Plant("context.execute_async_v3('stream')", "arg-type", VERSIONS),
    Plant("config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5)", "arg-type", VERSIONS),
    Plant("context.set_tensor_address('x')", "call-arg", VERSIONS),
    Plant("engine.num_io_tensors = 2", "misc", VERSIONS),
    Plant("1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED", "operator", VERSIONS),
    Plant("runtime.deserialize_cuda_engine(b'').num_io_tensors", "union-attr", VERSIONS),
    Plant("class Deaf(trt.ILogger): log = 1", "assignment", VERSIONS),
    Plant("class Blind(trt.IOutputAllocator): notify_shape = 1", "assignment", VERSIONS),
    # Right at every version: stubs that refuse these would refuse anything.
    Plant("1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)", "", ()),
    Plant("engine.device_memory_size_v2 + engine.num_io_tensors", "", ()),
    Plant("context.set_input_shape('x', (1, 3)) and context.execute_async_v3(0)", "", ()),
    Plant("config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)", "", ()),
)


def source() -> str:
    return PRELUDE + "".join(f"    {plant.line}\n" for plant in PLANTS)


def missed(found: set[tuple[int, str]], version: str) -> list[str]:
    """Sentences about the plants that were not judged as they must be.

    Args:
        found: line number in `source()` and error code of everything the checker said about it.
        version: the version that it was checked against.
    """
    start = PRELUDE.count("\n") + 1
    sentences = []
    for number, plant in enumerate(PLANTS, start):
        codes = sorted(code for line, code in found if line == number)
        expected = [plant.code] if version in plant.versions else []
        if codes != expected:
            wanted, got = expected or ["nothing"], codes or ["nothing"]
            sentences.append(f"planted `{plant.line}`: found {got[0]}, expected {wanted[0]}")
    if any(line < start for line, _ in found):
        sentences.append("the planted file's own prelude is refused")
    return sentences
