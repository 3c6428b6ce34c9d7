"""Facts about this processor: instruction sets, name, and how many threads may run."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from edgebm.runtime.files import read_or_empty

_X86 = (
    "sse4_2", "f16c", "fma", "avx", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
# Linux names on the left, the names people use on the right.
_ARM = {"asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16"}
_CPUINFO = Path("/proc/cpuinfo")
Quota = Callable[[Path], float | None]
# Its lines that tell one processor from another; the others are clocks and numbers of cores.
_IDENTITY = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
    "Model", "Hardware", "isa", "uarch",
)  # fmt: skip
_ARM_PARTS = {
    "0xd03": "Cortex-A53", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2", "0xd4f": "Neoverse-V2", "0xd83": "Neoverse-V3AE",
}  # fmt: skip


def arch() -> str:
    """The instruction set in one spelling: "x86_64", "aarch64", or what the machine says."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """Instruction set extensions that matter to inference, for example "avx2" or "dotprod"."""
    return parse_features(read_or_empty(_CPUINFO), arch())


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name for people."""
    return parse_name(read_or_empty(_CPUINFO)) or arch()


@lru_cache(maxsize=1)
def cpu_identity() -> dict[str, list[str]]:
    """All that tells this processor from others; empty where the system does not say."""
    return parse_identity(read_or_empty(_CPUINFO))


def parse_identity(cpuinfo: str) -> dict[str, list[str]]:
    """The lines of `/proc/cpuinfo` that are no matter of the moment, over all cores."""
    found: dict[str, set[str]] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in _IDENTITY:
            found.setdefault(name.strip(), set()).add(" ".join(value.split()))
    return {name: sorted(values) for name, values in found.items()}


def parse_features(cpuinfo: str, machine: str) -> frozenset[str]:
    """Read the features of `machine` from the text of `/proc/cpuinfo`.

    Only what every core has counts: a thread may run on any of them.
    """
    key = "flags" if machine == "x86_64" else "Features"
    lines = re.findall(rf"^{key}\s*:(.*)$", cpuinfo, re.MULTILINE)
    common = set.intersection(*(set(line.split()) for line in lines)) if lines else set()
    if machine == "aarch64":
        return frozenset({"neon"} | {_ARM[flag] for flag in common & set(_ARM)})
    return frozenset(common & set(_X86))


def parse_name(cpuinfo: str) -> str:
    """The model name in the text of `/proc/cpuinfo`, or an empty string."""
    for key in ("model name", "Model"):
        if found := re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
            return " ".join(found.group(1).split())
    part = re.search(r"^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE)
    return _ARM_PARTS.get(part.group(1), "") if part else ""


def usable_threads(root: Path = Path("/")) -> int:
    """Threads that can run at once: the affinity mask, cut by a cgroup CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cgroup_cpus(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """CPUs allowed by the quota of this process's cgroup (v2, else v1); None without one."""
    quotas = (quota(folder) for folder, quota in _cgroups(root))
    return min((cpus for cpus in quotas if cpus is not None), default=None)


def quota_stops(root: Path = Path("/")) -> int | None:
    """How often a CPU quota stopped this process's cgroups; None where nobody counts."""
    folders = {folder.resolve() for folder, _ in _cgroups(root)}
    texts = [read_or_empty(folder / "cpu.stat") for folder in folders]
    counts = [found for text in texts if (found := re.search(r"^nr_throttled (\d+)$", text, re.M))]
    return sum(int(found.group(1)) for found in counts) if counts else None


def _cgroups(root: Path) -> Iterator[tuple[Path, Quota]]:
    """Folders with the CPU limits of this process, and how each is read.

    A limit holds for everything below it, so every parent counts.
    """
    for line in read_or_empty(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            homes, quota = {""}, _v2_quota
        elif "cpu" in controllers.split(","):
            homes, quota = {controllers, "cpu"}, _v1_quota
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for home in homes:
            base = root / "sys/fs/cgroup" / home
            yield from ((base.joinpath(*parts[:k]), quota) for k in range(len(parts) + 1))


def _v2_quota(folder: Path) -> float | None:
    quota, _, period = read_or_empty(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _v1_quota(folder: Path) -> float | None:
    quota = read_or_empty(folder / "cpu.cfs_quota_us").strip()
    period = read_or_empty(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
