"""Facts about this machine in one dict: what decides what runs and how fast."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np

from edgebm.runtime.board import read_board
from edgebm.runtime.cpu import arch, cgroup_cpus, cpu_features, cpu_name, usable_threads


def describe_machine() -> dict[str, Any]:
    """Facts about processor and Python that decide what runs and how fast."""
    board = read_board()
    return {
        "cpu": cpu_name(),
        "arch": arch(),
        "features": sorted(cpu_features()),
        "threads": usable_threads(),
        "cgroup_cpus": cgroup_cpus(),
        "governor": board.governor,
        "clock_mhz": board.clock_mhz,
        "clock_limit_mhz": board.clock_limit_mhz,
        "clock_max_mhz": board.clock_max_mhz,
        "temperature_c": board.temperature_c,
        "throttled": [*board.throttled, *board.hot],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "edgebm": metadata.version("edgebm"),
    }
