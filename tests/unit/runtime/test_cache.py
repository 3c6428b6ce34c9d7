"""Loads with a cache: what is stored, what is taken, and what goes wrong without harm."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebm.bundle_writer import write_bundle
from edgebm.errors import BackendFailed, SelfTestFailed
from edgebm.runtime import cache, cache_key, start
from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.cache_folder import open_folder
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.container import MANIFEST
from edgebm.runtime.engines.openvino import OpenVinoEngine
from edgebm.runtime.session import load
from edgebm.spec import Manifest, Variant

DATA = Path(__file__).parents[2] / "device" / "data"
BUNDLES = sorted(DATA.glob("*.edgebm"))
IMAGE, TOKENS = DATA / "image.edgebm", DATA / "tokens.edgebm"


@pytest.fixture
def rules(tmp_path: Path) -> CacheFolder:
    """A cache that keeps every model, however fast it compiles."""
    return CacheFolder(tmp_path / "cache", least_saved_ms=-1, wait_s=0.2)


def started(rules: Any, bundle: Path = IMAGE, **options: Any) -> dict[str, Any]:
    with load(bundle, target="openvino", cache=rules, **options) as loaded:
        return loaded.report()


def entries(rules: CacheFolder) -> list[Path]:
    return sorted(rules.path.glob("*.compiled"))


def golden_answers(path: Path, rules: CacheFolder) -> tuple[str, list[dict[str, Any]]]:
    bundle = read_bundle(path)
    specs = bundle.manifest.inputs
    with load(path, target="openvino", cache=rules) as loaded:
        feeds = [bundle.golden(k)[0] for k in range(bundle.manifest.golden)]
        answers = [
            dict(loaded.run({s.name: x for s, x in zip(specs, feed, strict=True)}))
            for feed in feeds
        ]
        return loaded.report()["cache"]["state"], answers


def with_variant(tmp_path: Path, change: Callable[[Variant], Variant], path: Path = IMAGE) -> Path:
    """The bundle with its OpenVINO variant changed, below a name of its own."""
    bundle = read_bundle(path)
    made = tuple(change(v) if v.runtime == "openvino" else v for v in bundle.manifest.variants)
    members = {name: bytes(data) for name, data in bundle.members.items() if name != MANIFEST}
    manifest = replace(bundle.manifest, variants=made)
    return write_bundle(tmp_path / "changed.edgebm", manifest, members, force=True)


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_model_that_is_read_back_answers_the_same_to_the_bit(
    path: Path, rules: CacheFolder
) -> None:
    stored, compiled = golden_answers(path, rules)
    hit, read_back = golden_answers(path, rules)
    assert (stored, hit) == ("stored", "hit")
    for one, other in zip(compiled, read_back, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_what_runs_is_told_of_a_model_that_is_read_back(rules: CacheFolder) -> None:
    reports = [started(rules, DATA / "lstm.edgebm") for _ in range(2)]
    stored, hit = (report["cache"] for report in reports)
    for key in ("layers", "cells", "precision", "threads", "warnings"):
        assert reports[0][key] == reports[1][key]
    assert reports[1]["self_test"] == reports[0]["self_test"]
    assert reports[1]["stream_test"].keys() == reports[0]["stream_test"].keys() != set()
    assert (stored["state"], hit["state"]) == ("stored", "hit")
    assert hit["compile_ms"] == stored["compile_ms"] == stored["open_ms"]
    assert hit["bytes"] == stored["bytes"] > 0
    assert Path(hit["path"], hit["entry"]) == entries(rules)[0]


def test_static_copies_are_read_back_each_as_itself(tmp_path: Path, rules: CacheFolder) -> None:
    shapes = ({"ids": (1, 4), "mask": (1, 4)}, {"ids": (2, 8), "mask": (2, 8)})

    def fixed(variant: Variant) -> Variant:
        return replace(variant, config=replace(variant.config, static_shapes=shapes))

    path = with_variant(tmp_path, fixed, TOKENS)
    made: list[list[np.ndarray[Any, Any]]] = []
    for state in ("stored", "hit"):
        with load(path, target="openvino", cache=rules) as loaded:
            assert loaded.report()["cache"]["state"] == state
            engine = loaded._path.engine()
            assert isinstance(engine, OpenVinoEngine)
            found = [[p.partial_shape.is_static for p in m.inputs] for m, _ in engine._made]
            assert found == [[False, False], [True, True], [True, True]]
            ones = [np.ones(shape["ids"], np.int64) for shape in (*shapes, {"ids": (3, 2)})]
            made.append([loaded.run(ids=x, mask=x)["pooled"] for x in ones])
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_folder_is_made_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EDGEBM_CACHE", raising=False)
    assert started(None)["cache"]["state"] == "off"
    assert started(False)["cache"]["state"] == "off"
    assert list(tmp_path.iterdir()) == []


def test_another_runtime_has_nothing_to_keep(rules: CacheFolder) -> None:
    with load(IMAGE, target="onnxruntime", cache=rules) as loaded:
        report = loaded.report()
    assert report["cache"]["state"] == "off"
    assert "onnxruntime" in report["cache"]["why"]
    assert not rules.path.exists()


def test_a_model_that_compiles_fast_is_not_kept(rules: CacheFolder) -> None:
    report = started(replace(rules, least_saved_ms=1e9))
    assert report["cache"]["state"] == "off"
    assert "too fast" in report["cache"]["why"]
    assert report["warnings"] == []
    assert entries(rules) == []


def test_a_model_that_opens_no_faster_leaves_a_note(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Worth a try, and then slower than it looked.
    monkeypatch.setattr(CacheFolder, "pays", lambda _self, _compile, reopen: reopen == 0)
    first = started(rules)["cache"]
    assert first["state"] == "off"
    assert "does not pay" in first["why"]
    (note,) = entries(rules)
    monkeypatch.setattr(cache.OpenSlot, "_keep", None)  # is not tried again
    second = started(rules)["cache"]
    assert (second["state"], second["why"]) == ("off", first["why"])
    assert entries(rules) == [note]


def other_weight(bundle: Bundle) -> tuple[Manifest, dict[str, bytes]]:
    members = {name: bytes(data) for name, data in bundle.members.items() if name != MANIFEST}
    (name,) = (n for n in members if n.endswith("openvino/model.bin"))
    data = bytearray(members[name])
    data[-4] ^= 1  # the last bit of the last float
    members[name] = bytes(data)
    return bundle.manifest, members


@pytest.mark.row(23)
def test_one_other_weight_in_a_bundle_of_the_same_name_is_another_model(
    tmp_path: Path, rules: CacheFolder
) -> None:
    path = tmp_path / IMAGE.name
    path.write_bytes(IMAGE.read_bytes())
    assert started(rules, path)["cache"]["state"] == "stored"
    write_bundle(path, *other_weight(read_bundle(path)), force=True)
    assert started(rules, path)["cache"]["state"] == "stored"
    assert len(entries(rules)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 1, "settings": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}},
        {"static_shapes": ({"image": (1, 3, 8, 8)},)},
    ],
    ids=lambda change: list(change)[-1],
)
def test_another_configuration_is_another_model(
    change: dict[str, Any], tmp_path: Path, rules: CacheFolder
) -> None:
    assert started(rules)["cache"]["state"] == "stored"
    shape = read_bundle(IMAGE).manifest.inputs[0]
    if "static_shapes" in change:
        change = {"static_shapes": ({shape.name: tuple(map(int, shape.shape))},)}
    path = with_variant(
        tmp_path,
        lambda v: replace(v, config=replace(v.config, **change), tolerance={"scores": 1.0}),
    )
    assert started(rules, path)["cache"]["state"] == "stored"
    assert len(entries(rules)) == 2


@pytest.mark.row(23)
def test_another_place_is_told_and_takes_the_old_entry_away(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(rules)["cache"]["state"] == "stored"
    (old,) = entries(rules)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    report = started(rules)["cache"]
    assert report["state"] == "stored"
    assert report["why"] == "it was stored for another environment.ONEDNN_MAX_CPU_ISA"
    (new,) = entries(rules)
    assert new != old


@pytest.mark.row(23)
def test_a_processor_that_cannot_be_named_gets_no_cache(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_key, "cpu_identity", dict)
    report = started(rules)
    assert report["cache"]["state"] == "failed"
    assert len(report["warnings"]) == 1


@pytest.mark.row(24)
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "foreign", "swapped"])
def test_a_damaged_entry_is_deleted_counted_and_made_anew(damage: str, rules: CacheFolder) -> None:
    started(rules)
    (entry,) = entries(rules)
    good = entry.read_bytes()
    if damage == "swapped":
        started(rules, TOKENS)
        (other,) = set(entries(rules)) - {entry}
        bad = other.read_bytes()
    else:
        middle = len(good) // 2
        bad = {
            "cut": good[:-1],
            "flipped": good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :],
            "emptied": b"",
            "foreign": b"\x7fELF" + good[4:],
        }[damage]
    entry.write_bytes(bad)
    report = started(rules)
    assert report["cache"]["state"] == "stored"
    assert report["cache"]["rejected"] == 1
    assert report["cache"]["why"].startswith("rejected: ")
    assert len(report["warnings"]) == 1
    hit = started(rules)
    assert (hit["cache"]["state"], hit["warnings"]) == ("hit", [])


@pytest.mark.row(24)
def test_no_byte_reaches_the_vendor_before_its_code_is_right(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(rules)
    (entry,) = entries(rules)
    good = bytearray(entry.read_bytes())
    good[-40] ^= 1  # in the last blob
    entry.write_bytes(good)
    opened = start.open_engine
    monkeypatch.setattr(
        start,
        "open_engine",
        lambda *given, **named: pytest.fail("read") if given[-1] else opened(*given, **named),
    )
    report = started(replace(rules, least_saved_ms=1e9))
    assert report["cache"]["rejected"] == 1


@pytest.mark.row(24)
@pytest.mark.parametrize("error", [BackendFailed("refused"), SelfTestFailed("wrong answers")])
def test_an_entry_that_fails_in_use_is_replaced(
    error: Exception, rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(rules)
    real = start.Start.open
    failures = [error]

    def fail_once(self: Any, compiled: Any = None) -> Any:
        if compiled is not None and failures:
            raise failures.pop()
        return real(self, compiled)

    monkeypatch.setattr(start.Start, "open", fail_once)
    report = started(rules)
    assert report["cache"]["state"] == "stored"
    assert str(error) in report["cache"]["why"]
    assert len(report["warnings"]) == 1
    assert started(rules)["cache"]["state"] == "hit"


def test_nothing_is_stored_of_a_model_that_fails_its_self_test(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> dict[str, float]:
        raise SelfTestFailed("wrong answers")

    monkeypatch.setattr(start, "self_test", fail)
    with pytest.raises(SelfTestFailed):
        started(rules)
    assert entries(rules) == []
    assert not list(rules.path.glob(".edgebm-tmp-*"))


def test_a_model_that_is_read_back_as_another_one_is_not_kept(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([{"f32": 2}, {"bf16": 2}, {"f32": 2}])
    monkeypatch.setattr(OpenVinoEngine, "executed", lambda _self: next(counts))
    report = started(rules)
    assert report["cache"]["state"] == "failed"
    assert "other layers" in report["cache"]["why"]
    assert entries(rules) == []


@pytest.mark.row(26)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_or_broken_disk_costs_the_cache_and_not_the_start(
    call: str, code: int, rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_folder(rules.path, create=True).close()
    (rules.path / "device.key").write_bytes(bytes(32))
    (rules.path / "device.key").chmod(0o600)

    def fail(*_args: Any, **_named: Any) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        report = started(rules)
    assert report["cache"]["state"] == "failed"
    assert os.strerror(code) in report["cache"]["why"]
    assert len(report["warnings"]) == 1
    assert [path.name for path in rules.path.iterdir() if "lock" not in path.name] == [
        "device.key"
    ]
    assert started(rules)["cache"]["state"] == "stored"


@pytest.mark.row(26)
def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(rules)
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY) and named.get("dir_fd") is not None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert started(rules)["cache"]["state"] == "hit"
    report = started(rules, TOKENS)
    assert report["cache"]["state"] == "failed"
    assert "Read-only" in report["cache"]["why"]
    assert len(report["warnings"]) == 1


@pytest.mark.row(26)
def test_a_limit_on_file_sizes_is_survived(rules: CacheFolder) -> None:
    code = (
        "import resource, sys, edgebm, json; from pathlib import Path\n"
        "from edgebm.runtime.cache_place import CacheFolder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "rules = CacheFolder(Path(sys.argv[2]), least_saved_ms=-1)\n"
        "with edgebm.load(sys.argv[1], target='openvino', cache=rules) as s:\n"
        "    print(s.report()['cache']['state'], len(s.report()['warnings']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(IMAGE), str(rules.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "failed 1\n"), done.stderr
    assert entries(rules) == []
    assert not list(rules.path.glob(".edgebm-tmp-*"))


@pytest.mark.row(27)
def test_others_wait_for_whoever_compiles_and_take_what_it_made(rules: CacheFolder) -> None:
    report = started(rules)["cache"]
    (entry,) = entries(rules)
    aside = entry.rename(entry.with_suffix(".aside"))
    found: list[str] = []
    folder = open_folder(rules.path, create=False)
    patient = replace(rules, wait_s=60)
    waiter = threading.Thread(target=lambda: found.append(started(patient)["cache"]["state"]))
    with folder.lock(report["entry"].partition("-")[2][:2], 1) as held:
        assert held
        waiter.start()
        aside.rename(entry)
    waiter.join()
    folder.close()
    assert found == ["hit"]


@pytest.mark.row(27)
def test_waiting_has_an_end(rules: CacheFolder) -> None:
    report = started(rules)["cache"]
    entries(rules)[0].unlink()
    folder = open_folder(rules.path, create=False)
    with folder.lock(report["entry"].partition("-")[2][:2], 1):
        late = started(rules)
    folder.close()
    assert late["cache"]["state"] == "miss"
    assert "another process held its lock for 0.2 s" in late["cache"]["why"]
    assert late["warnings"] == []
    assert entries(rules) == []


@pytest.mark.row(27)
def test_processes_that_start_at_once_leave_one_entry(rules: CacheFolder) -> None:
    code = (
        "import sys, edgebm; from pathlib import Path\n"
        "from edgebm.runtime.cache_place import CacheFolder\n"
        "sys.stdin.readline()\n"
        "rules = CacheFolder(Path(sys.argv[2]), least_saved_ms=-1, wait_s=100)\n"
        "with edgebm.load(sys.argv[1], target='openvino', cache=rules) as s:\n"
        "    print(s.report()['cache']['state'], len(s.report()['warnings']))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(IMAGE), str(rules.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = sorted(child.communicate()[0].strip() for child in children)
    assert said == ["hit 0", "stored 0"]
    assert len(entries(rules)) == 1
    assert not list(rules.path.glob(".edgebm-tmp-*"))


@pytest.mark.row(25)
def test_a_start_that_was_killed_leaves_nothing_in_the_way(rules: CacheFolder) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edgebm.runtime import cache_store\n"
        "from edgebm.runtime.cache_place import CacheFolder\n"
        "from edgebm.runtime.session import load\n"
        "cache_store.Store.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load(sys.argv[1], target='openvino',\n"
        "     cache=CacheFolder(Path(sys.argv[2]), least_saved_ms=-1))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(IMAGE), str(rules.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(rules.path.glob(".edgebm-tmp-*"))) == 1
    assert entries(rules) == []
    assert started(rules)["cache"]["state"] == "stored"  # the lock went with its owner
    assert not list(rules.path.glob(".edgebm-tmp-*"))


def test_no_descriptor_is_left_open(rules: CacheFolder) -> None:
    started(rules)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        started(rules)
        entries(rules)[0].unlink()
        started(rules)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_ctrl_c_while_storing_leaves_nothing(
    rules: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            started(rules)
    assert entries(rules) == []
    assert not list(rules.path.glob(".edgebm-tmp-*"))
    assert started(rules)["cache"]["state"] == "stored"
