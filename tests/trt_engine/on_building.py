from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tensorrt as trt
from trt_cases import Case, Opened, cases, numbers, opened, x, y

from edgebm.errors import (
    BackendCrashed,
    BackendFailed,
    BackendUnavailable,
    CompileTimeout,
    EngineStale,
    ResourceError,
)
from edgebm.runtime.engines import cuda_driver, open_engine, tensorrt_child
from edgebm.runtime.engines.compiled import Compiled
from edgebm.runtime.engines.tensorrt import cache_facts
from edgebm.spec import EngineConfig, TensorSpec

Open = Callable[[str], Opened]


def stored(case: Case, model: bytes) -> None:
    open_engine("tensorrt", {"model.onnx": model}, case.config, case.inputs, case.outputs)


def test_progress_is_told_by_phase() -> None:
    told: list[tuple[str, int, int]] = []
    made = opened(cases()["rows"], progress=lambda *each: told.append(each))
    assert told[0] == ("Building Engine", 0, 2)
    assert told[-1] == ("Building Engine", 2, 2)
    made.check(made.request((2, 8)), numbers(2, 8))


def test_errors_of_the_parser_name_their_nodes() -> None:
    case = cases()["fixed"]
    model = onnx.load_from_string(case.model)
    for name in ("first", "second"):
        model.graph.node.add(
            op_type="Warp", name=name, domain="com.example", input=["x"], output=[name]
        )
    model.opset_import.add(domain="com.example", version=1)
    with pytest.raises(BackendFailed, match="refuses the model") as caught:
        stored(case, model.SerializeToString())
    assert caught.value.details["nodes"] == ["first", "second"]
    assert "node 'second' (Warp): no importer registered for op: Warp" in str(caught.value)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(BackendFailed, match="refuses the model"):
        stored(cases()["fixed"], b"\x08\x0anonsense")


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ((x(1, 9),), (y(1, 8),), r"x: float32\[1, 9\] is \[1, 8\] there"),
        ((x("n", 8),), (y(1, 8),), r"is \[1, 8\] there"),
        ((TensorSpec("a", "float32", (1, 8)),), (y(1, 8),), "has no input"),
        ((x(1, 8),), (TensorSpec("b", "float32", (1, 8)),), "has no output"),
        ((TensorSpec("x", "float16", (1, 8)),), (y(1, 8),), "x: float16.* is FLOAT there"),
    ],
)
def test_another_face_is_refused(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], why: str
) -> None:
    axes = EngineConfig(axes={"n": (1, 2, 3)})
    with pytest.raises((BackendFailed, EngineStale), match=why):
        opened(replace(cases()["fixed"], inputs=inputs, outputs=outputs, config=axes))


def test_an_input_that_decides_shapes_is_refused() -> None:
    case = Case(
        "(float[1,8] x, int64[2] to) => (float[a,b] y) { y = Reshape(x, to) }",
        (x(1, 8), TensorSpec("to", "int64", (2,))),
        (y("a", "b"),),
    )
    with pytest.raises(BackendFailed, match="the values of the input 'to' decide shapes"):
        opened(case)


def test_a_free_axis_without_sizes_is_refused() -> None:
    case = replace(cases()["rows"], config=EngineConfig())
    with pytest.raises(BackendFailed, match="between which sizes n may be"):
        opened(case)


def test_sizes_out_of_order_are_refused() -> None:
    case = replace(cases()["rows"], config=EngineConfig(axes={"n": (4, 2, 1)}))
    with pytest.raises(BackendFailed, match=r"taking the shapes x \[4, 8\] to \[1, 8\]: kMIN"):
        opened(case)


def test_sparse_weights_and_the_workspace_reach_the_builder() -> None:
    case = replace(cases()["fixed"], config=EngineConfig(settings={"sparse_weights": "1"}))
    plan = opened(case, workspace_bytes=12 << 20).engine.export().blobs[0]
    assert b'"flags": ["SPARSE_WEIGHTS"]' in plan
    assert b'"workspace": 12582912' in plan
    plain = opened(cases()["fixed"]).engine.export().blobs[0]
    assert b'"flags": []' in plain
    assert b'"workspace": 1073741824' in plain  # a quarter of 8 GiB would be more


