from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trt_cases import Case, Opened, cases, cuda, opened

from edgebm.runtime.engines.compiled import Compiled


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Whatever a case asked the stand-in for ends with it."""
    if "STANDIN_CUDART" not in os.environ:
        yield
        return
    cuda().standin_reset()
    yield
    cuda().standin_reset()


@pytest.fixture
def gpu() -> ctypes.CDLL:
    return cuda()


@pytest.fixture(scope="session")
def plans() -> dict[str, Compiled]:
    return {}


@pytest.fixture
def open_case(plans: dict[str, Compiled]) -> Callable[[str], Opened]:
    """Opens a case by its name; its plan is built once."""

    def open_it(name: str) -> Opened:
        case: Case = cases()[name]
        made = opened(case, plans.get(name))
        if name not in plans:
            plans[name] = made.engine.export()
        return made

    return open_it


@pytest.fixture
def version() -> str:
    return os.environ["STANDIN_TRT_VERSION"]


@pytest.fixture
def data() -> Path:
    return Path(__file__).parents[1] / "device" / "data"
