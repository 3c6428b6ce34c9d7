from __future__ import annotations

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


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written and not compared."""
    return bool(request.config.getoption("--update-golden"))