def test_no_memory_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_CUDA_MIB", "1")
    case = cases()["fixed"]
    assert b'"workspace": 262144' in opened(case).engine.export().blobs[0]
    with pytest.raises(ResourceError, match="building the engine: .*out of memory"):
        opened(case, workspace_bytes=2 << 30)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_a_builder_that_dies(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("STANDIN_TRT_FAULT", name)
    with pytest.raises(BackendCrashed, match=f"built the engine with {name}") as caught:
        opened(cases()["fixed"])
    assert ("memory runs out" in caught.value.hint) is (name == "SIGKILL")


def test_a_builder_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_TRT_FAULT", "exit")
    with pytest.raises(BackendFailed, match="ended with code 7"):
        opened(cases()["fixed"])


def test_a_builder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STANDIN_TRT_FAULT", "hang")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(CompileTimeout, match="had not built the engine after 0.5 s"):
        opened(cases()["fixed"], limit_s=0.5)
    assert not list(tmp_path.iterdir())


def test_cancelled_at_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_TRT_STEP_S", "0.3")
    told: list[int] = []
    with pytest.raises(BackendFailed, match="cancelled") as caught:
        opened(
            cases()["rows"],
            progress=lambda _, done, __: told.append(done),
            is_cancelled=lambda: bool(told),
        )
    assert caught.value.details == {"cancelled": True}
    assert max(told) < 2


def test_cancelled_while_it_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_TRT_FAULT", "hang")
    monkeypatch.setattr(tensorrt_child, "_GRACE_S", 0.2)
    with pytest.raises(BackendFailed, match="cancelled"):
        opened(cases()["fixed"], is_cancelled=lambda: True)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_what_the_caller_raises_ends_the_build(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    monkeypatch.setenv("STANDIN_TRT_STEP_S", "60")
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def noted(*arguments: object, **how: object) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **how))  # type: ignore[call-overload]
        return started[-1]

    def stop(*_: object) -> None:
        raise kind("the caller's own")

    monkeypatch.setattr(subprocess, "Popen", noted)
    with pytest.raises(kind, match="the caller's own"):
        opened(cases()["fixed"], progress=stop)
    assert started[0].returncode == -signal.SIGKILL


def test_a_build_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One whose parent is killed notices at its next step."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from trt_cases import cases, opened\n"
        "opened(cases()['rows'], progress=lambda *_: print('begun', flush=True))\n"
    )
    monkeypatch.setenv("STANDIN_TRT_STEP_S", "0.5")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    here = str(Path(__file__).parent)
    with subprocess.Popen([sys.executable, "-c", code, here], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        (folder,) = tmp_path.iterdir()
        parent.kill()

    def builders() -> list[str]:
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(each.read_bytes().decode(errors="replace"))
            except OSError:  # it has ended
                continue
        return [line for line in found if str(folder) in line]

    for _ in range(600):
        if not builders():
            break
        time.sleep(0.05)
    assert not builders()
    assert not (folder / "plan").exists()


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ResourceError, match="cannot be started"):
        opened(cases()["fixed"])


def test_no_space_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(ResourceError, match="an engine cannot be built"):
        opened(cases()["fixed"])


def test_the_plan_goes_through_a_folder_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, object]] = []
    real = subprocess.Popen

    def noted(command: list[str], **how: object) -> subprocess.Popen[bytes]:
        # Ctrl-C does not reach it: it is for the one that loads.
        seen.append((Path(command[-1]).stat().st_mode & 0o777, how["start_new_session"]))
        return real(command, **how)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", noted)
    opened(cases()["fixed"])
    assert seen == [(0o700, True)]


def other(plan: Compiled, old: bytes, new: bytes) -> Compiled:
    assert old in plan.blobs[0]
    return replace(plan, blobs=(plan.blobs[0].replace(old, new),))


def test_a_plan_of_another_version_gpu_or_model_is_stale(open_case: Open, version: str) -> None:
    case = open_case("fixed")
    plan = case.engine.export()
    opened(case.case, plan)
    for wrong in (
        other(plan, version.encode(), b"9" + version.encode()[1:]),
        other(plan, b"Stand-in", b"Other-in"),
        replace(plan, blobs=(b"",)),
        replace(plan, blobs=(b"garbage",)),
    ):
        with pytest.raises(EngineStale, match="another version of TensorRT, or of another GPU"):
            opened(case.case, wrong)
    for name in ("rows", "values", "two"):
        with pytest.raises(EngineStale):
            opened(cases()[name], plan)
    rows = open_case("rows")
    fewer = replace(rows.case, config=replace(rows.case.config, static_shapes=()))
    with pytest.raises(EngineStale, match="built for 2 sets of shapes"):
        opened(fewer, rows.engine.export())


