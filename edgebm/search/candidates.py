"""What can be shipped: built artifacts, and the ways to run each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from edgebm.backends.dialects import Dialect
from edgebm.ir.model import Model
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.spec import EngineConfig, TensorSpec

DYNAMIC = "int8-dynamic"
CELLS = "int8-cells"
AT_RUN_TIME = frozenset(
    {DYNAMIC, CELLS}
)  # products that take the range of their input at each call


@dataclass(frozen=True, slots=True)
class Face:
    """Inputs and outputs of the source model, which every candidate must show."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One built model file set.

    `kind` is "float", the name of an integer placement ("int8", "int8+attention";
    "int8-reset-before" where GRUs were turned into the form with an INT8 kernel), of products
    that take their range at each call ("int8-dynamic"; "int8-cells" where GRU and RNN layers
    were written out as such products), or of a way to keep weights as integers ("w8", "w4":
    multiplied in float; "w4-packed" on ONNX Runtime and "w4-rounded" on OpenVINO: what they are
    multiplied with is rounded to 8 bits, block by block, at each call).
    `integer_nodes` are the source nodes that were lowered to integers, and `reasons` says of
    each other computing node why it was not. `lowered` is the graph the files were built from.
    `weight_bits` has the bits of nodes whose weights alone are integers. `settings` are options
    that the runtime needs to run the files as they are meant. A `promise` was built from
    made-up ranges: it shows how fast it would be, and cannot be taken. `dialect` says by which
    rules ranges were placed; None where there are none. `decided` is the annotated graph that
    was lowered. `pruned` ones were made from a smaller model than the one to be compressed.
    `precision` is what the files say that float layers compute in; empty where the runtime is
    asked for that.
    """

    runtime: str
    kind: str
    files: Mapping[str, bytes]
    lowered: Model
    integer_nodes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    promise: bool = False
    dialect: Dialect | None = None
    decided: Model | None = None
    pruned: bool = False
    precision: str = ""

    @property
    def source(self) -> Model:
        """`decided` of an artifact that has it."""
        assert self.decided is not None
        return self.decided

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact and how a runtime is asked to run it."""

    artifact: Artifact
    config: EngineConfig

    @property
    def precision(self) -> str:
        """The whole candidate for people: f32, bf16, int8, int8+bf16, int8+attention ...

        What was made from a pruned model has `pruned+` in front.
        """
        kind, rest = self.artifact.kind, self.config.precision
        parts = ["pruned"] if self.artifact.pruned else []
        if kind != "float":
            parts.append(kind)
        if kind == "float" or rest != "f32":
            parts.append(rest)
        return "+".join(parts)

    @property
    def shown_threads(self) -> int:
        """For people; 0 on a GPU, where threads decide nothing."""
        return self.config.threads if self.artifact.runtime in CPU_RUNTIMES else 0

    @property
    def id(self) -> str:
        return f"{self.artifact.runtime}/{self.precision}/t{self.config.threads}"

    @property
    def answers_id(self) -> str:
        """Equal for candidates that give the same answers: thread counts do not matter."""
        return f"{self.artifact.runtime}/{self.precision}"

    @property
    def is_original(self) -> bool:
        """Whether this is the uncompressed model, in whatever precision."""
        return self.artifact.kind == "float" and not self.artifact.pruned

    @property
    def is_float_baseline(self) -> bool:
        """Whether this is the uncompressed f32 model."""
        return self.is_original and self.config.precision == "f32"


def enumerate_candidates(
    artifacts: Sequence[Artifact],
    *,
    threads: Sequence[int],
    precisions: Sequence[str],
    static_shapes: tuple[Mapping[str, tuple[int, ...]], ...],
    axes: Mapping[str, tuple[int, int, int]] = MappingProxyType({}),
    listed: bool = False,
) -> list[Candidate]:
    """Every artifact at every thread count; bf16 where the runtime has it (OpenVINO).

    On a GPU threads decide nothing, and engines are compiled for `axes` (`EngineConfig.axes`);
    `listed` says whether `static_shapes` were asked for, since each takes as long again to build.
    """
    found = []
    for artifact in artifacts:
        gpu = artifact.runtime not in CPU_RUNTIMES
        allowed = precisions if artifact.runtime == "openvino" else [artifact.precision or "f32"]
        for precision in allowed:
            for count in (1,) if gpu else threads:
                config = EngineConfig(
                    precision=precision,
                    threads=count,
                    static_shapes=tuple(static_shapes) if listed or not gpu else (),
                    settings=dict(artifact.settings),
                    axes=dict(axes) if gpu else {},
                )
                found.append(Candidate(artifact, config))
    return found
