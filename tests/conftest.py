from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# A busy machine must not fail a test, and a failure must come back on the next run.
settings.register_profile("edgebm", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("edgebm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files anew; review the difference before you commit it",
    )


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order(request: pytest.FixtureRequest) -> None:
    """Set the module's RNG back: a test's numbers must not hang on which tests ran before."""
    rng = getattr(request.module, "RNG", None)
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(1).bit_generator.state


@pytest.fixture(autouse=True)
def _subnormals_stay_numbers() -> Iterator[None]:
    """Fail the test that leaves its thread with subnormals flushed to zero.

    A vendor's setting can do that, and every later result of the thread would hang on it.
    """
    yield
    assert np.float64(5e-324) * np.float64(1) != 0


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written and not compared."""
    return bool(request.config.getoption("--update-golden"))
