from __future__ import annotations

from pathlib import Path

import pytest

from edgebm.runtime import cpu

X86 = "model name\t: Test  CPU @ 2GHz\nflags\t\t: fpu avx2 fma avx512_vnni\n"
ARM = "CPU part\t: 0xd0b\nFeatures\t: fp asimd asimddp bf16\n"


def test_features_use_the_words_of_people() -> None:
    assert cpu.parse_features(X86, "x86_64") == {"avx2", "fma", "avx512_vnni"}
    assert cpu.parse_features(ARM, "aarch64") == {"neon", "dotprod", "bf16"}
    assert cpu.parse_features("", "x86_64") == frozenset()
    assert cpu.parse_features("", "aarch64") == {"neon"}


def test_only_what_every_core_has_counts() -> None:
    both = ARM + "Features : fp asimd\n"
    assert cpu.parse_features(both, "aarch64") == {"neon"}


def test_names() -> None:
    assert cpu.parse_name(X86) == "Test CPU @ 2GHz"
    assert cpu.parse_name(ARM) == "Cortex-A76"
    assert cpu.parse_name(ARM + "Model : Raspberry Pi 5 Model B\n") == "Raspberry Pi 5 Model B"
    assert cpu.parse_name("") == ""
    assert cpu.cpu_name()


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.row(52)
@pytest.mark.parametrize(
    ("limit", "cpus"), [("50000 100000", 0.5), ("250000 100000", 2.5), ("max 100000", None)]
)
def test_a_quota_of_cgroup_v2(tmp_path: Path, limit: str, cpus: float | None) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    put(tmp_path, "sys/fs/cgroup/a/cpu.max", limit + "\n")
    assert cpu.cgroup_cpus(tmp_path) == cpus


@pytest.mark.row(52)
def test_the_tightest_quota_of_all_parents_holds(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    put(tmp_path, "sys/fs/cgroup/a/cpu.max", "100000 100000")
    put(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "400000 100000")
    assert cpu.cgroup_cpus(tmp_path) == 1
    assert cpu.usable_threads(tmp_path) == 1


@pytest.mark.row(52)
def test_a_quota_of_cgroup_v1(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/x\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    assert cpu.cgroup_cpus(tmp_path) == 1.5
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n")
    assert cpu.cgroup_cpus(tmp_path) is None


@pytest.mark.row(52)
def test_half_a_cpu_is_one_thread_and_no_quota_is_the_affinity_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert cpu.usable_threads(tmp_path) == 3
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000")
    assert cpu.usable_threads(tmp_path) == 1


def test_one_spelling_for_each_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, name in (("AMD64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")):
        monkeypatch.setattr(cpu.platform, "machine", lambda said=said: said)
        assert cpu.arch() == name
