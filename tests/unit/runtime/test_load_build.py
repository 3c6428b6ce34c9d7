"""Engines that take minutes: not built unasked, waited for, or read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from slow_engine import BOTH, RUNTIME, SlowRuntime, asked

import edgebm
from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed, BackendUnavailable, EngineStale, UsageError
from edgebm.runtime import session as session_module
from edgebm.runtime.build_rules import BuildRules
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.container import MANIFEST


@pytest.mark.usefixtures("slow")
def test_nothing_is_built_unasked(bundle: Path) -> None:
    with pytest.raises(EngineStale, match="is not built on this device") as caught:
        edgebm.load(bundle, RUNTIME, cache=False)
    assert f"edgebm build {bundle}" in caught.value.hint
    with edgebm.load(bundle, BOTH, cache=False) as session:
        assert asked(session) == 1
        report = session.report()
        assert report["degraded"] is True
        assert "not built" in report["why"]
        assert report["build"] is None


def test_a_runtime_that_is_missing_is_said_before_a_build_is_advised(
    tmp_path: Path, bundle: Path
) -> None:
    read = read_bundle(bundle)
    first, second = read.manifest.variants
    members = {name: bytes(data) for name, data in read.members.items() if name != MANIFEST}
    manifest = replace(read.manifest, variants=(first, replace(second, runtime="tensorrt")))
    path = write_bundle(tmp_path / "trt.edgebm", manifest, members)
    with pytest.raises(BackendUnavailable):
        edgebm.load(path, "tensorrt", cache=False)


def test_waiting_builds_with_the_limits_that_are_given(slow: SlowRuntime, bundle: Path) -> None:
    slow.go.set()
    seen: list[tuple[str, int, int]] = []
    rules = BuildRules("wait", 30, 1 << 20, lambda *step: seen.append(step))
    with edgebm.load(bundle, RUNTIME, cache=False, build=rules, trial_s=20) as session:
        assert asked(session) == 2
        assert session.report()["degraded"] is False
        assert session.report()["trial_peak_mib"] is None
    (building,) = slow.builds
    assert (building.limit_s, building.workspace_bytes) == (30, 1 << 20)
    assert seen == [("tactics", 1, 4)]


def test_a_build_that_fails_while_load_waits_is_its_error(slow: SlowRuntime, bundle: Path) -> None:
    slow.error = BackendFailed("no tactic")
    slow.go.set()
    with pytest.raises(BackendFailed, match="no tactic"):
        edgebm.load(bundle, RUNTIME, cache=False, build="wait")
    with edgebm.load(bundle, BOTH, cache=False, build="wait") as session:
        assert asked(session) == 1
        assert "no tactic" in session.report()["why"]


def test_what_was_built_once_opens_without_leave(
    slow: SlowRuntime, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheFolder, "pays", lambda *_: True)
    slow.go.set()
    folder = tmp_path / "cache"
    with edgebm.load(bundle, RUNTIME, cache=folder, build="wait") as session:
        assert session.report()["cache"]["state"] == "stored"
    for build in ("never", "background"):
        with edgebm.load(bundle, BOTH, cache=folder, build=build) as session:  # type: ignore[arg-type]
            assert asked(session) == 2
            report = session.report()
            assert (report["cache"]["state"], report["build"]) == ("hit", None)
    assert len(slow.builds) == 1


def test_what_is_asked_for_must_make_sense(bundle: Path) -> None:
    with pytest.raises(UsageError, match="one target"):
        edgebm.load(bundle, "onnxruntime", build="background")
    with pytest.raises(UsageError, match="never, wait, background"):
        edgebm.load(bundle, build="later")  # type: ignore[arg-type]
    for wrong in ({"limit_s": 0}, {"limit_s": True}, {"workspace_bytes": 0}):
        with pytest.raises(UsageError):
            BuildRules(**wrong)  # type: ignore[arg-type]
    assert {"tensorrt"} == session_module.BUILT_APART
