"""Which folder a cache has, and when there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebm.errors import UsageError
from edgebm.runtime import cache_place
from edgebm.runtime.cache_place import CacheFolder, default_folder, wanted_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EDGEBM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache_place, "_SYSTEM", tmp_path / "system")
    return tmp_path / "home"


def test_the_default_folder_in_its_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_folder() == home / ".cache" / "edgebm"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == home / ".cache" / "edgebm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x d g"))
    assert default_folder() == tmp_path / "x d g" / "edgebm"
    (tmp_path / "system").mkdir()
    assert default_folder() == tmp_path / "system"
    monkeypatch.setenv("EDGEBM_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEBM_CACHE", "here")
    assert default_folder() == tmp_path / "here"


def test_a_system_folder_of_another_user_is_passed_over(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(cache_place.os, "geteuid", lambda: 12345)
    assert default_folder() == home / ".cache" / "edgebm"


@pytest.mark.row(28)
def test_a_user_without_a_home_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_place.os.path, "expanduser", lambda path: path)
    assert default_folder() is None
    assert wanted_cache(None) is None
    with pytest.raises(UsageError, match="no home"):
        wanted_cache(True)


@pytest.mark.row(28)
def test_home_unset_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    folder = default_folder()
    assert folder is None or folder.is_absolute()


def test_nothing_is_asked_for_without_a_folder(home: Path, tmp_path: Path) -> None:
    folder = home / ".cache" / "edgebm"
    assert wanted_cache(None) is None
    assert wanted_cache(True) == CacheFolder(folder)
    folder.mkdir(parents=True)
    assert wanted_cache(None) == CacheFolder(folder)
    assert wanted_cache(False) is None


def test_the_variable_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEBM_CACHE", str(tmp_path / "ü"))
    assert wanted_cache(None) == CacheFolder(tmp_path / "ü")
    assert wanted_cache(False) is None
    monkeypatch.setenv("EDGEBM_CACHE", "")
    assert wanted_cache(None) is None


@pytest.mark.row(28)
def test_a_path_is_taken_and_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wanted_cache("here") == wanted_cache(Path("here")) == CacheFolder(tmp_path / "here")
    rules = CacheFolder(tmp_path, max_bytes=5)
    assert wanted_cache(rules) is rules


@pytest.mark.parametrize("wrong", [3, b"path", "", 1.5, ["x"]])
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="cache"):
        wanted_cache(wrong)


def test_what_pays() -> None:
    rules = CacheFolder(Path("x"), least_saved_ms=50)
    assert rules.pays(400, 250)
    assert not rules.pays(400, 280)  # less than a third
    assert not rules.pays(100, 60)  # less than 50 ms
    assert CacheFolder(Path("x"), least_saved_ms=-1).pays(1, 100)
