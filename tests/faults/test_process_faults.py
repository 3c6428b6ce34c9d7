"""Threads, signals, forks and the end of the process while a bundle is in use."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from fault_bundles import DATA, SOURCE
from fault_children import RUNTIME, child, python
from soak_loops import growth_bytes, mismatches

import edgebm


@pytest.mark.row(44)
@pytest.mark.parametrize("name", ["image", "echo"])
def test_no_thread_gets_the_answer_of_another(runtime: str, name: str) -> None:
    with edgebm.load(DATA / f"{name}.edgebm", target=runtime) as session:
        assert mismatches(session, threads=8, count=300) == 0


def test_twenty_thousand_runs_need_no_more_memory(runtime: str) -> None:
    image = np.zeros((1, 3, 4, 5), np.float32)
    out = {"scores": np.empty((1, 2), np.float32)}
    with edgebm.load(SOURCE, target=runtime) as session:
        assert growth_bytes(lambda: session.run(image), 20_000) < 1 << 20
        assert growth_bytes(lambda: session.run(image, out=out), 5_000) < 1 << 20


@pytest.mark.row(45)
@pytest.mark.parametrize("in_child", ["pass", "session.close()", "load().run(IMAGE)"])
@pytest.mark.parametrize("in_parent", ["pass", "session.close()"])
def test_a_forked_child_ends_as_programs_do(runtime: str, in_child: str, in_parent: str) -> None:
    code = f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
session = load()
{in_parent}
child = os.fork()
if not child:
    for use in (lambda: session.run(IMAGE), lambda: {in_child if in_child != "pass" else None}):
        try:
            use()
        except edgebm.EdgebmError as error:
            print(error.code, flush=True)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    again = runtime == "openvino" and "load" in in_child
    assert python(code, runtime).split() == ["forked_use"] * (2 if again else 1) + ["7"]


@pytest.mark.row(46)
def test_ctrl_c_during_a_call(runtime: str) -> None:
    code = """
session = load()
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        session.run(IMAGE)
except KeyboardInterrupt:
    print("interrupted")
session.run(IMAGE)
session.close()
session.close()
sys.exit(7)
"""
    done = child(code, runtime)
    assert (done.returncode, done.stdout, done.stderr) == (7, "interrupted\n", "")


@pytest.mark.row(46)
@pytest.mark.parametrize(
    ("handler", "ended"), [("signal.SIG_DFL", -15), ("lambda *_: sys.exit(9)", 9)]
)
def test_sigterm_during_a_call(runtime: str, handler: str, ended: int) -> None:
    code = f"""
session = load()
signal.signal(signal.SIGTERM, {handler})
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
while True:
    session.run(IMAGE)
"""
    done = child(code, runtime)
    assert (done.returncode, done.stderr) == (ended, "")


@pytest.mark.row(48)
@pytest.mark.parametrize(
    ("name", "begin", "call"),
    [
        ("image", "", "session.run(IMAGE)"),
        ("echo", "stream = session.stream()", "stream.step(IMAGE[0, 0, :1, :4])"),
    ],
)
def test_the_program_ends_while_threads_are_in_calls(
    runtime: str, name: str, begin: str, call: str
) -> None:
    code = f"""
threading.excepthook = lambda args: None
session = load()
def work():
    {begin or "pass"}
    while True:
        {call}
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("end")
"""
    for _ in range(3):
        assert python(code, runtime, bundle=DATA / f"{name}.edgebm") == "end\n"


@pytest.mark.row(48)
def test_threads_that_are_no_daemons_finish_their_calls(runtime: str) -> None:
    code = """
session = load()
def work():
    for _ in range(2000):
        session.run(IMAGE)
    print("finished")
threading.Thread(target=work).start()
"""
    assert python(code, runtime) == "finished\n"


@pytest.mark.row(50)
def test_the_device_half_never_asks_for_the_time_of_day() -> None:
    wall = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
    for path in RUNTIME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in wall, f"{path}:{node.lineno}"


@pytest.mark.row(37)
@pytest.mark.parametrize("value", [0, 1, -3.5])
def test_a_constant_image_is_answered(runtime: str, value: float) -> None:
    with edgebm.load(SOURCE, target=runtime) as session:
        scores = session.run(np.full((1, 3, 4, 5), value, np.float32))["scores"]
    assert np.isfinite(scores).all()
