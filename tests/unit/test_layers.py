"""What is loaded when, and what an installed wheel holds: seen from fresh interpreters."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

_NEW_MODULES = """
import json, sys
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def fresh(code: str, *, path: Path | None = None, cwd: Path | None = None) -> Any:
    """The JSON in the last line that `code` prints in an interpreter of its own."""
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": str(path)})}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rstrip().rpartition("\n")[2])


def new_modules(code: str) -> list[str]:
    found: list[str] = fresh(_NEW_MODULES.format(code=code))
    return found


def foreign(modules: list[str]) -> set[str]:
    """Packages that are neither numpy nor part of Python or edgebm."""
    roots = {name.partition(".")[0] for name in modules}
    return roots - sys.stdlib_module_names - {"edgebm", "numpy"}


def test_the_host_names_are_there_and_load_no_torch() -> None:
    modules = new_modules("import edgebm; assert edgebm.compress and edgebm.Result")

    assert "edgebm.verbs.compress" in modules
    assert "torch" not in modules


def test_help_loads_no_command() -> None:
    code = "from edgebm.cli.main import main\nassert main(['--help']) == 0"
    modules = new_modules(code)

    assert foreign(modules) <= {"click"}
    commands = {name for name in modules if name.startswith("edgebm.cli.")}
    assert commands == {"edgebm.cli.main", "edgebm.cli.output"}


def test_no_module_imports_the_package_root() -> None:
    guilty = []
    for path in sorted((ROOT / "edgebm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            plain = isinstance(node, ast.Import) and any(a.name == "edgebm" for a in node.names)
            if plain or (isinstance(node, ast.ImportFrom) and node.module == "edgebm"):
                guilty.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert guilty == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with edgebm in it as `pip install` of the built wheel lays it down."""
    folder = tmp_path_factory.mktemp("wheel")
    site = folder / "site"
    _python("hatchling", "build", "-t", "wheel", "-d", str(folder))
    (wheel,) = folder.glob("*.whl")
    _python("pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    return site


def _python(*module: str) -> None:
    command = [sys.executable, "-m", *module]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)


def test_the_wheel_holds_recipes_targets_and_the_demo(installed: Path, tmp_path: Path) -> None:
    code = """
import json
import edgebm.recipe, edgebm.target
from edgebm.demo import demo_files
print(json.dumps({
    "file": edgebm.__file__,
    "recipes": edgebm.recipe.list_recipes(),
    "targets": [edgebm.target.load_target(t).name for t in edgebm.target.list_targets()],
    "demo": {name: len(content) for name, content in demo_files().items()},
}))
"""
    found = fresh(code, path=installed, cwd=tmp_path)

    assert Path(found["file"]).is_relative_to(installed)
    assert found["recipes"] == sorted(p.stem for p in (ROOT / "recipes").glob("*.yaml"))
    assert set(found["targets"]) == {p.stem for p in (ROOT / "targets").glob("*.yaml")}
    assert sum(n for name, n in found["demo"].items() if name.endswith(".onnx")) < 900_000


def test_the_wheel_compresses_with_int8_and_loads_no_torch(
    installed: Path, tmp_path: Path
) -> None:
    code = """
import json, sys
from pathlib import Path
import edgebm
from edgebm.cli.main import main
from edgebm.demo import demo_files
for name, content in demo_files().items():
    Path(name).write_bytes(content)
code = main(["compress", "digits_cnn.onnx", "--recipe", "int8", "-d", "calibration.npz",
             "-o", "small.edgebm", "--subset-size", "20", "--threads", "1",
             "--measure-seconds", "0.1"])
print(json.dumps({"code": code, "torch": "torch" in sys.modules, "file": edgebm.__file__}))
"""
    found = fresh(code, path=installed, cwd=tmp_path)

    assert Path(found["file"]).is_relative_to(installed)
    assert (found["code"], found["torch"]) == (0, False)
    assert (tmp_path / "small.edgebm").is_file()
