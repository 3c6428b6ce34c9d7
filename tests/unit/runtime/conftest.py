from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slow_engine
from slow_engine import SlowRuntime, slow_bundle


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowRuntime]:
    """The runtime whose builds wait for the test."""
    runtime = slow_engine.installed(monkeypatch)
    yield runtime
    runtime.go.set()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """For that runtime and for ONNX Runtime."""
    return slow_bundle(tmp_path)
