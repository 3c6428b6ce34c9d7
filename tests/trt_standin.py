"""How a test gives a process a GPU and TensorRT that are not there: see `standin_trt/tensorrt`.

The stand-in is reached as the real ones are: libraries by the loader, the package by its name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "standin_trt"
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
_FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")


def libraries(folder: Path, cuda: int) -> Path:
    """A folder with libcuda.so.1 and libcudart.so.`cuda`, compiled; skips without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stand-in of CUDA")
    place = folder / f"cuda{cuda}"
    place.mkdir()
    for name, defined in (
        ("libcuda.so.1", "DRIVER"),
        (f"libcudart.so.{cuda}", f"VERSION={cuda * 1000 + 60}"),
    ):
        command = [compiler, *_FLAGS, f"-D{defined}", f"-Wl,-soname,{name}", "-o"]
        source = str(HERE / "cuda.c")
        subprocess.run([*command, str(place / name), source, "-lpthread"], check=True)
    return place


def cuda_of(version: str) -> int:
    """The CUDA release that a version of TensorRT comes with on a board."""
    return 12 if version.startswith("10.3.") else 13


def environment(libraries: Path, version: str, **more: str) -> dict[str, str]:
    """The variables of a process that has GPU and TensorRT."""
    cuda = cuda_of(version)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("STANDIN_", "PYTEST_"))},
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))),
        "STANDIN_TRT_VERSION": version,
        "STANDIN_CUDART": f"libcudart.so.{cuda}",
        "STANDIN_CUDA_DRIVER": str(cuda * 1000 + 60),
        "OMP_NUM_THREADS": "1",
        **more,
    }
