"""The TensorRT engine on a stand-in for GPU and library, in a process of its own for each version.

Libraries are found by the loader of a process when it starts, and this one must not have them: so
the cases are in files `on_*.py` here, which only such a process collects.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trt_standin import VERSIONS, cuda_of, environment, libraries

HERE = Path(__file__).parent
_LEAST = 90  # cases


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("standin")
    return {cuda: libraries(folder, cuda) for cuda in sorted({cuda_of(v) for v in VERSIONS})}


@pytest.mark.row(57, 58, 59, 65, partly=True)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_on_the_stand_in(version: str, places: dict[int, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-o", "python_files=on_*.py", "--basetemp", str(tmp_path / "inner"), str(HERE)]
    done = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env=environment(places[cuda_of(version)], version),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    assert int(last.split()[0]) >= _LEAST, last
    assert "skipped" not in last
