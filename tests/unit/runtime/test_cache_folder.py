"""The folder of a cache: whose it is, locks, temporary files, room."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgebm.errors import EngineStale, UsageError
from edgebm.runtime import cache_folder
from edgebm.runtime.cache_folder import SUFFIX, Folder, open_folder
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.cache_store import open_store
from edgebm.runtime.device_key import KEY_FILE, device_key


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = open_folder(tmp_path / "a b ü" / "cache", create=True)
    yield opened
    opened.close()


def put(folder: Folder, name: str, data: bytes, used_s: float = 0) -> None:
    with folder.temporary() as (file, temporary):
        os.write(file, data)
        folder.publish(temporary, name)
    os.utime(folder.path / name, (used_s, used_s))


def test_it_is_made_for_its_owner_alone(folder: Folder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    key = device_key(folder, 1)
    assert len(key) == 32
    assert stat.S_IMODE((folder.path / KEY_FILE).stat().st_mode) == 0o600
    assert device_key(folder, 1) == key


@pytest.mark.row(24)
@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o702])
def test_one_that_others_can_write_into_is_refused(mode: int, folder: Folder) -> None:
    folder.path.chmod(mode)
    with pytest.raises(UsageError, match="others can write") as caught:
        open_folder(folder.path, create=False)
    assert f"chmod 700 '{folder.path}'" in caught.value.hint


@pytest.mark.row(24)
def test_one_of_another_user_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UsageError, match="belongs to user"):
        open_folder(folder.path, create=False)


@pytest.mark.row(28)
@pytest.mark.parametrize("where", ["file/x", "file", "n" * 300, "nul\0byte", "missing"])
def test_a_path_that_cannot_be_a_folder_is_named_with_the_reason(
    where: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    rules = CacheFolder(tmp_path / where, create=where != "missing")
    with pytest.raises(UsageError, match="cannot be the cache folder: "), open_store(rules):
        pytest.fail("opened")


@pytest.mark.row(24)
def test_a_key_that_others_can_read_is_not_used(folder: Folder) -> None:
    device_key(folder, 1)
    (folder.path / KEY_FILE).chmod(0o640)
    with pytest.raises(UsageError, match="others can read"):
        device_key(folder, 1)


@pytest.mark.row(25)
@pytest.mark.parametrize("left", [b"", b"short", b"l" * 33])
def test_a_key_that_a_power_cut_spoilt_is_made_anew(left: bytes, folder: Folder) -> None:
    (folder.path / KEY_FILE).write_bytes(left)
    (folder.path / KEY_FILE).chmod(0o600)
    key = device_key(folder, 1)
    assert len(key) == 32
    assert device_key(folder, 1) == key


def test_threads_that_make_the_key_at_once_get_the_same_one(folder: Folder) -> None:
    keys: list[bytes] = []
    makers = [
        threading.Thread(target=lambda: keys.append(device_key(folder, 60))) for _ in range(8)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_not_opened(kind: str, folder: Folder) -> None:
    path = folder.path / f"x{SUFFIX}"
    if kind == "link":
        (folder.path / "target").write_bytes(b"data")
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((EngineStale, OSError)):
        folder.open(path.name)


def test_a_temporary_file_is_gone_after_an_error(folder: Folder) -> None:
    with pytest.raises(KeyboardInterrupt), folder.temporary():
        raise KeyboardInterrupt
    assert list(folder.path.iterdir()) == []


@pytest.mark.row(25)
def test_only_temporary_files_without_an_owner_are_swept(folder: Folder) -> None:
    (folder.path / ".edgebm-tmp-0123").write_bytes(b"left over")
    (folder.path / "tmp-mine").write_bytes(b"of someone else")
    with folder.temporary() as (_, name):
        folder.sweep()
        assert {path.name for path in folder.path.iterdir()} == {name, "tmp-mine"}


def test_a_lock_excludes_others_until_it_is_let_go(folder: Folder) -> None:
    with folder.lock("a", 0) as held:
        assert held
        with folder.lock("a", 0.05) as again:
            assert not again
        with folder.lock("b", 0) as other:
            assert other
    with folder.lock("a", 0) as held:
        assert held


@pytest.mark.row(27)
def test_a_lock_goes_with_its_owner(folder: Folder) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edgebm.runtime.cache_folder import open_folder\n"
        "with open_folder(Path(sys.argv[1]), create=False).lock('a', 0) as held:\n"
        "    print(held, flush=True)\n"
        "    signal.pause()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    with folder.lock("a", 0) as held:
        assert not held
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    with folder.lock("a", 0) as held:
        assert held


def test_what_was_not_used_for_longest_makes_room(folder: Folder) -> None:
    for name, used_s in (("old", 100), ("new", 300), ("middle", 200)):
        put(folder, name + SUFFIX, b"x" * 1000, used_s)
    assert folder.make_room(1000, 3000) == ""
    assert [entry.name for entry in folder.entries()] == [f"new{SUFFIX}", f"middle{SUFFIX}"]
    folder.touch(f"middle{SUFFIX}")
    assert folder.make_room(1500, 3000) == ""
    assert [entry.name for entry in folder.entries()] == [f"middle{SUFFIX}"]
    assert "the cache may have 3000" in folder.make_room(3001, 3000)
    assert len(folder.entries()) == 1


@pytest.mark.row(26)
def test_the_disk_is_not_filled(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cache_folder.os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=4096)
    )
    assert "the disk has 40960 bytes free" in folder.make_room(1, 1000)
