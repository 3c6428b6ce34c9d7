from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import click
import pytest

from edgebm.cli import main as program
from edgebm.cli.main import COMMANDS, main
from edgebm.data.metrics import BUILT_IN
from edgebm.errors import BundleCorrupt, RecipeError

Register = Callable[[Callable[[], None]], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Makes a function the command `probe`."""

    def add(function: Callable[[], None]) -> None:
        module = ModuleType("probe_command")
        decorated = click.command()(
            click.option("--json", is_flag=True, expose_value=False)(function)
        )
        module.command = decorated  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(COMMANDS, "probe", ("probe_command:command", "probe"))  # type: ignore[arg-type]

    return add


def raiser(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from edgebm.cli.main import main; code = main(['--help']);"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    heavy = {"rich", "onnx", "onnx_ir", "torch", "yaml", "pydantic", "jinja2", "matplotlib"}
    assert not loaded & (heavy | {"onnxruntime", "openvino"})
    assert not loaded & {entry.split(":")[0] for entry, _ in COMMANDS.values()}
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert done.stdout.index("Host commands") < done.stdout.index("Device commands")
    assert "edgebm compress model.onnx" in done.stdout


def test_python_m_is_the_same_program() -> None:
    by_module = subprocess.run(
        [sys.executable, "-m", "edgebm", "--help"], capture_output=True, text=True, check=True
    )
    assert by_module.stdout.startswith("Usage: edgebm ")


def test_ctrl_c_while_the_program_is_still_being_imported() -> None:
    code = (
        "import sys, edgebm.__main__ as program\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "assert not {'numpy', 'click'} & set(sys.modules)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "sys.exit(program.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example" in out
    assert f"edgebm {name}" in out
    assert "--json" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import edgebm

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgebm {edgebm.__version__}\n"


def test_without_arguments_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Host commands" in captured.err


def test_misspelt_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compres", "x.onnx"]) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "error: there is no command 'compres'\nhint:  did you mean 'edgebm compress'?\n"
    )
    assert captured.out == ""


@pytest.mark.parametrize(
    "args", [["targets", "--nonsense"], ["targets", "a", "b"], ["--nonsense"], ["export"]]
)
def test_wrong_extra_or_missing_arguments(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "--help'" in captured.err
    assert captured.out == ""


def test_known_error(register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    register(raiser(BundleCorrupt("x.edgebm: damaged", hint="copy it again")))
    assert main(["probe"]) == 4
    captured = capsys.readouterr()
    assert captured.err == "error: x.edgebm: damaged\nhint:  copy it again\n"
    assert captured.out == ""


def test_known_error_as_json(register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    register(raiser(RecipeError("r.yaml", [(3, "steps", "unknown"), (5, "seed", "negative")])))
    assert main(["probe", "--json"]) == 2
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == "recipe_error"
    assert error["message"].splitlines() == [
        "r.yaml:3: steps: unknown",
        "r.yaml:5: seed: negative",
    ]
    assert error["details"]["faults"] == [[3, "steps", "unknown"], [5, "seed", "negative"]]
    assert "error: r.yaml:3" in captured.err


def test_usage_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage_error"


def test_unexpected_error_is_one_line(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    register(raiser(KeyError("weights")))
    assert main(["probe"]) == 1
    err = capsys.readouterr().err
    assert err == "error: unexpected KeyError: 'weights'\nhint:  run again with --traceback\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device", "m.edgebm"), 2, "m.edgebm: No space left"),
        (MemoryError(), 5, "out of memory"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_the_program(
    error: Exception,
    code: int,
    words: str,
    register: Register,
    capsys: pytest.CaptureFixture[str],
) -> None:
    register(raiser(error))
    assert main(["probe"]) == code
    err = capsys.readouterr().err
    assert words in err
    assert "unexpected" not in err
    assert "hint:" in err


@pytest.mark.parametrize("args", [["--traceback", "probe"], ["probe", "--traceback"]])
def test_traceback_is_known_in_every_place(
    args: list[str], register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    register(raiser(KeyError("weights")))
    assert main(args) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_missing_package_names_the_extra(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    register(raiser(ModuleNotFoundError("No module named 'onnx_ir'", name="onnx_ir")))
    assert main(["probe"]) == 5
    err = capsys.readouterr().err
    assert "'onnx_ir'" in err
    assert 'pip install "edgebm[compress]"' in err


@pytest.mark.row(46)
def test_interrupt(register: Register, capsys: pytest.CaptureFixture[str]) -> None:
    register(raiser(KeyboardInterrupt()))
    assert main(["probe"]) == 130
    captured = capsys.readouterr()
    assert captured.err.strip() == "interrupted"
    assert captured.out == ""


def test_exit_code_of_a_command(register: Register) -> None:
    register(lambda: click.get_current_context().exit(3))
    assert main(["probe"]) == 3


PROBE = """
import sys, time, types, click
from edgebm.cli import main as program
module = types.ModuleType("probe_command")
@click.command()
def command():
    try:
        print("started", flush=True)
        {body}
    finally:
        print("cleaned", file=sys.stderr, flush=True)
module.command = command
sys.modules["probe_command"] = module
program.COMMANDS["probe"] = ("probe_command:command", "")
sys.argv = ["edgebm", "probe"]
sys.exit(program.main())
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROBE.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.row(46)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_let_the_command_clean_up(number: signal.Signals, code: int) -> None:
    with start("time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        err = process.stderr.read()
    assert "cleaned" in err
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    with start("[print('x' * 1000) for _ in range(1000)]") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == "cleaned\n"


def test_the_table_is_the_program() -> None:
    assert set(program.HOST).isdisjoint(program.DEVICE)
    for entry, text in COMMANDS.values():
        assert entry.startswith("edgebm.cli.")
        assert text.endswith(".")


@pytest.mark.parametrize("name", ["compress", "evaluate", "distill"])
def test_metrics_that_the_help_names_are_there(name: str) -> None:
    command = program.cli.get_command(click.Context(program.cli), name)
    assert command is not None
    (option,) = [each for each in command.params if each.name == "metric"]
    text = getattr(option, "help", "").partition(": ")[2]
    named = [word for word in text.split(", ") if word != "..."]
    assert named
    assert set(named) <= set(BUILT_IN)
