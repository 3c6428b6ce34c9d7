from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_bundles import INSTALLED, SOURCE


@pytest.fixture(params=INSTALLED)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that is installed."""
    return str(request.param)


@pytest.fixture
def good() -> bytes:
    """A whole bundle."""
    return SOURCE.read_bytes()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    """Put bytes where a bundle is expected."""

    def put(data: bytes) -> Path:
        path = tmp_path / "b.edgebm"
        path.write_bytes(data)
        return path

    return put
