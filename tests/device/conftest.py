from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgebm
from edgebm.runtime.engines import RUNTIMES
from edgebm.runtime.runner import Session

DATA = Path(__file__).parent / "data"
INSTALLED = [name for name in RUNTIMES if importlib.util.find_spec(name)]


@pytest.fixture(params=INSTALLED)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lstm(runtime: str) -> Iterator[Session]:
    with edgebm.load(DATA / "lstm.edgebm", target=runtime) as session:
        yield session


@pytest.fixture
def chunks(runtime: str) -> Iterator[Session]:
    with edgebm.load(DATA / "chunks.edgebm", target=runtime) as session:
        yield session


@pytest.fixture
def decoder(runtime: str) -> Iterator[Session]:
    with edgebm.load(DATA / "decoder.edgebm", target=runtime) as session:
        yield session


@pytest.fixture
def echo(runtime: str) -> Iterator[Session]:
    with edgebm.load(DATA / "echo.edgebm", target=runtime) as session:
        yield session
