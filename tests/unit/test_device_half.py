"""What a device imports, looked at in a fresh interpreter: contracts do not see lazy imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "onnx", "onnx_ir", "onnxscript", "pydantic", "yaml", "rich", "jinja2", "matplotlib",
    "sklearn", "scipy", "openvino", "onnxruntime", "cryptography",
}  # fmt: skip
COMMANDS = ("run", "bench", "build", "verify", "inspect", "doctor")


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_edgebm_loads_numpy_and_the_standard_library_only() -> None:
    ours = loaded_by("import edgebm; edgebm.load; edgebm.Session; edgebm.EdgebmError")
    numpy_alone = loaded_by("import numpy")
    new = ours - numpy_alone - set(sys.stdlib_module_names) - {"edgebm"}
    # What a development environment itself puts into every interpreter does not count.
    assert not {name for name in new if not name.startswith("_")}


# Bundles are signed where keys are kept, which need not be where models are compressed.
@pytest.mark.parametrize("command", [*COMMANDS, "keygen", "sign"])
def test_a_device_command_imports_nothing_of_the_host(command: str) -> None:
    ours = loaded_by(f"from edgebm.cli.{command} import command; assert command.name")
    assert not ours & HEAVY


def test_host_names_are_there_without_being_imported() -> None:
    import edgebm

    assert {"compress", "quantize", "evaluate", "Result"} <= set(dir(edgebm))
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        edgebm.compres  # type: ignore[attr-defined]  # noqa: B018
