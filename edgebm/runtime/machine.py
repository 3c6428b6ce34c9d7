"""Facts about this machine in one dict: what decides what runs and how fast."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgebm.runtime.cpu import arch, cgroup_cpus, cpu_features, cpu_name, usable_threads

_GOVERNORS = Path("/sys/devices/system/cpu")


def describe_machine() -> dict[str, Any]:
    """Facts about processor and Python that decide what runs and how fast."""
    return {
        "cpu": cpu_name(),
        "arch": arch(),
        "features": sorted(cpu_features()),
        "threads": usable_threads(),
        "cgroup_cpus": cgroup_cpus(),
        "governor": _governor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "edgebm": metadata.version("edgebm"),
    }


def _governor() -> str:
    paths = _GOVERNORS.glob("cpu[0-9]*/cpufreq/scaling_governor")
    try:
        found = {path.read_text(encoding="ascii").strip() for path in paths}
    except OSError:
        return ""
    return ", ".join(sorted(found))