def test_unknown_settings_are_refused() -> None:
    case = replace(cases()["fixed"], config=EngineConfig(settings={"refit": "1"}))
    with pytest.raises(BackendFailed, match="asks tensorrt for settings"):
        opened(case)


def test_facts_of_the_cache_follow_gpu_driver_and_version(
    monkeypatch: pytest.MonkeyPatch, version: str, tmp_path: Path
) -> None:
    first = cache_facts(EngineConfig())
    assert first == cache_facts(EngineConfig())
    assert first["version"] == version
    assert first["gpu"]["name"] == "Stand-in"
    assert first["gpu"]["compute_capability"] == "8.7"
    for name, value in (
        ("STANDIN_CUDA_NAME", "Other"),
        ("STANDIN_CUDA_CAPABILITY", "110"),
        ("STANDIN_CUDA_DRIVER", "13010"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert cache_facts(EngineConfig()) != first
    assert cache_facts(EngineConfig(settings={"sparse_weights": "1"})) != first
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    assert cuda_driver.l4t_release(release) == "36.4.3"
    release.write_text("something else\n")
    assert cuda_driver.l4t_release(release) == "something else"
    assert cuda_driver.l4t_release(tmp_path / "missing") == ""


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_LIBRARY", "libcuda-is-missing.so.1")
    with pytest.raises(BackendUnavailable, match="there is no NVIDIA driver") as caught:
        opened(cases()["fixed"])
    assert "install the driver" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "why", "hint"),
    [
        ("STANDIN_CUDA_DEVICES", "0", "finds no GPU", "--gpus all"),
        ("STANDIN_CUDA_INIT", "100", "finds no GPU", "--gpus all"),
        ("STANDIN_CUDA_INIT", "803", r"cuInit gives 803 \(system has unsupp", "restart"),
        ("STANDIN_CUDA_INIT", "999", r"cuInit gives 999 \(unknown to it\)", "nvidia-smi"),
        ("STANDIN_CUDA_DRIVER", "11040", "the CUDA runtime library is missing", "update the dr"),
    ],
)
def test_a_driver_that_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str, hint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BackendUnavailable, match=why) as caught:
        opened(cases()["fixed"])
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("8.6.1", "8.6.1 is too old: edgebm takes 10.3 to 11.4"),
        ("10.2.0", "is too old"),
        ("11.5.0", "is newer than this edgebm knows"),
        ("12.0", "is newer than this edgebm knows"),
        ("odd", "is not NVIDIA's"),
    ],
)
def test_a_version_that_edgebm_does_not_know(
    monkeypatch: pytest.MonkeyPatch, version: str, why: str
) -> None:
    monkeypatch.setattr(trt, "__version__", version)
    with pytest.raises(BackendUnavailable, match=why) as caught:
        opened(cases()["fixed"])
    if "8." in version:
        assert "ONNX Runtime" in caught.value.hint


@pytest.mark.parametrize(
    ("package", "why"),
    [
        (None, "TensorRT is not installed"),
        ("raise ImportError('libnvinfer.so.10: cannot open')", "half installed: .*libnvinfer"),
        ("import tensorrt_libs", "half installed: .*tensorrt_libs"),
        ("", "is not NVIDIA's"),
        ("__version__ = '10.3.0'\nclass Runtime: ...", "half installed: it has no parser"),
    ],
)
def test_a_package_that_is_missing_or_half_there(
    tmp_path: Path, package: str | None, why: str
) -> None:
    if package is not None:
        (tmp_path / "tensorrt").mkdir()
        (tmp_path / "tensorrt" / "__init__.py").write_text(package)
    code = (
        "from edgebm.errors import BackendUnavailable\n"
        "from edgebm.runtime.engines import prepare\n"
        "try:\n    prepare('tensorrt')\n"
        "except BackendUnavailable as error:\n    print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((root, str(tmp_path)))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(why, done.stdout), done.stdout
