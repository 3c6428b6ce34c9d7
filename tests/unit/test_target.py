from __future__ import annotations

from pathlib import Path

import pytest

from edgebm.errors import TargetError
from edgebm.runtime import cpu
from edgebm.runtime.engines import CPU_RUNTIMES
from edgebm.target import host_target, list_targets, load_target, with_threads

GOOD = """\
name: my-board
description: a board
arch: x86_64
features: [avx2, fma]
runtimes: [onnxruntime]
threads: [1, 2]
"""


def faults(tmp_path: Path, text: str) -> tuple[tuple[int, str, str], ...]:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert str(path) in str(caught.value)
    return caught.value.faults


def test_every_target_that_comes_along_loads() -> None:
    names = list_targets()
    assert names[0] == "host"
    assert set(names) == {
        "host", "cpu-x86-vnni", "cpu-x86-avx2", "cpu-arm64", "raspberry-pi-5", "intel-n100",
        "jetson-orin-nano", "jetson-agx-orin", "jetson-thor", "nvidia-gpu", "cuda-arm64",
        "cuda-x86",
    }  # fmt: skip
    for name in names:
        target = load_target(name)
        assert target.name == name
        assert set(target.runtimes).isdisjoint(CPU_RUNTIMES) == (target.gpu is not None)


def test_facts_that_decide_kernels() -> None:
    pi, n100 = load_target("raspberry-pi-5"), load_target("intel-n100")
    assert "dotprod" in pi.features
    assert "i8mm" not in pi.features
    assert n100.cores == 4
    assert "avx_vnni" in n100.features
    assert "avx512f" not in n100.features
    assert "bf16" not in pi.precisions + n100.precisions


def test_host_is_detected() -> None:
    host = host_target()
    assert host.is_host
    assert host.arch == cpu.arch()
    assert set(host.features) <= cpu.cpu_features()
    assert host.threads[0] == 1 or len(host.threads) == 1
    assert host.threads[-1] == host.cores == cpu.usable_threads()
    assert host.missing() == ()
    assert load_target("host") == host


def test_host_counts_threads_in_powers_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, counts in ((1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))):
        monkeypatch.setattr(cpu, "usable_threads", lambda cores=cores: cores)
        assert host_target().threads == counts


def test_another_architecture_cannot_run_here() -> None:
    other = "cpu-arm64" if cpu.arch() == "x86_64" else "cpu-x86-avx2"
    assert load_target(other).missing() == (load_target(other).arch,)


def test_own_file_and_own_threads(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(GOOD)
    target = load_target(tmp_path / "t.yaml")
    assert target.runtimes == ("onnxruntime",)
    assert not target.is_host
    assert with_threads(target, (3,)).threads == (3,)


def test_all_faults_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("avx2", "avx3").replace("onnxruntime", "onnx") + "thread: 4\ncores: two\n"
    found = faults(tmp_path, text)
    assert [(line, where) for line, where, _ in found] == [
        (4, "features[0]"),
        (5, "runtimes[0]"),
        (7, "thread"),
        (8, "cores"),
    ]
    assert "did you mean 'threads'" in found[2][2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("threads: [1, 2]", "threads: [0]"), "greater than or equal to 1"),
        (("threads: [1, 2]", "threads: []"), "at least one value"),
        (("threads: [1, 2]", "threads: [2, 2]"), "twice"),
        (("threads: [1, 2]", "cores: 1\nthreads: [2]"), "cores are 1"),
        (("[avx2, fma]", "[neon]"), "x86_64 has no neon"),
        (("[onnxruntime]", "[tensorrt]"), "go together"),
        (("[onnxruntime]", "[onnxruntime-cuda]"), "go together"),
        (
            ("runtimes: [onnxruntime]", "runtimes: [tensorrt]\ngpu: {sm: ['8.7']}"),
            "int8 on a GPU goes with f16",
        ),
        (("description: a board\n", ""), "this key is missing"),
        (("my-board", "My Board"), "pattern"),
    ],
)
def test_senseless_facts(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert words in faults(tmp_path, GOOD.replace(*change))[0][2]


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(TargetError) as caught:
        load_target("rasberry-pi5")
    assert "did you mean 'raspberry-pi-5'" in caught.value.hint
    assert "jetson-thor" in caught.value.hint
    with pytest.raises(TargetError, match="no such file"):
        load_target("none/such.yaml")
