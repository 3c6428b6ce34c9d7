"""Targets: the facts of a board that decide what is built for it and what is tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from edgebm.errors import TargetError
from edgebm.runtime import cpu
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.yaml_file import YamlKind

_STRICT = ConfigDict(extra="forbid", strict=True)
HOST = "host"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Words = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Runtime = Literal["openvino", "onnxruntime", "tensorrt", "onnxruntime-cuda"]
Precision = Literal["f32", "bf16", "f16", "int8"]
Arch = Literal["x86_64", "aarch64"]
Feature = Literal[
    "avx", "avx2", "fma", "f16c", "sse4_2",
    "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16",
    "neon", "fp16", "dotprod", "i8mm", "bf16",
]  # fmt: skip
_ARM = frozenset({"neon", "fp16", "dotprod", "i8mm", "bf16"})
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Release:
    """Software that the maker ships together for a board."""

    jetpack: Words = ""
    tensorrt: Words
    cuda: Words
    python: Words = ""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Gpu:
    """An NVIDIA GPU. `sm` is the compute capability ("8.7"); memory is the board's, if shared."""

    sm: tuple[Words, ...]
    shared_memory: bool = False
    releases: tuple[Release, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Target:
    """A device, or a class of devices.

    `features` are the CPU features that every such device has (words of `runtime/cpu.py`).
    `runtimes` are tried in this order, each with every count in `threads` and every one of
    `precisions`. `memory_mib` and `cores` are None for a class of devices.
    """

    name: Name
    description: Words
    arch: Arch
    features: tuple[Feature, ...] = ()
    runtimes: Annotated[tuple[Runtime, ...], Field(min_length=1)]
    threads: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("f32", "int8")
    memory_mib: tuple[Count, ...] | None = None
    cores: Count | None = None
    gpu: Gpu | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        for field in ("features", "runtimes", "threads", "precisions"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"{field} lists a value twice")
        alien = [f for f in self.features if (f in _ARM) != (self.arch == "aarch64")]
        if alien:
            raise ValueError(f"{self.arch} has no {', '.join(alien)}")
        gpu = set(self.runtimes) - set(CPU_RUNTIMES)
        if bool(gpu) != (self.gpu is not None):
            raise ValueError(
                "the runtimes tensorrt and onnxruntime-cuda and the facts under gpu go together"
            )
        if gpu and "int8" in self.precisions and "f16" not in self.precisions:
            raise ValueError("int8 on a GPU goes with f16, which precisions does not list")
        if self.cores is not None and max(self.threads) > self.cores:
            raise ValueError(f"threads go up to {max(self.threads)}, cores are {self.cores}")

    @property
    def is_host(self) -> bool:
        """Whether this is the machine we are on: only then is latency measured."""
        return self.name == HOST

    @property
    def lanes(self) -> int:
        """Float32 numbers in a vector register: kernels compute channels in blocks of as many.

        8 where that is less: a block of integers holds at least as many.
        """
        return 16 if "avx512f" in self.features else 8

    def missing(self) -> tuple[str, ...]:
        """What this machine lacks to run what is built for the target, as words; () if nothing."""
        if self.arch != cpu.arch():
            return (self.arch,)
        return tuple(f for f in self.features if f not in cpu.cpu_features())


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class _HostFile:
    """What `host.yaml` may say; everything else is detected."""

    name: Literal["host"]
    description: Words
    runtimes: Annotated[tuple[Runtime, ...], Field(min_length=1)]
    notes: str = ""


_KIND = YamlKind("target", "_targets", "targets", TypeAdapter(Target), TargetError)
_HOST_KIND = YamlKind("target", "_targets", "targets", TypeAdapter(_HostFile), TargetError)


def list_targets() -> list[str]:
    """Names of the targets that come along: `host` first, then by name."""
    return sorted(_KIND.names(), key=lambda name: (name != HOST, name))


def load_target(name_or_path: str | Path) -> Target:
    """A target by name, or from a YAML file of your own.

    Raises:
        TargetError: no such target (the nearest name is suggested), or every fault of the
            file at once, each with its line.
    """
    path = _KIND.find(name_or_path)
    if str(name_or_path) == HOST:
        return host_target()
    return _KIND.load(path)


def host_target() -> Target:
    """This machine: CPU features, cores and a thread list as detected now.

    Raises:
        TargetError: a processor that is neither x86-64 nor 64-bit ARM.
    """
    path = _KIND.find(HOST)
    said = _HOST_KIND.load(path)
    cores, features = cpu.usable_threads(), cpu.cpu_features()
    if cpu.arch() not in ("x86_64", "aarch64"):
        raise TargetError(str(path), [(1, "host", f"{cpu.arch()} processors are not supported")])
    known = [feature for feature in get_args(Feature) if feature in features]
    bf16: tuple[Precision, ...] = ("bf16",) if _BF16 & features else ()
    return Target(
        name=said.name,
        description=f"{said.description}: {cpu.cpu_name()}",
        arch="aarch64" if cpu.arch() == "aarch64" else "x86_64",
        features=tuple(known),
        runtimes=said.runtimes,
        threads=_thread_counts(cores),
        precisions=("f32", *bf16, "int8"),
        cores=cores,
        notes=said.notes,
    )


def with_threads(target: Target, threads: tuple[int, ...]) -> Target:
    """The same target with the user's thread counts to try."""
    return replace(target, threads=threads)


def _thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 ... and all cores."""
    powers = [1 << k for k in range(cores.bit_length()) if 1 << k < cores]
    return (*powers, cores)
