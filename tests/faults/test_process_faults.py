"""Signals, forks, shortages and the end of the process while a bundle is in use."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fault_bundles import DATA, SOURCE
from soak_loops import growth_bytes, mismatches

import edgebm
from edgebm.errors import EdgebmError, ResourceError
from edgebm.runtime import bundle as reader
from edgebm.runtime.bundle import read_bundle

RUNTIME = Path(edgebm.__file__).parent / "runtime"
START = """
import gc, os, resource, signal, sys, threading, time
import numpy as np
import edgebm
import edgebm.runtime.session
from edgebm.runtime.engines import import_vendor
PATH, RUNTIME = sys.argv[1:3]
IMAGE = np.zeros((1, 3, 4, 5), np.float32)
def load(**how): return edgebm.load(PATH, target=RUNTIME, **how)
"""


def python(code: str, runtime: str, *, bundle: Path = SOURCE, limit_s: float = 60) -> str:
    """What a program prints; it must end by itself, with 0 and without a word on stderr."""
    done = child(code, runtime, bundle=bundle, limit_s=limit_s)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def child(
    code: str, runtime: str, *, bundle: Path = SOURCE, limit_s: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + code, str(bundle), runtime],
        env={**os.environ, "PYTHONPATH": str(RUNTIME.parents[1])},
        capture_output=True, text=True, check=False, timeout=limit_s,
    )  # fmt: skip


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


@pytest.mark.row(50, partly=True)
def test_the_device_half_never_asks_for_the_time_of_day() -> None:
    wall = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
    for path in RUNTIME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in wall, f"{path}:{node.lineno}"


@pytest.mark.row(51)
def test_no_open_file_is_left(runtime: str) -> None:
    code = """
import_vendor(RUNTIME)
load().close()
used = len(os.listdir("/proc/self/fd")) - 1
session = load()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
for _ in range(100):
    session.run(IMAGE)
    session.run(IMAGE, out={"scores": np.empty((1, 2), np.float32)})
print(session.run(IMAGE)["scores"].shape)
try:
    load()
except edgebm.EdgebmError as error:
    print(error.code, error.hint)
"""
    lines = python(code, runtime).splitlines()
    assert lines == ["(1, 2)", "resource_error close files, or raise ulimit -n"]


@pytest.mark.row(51)
def test_no_more_threads_are_left(runtime: str) -> None:
    """The limit does not bind root, so the child gives its rights up first."""
    code = """
import_vendor(RUNTIME)
from edgebm.runtime.engines import onnxruntime, openvino
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
edgebm.runtime.session.usable_threads = lambda: 2
try:
    print("threads", load(threads=2).report()["threads"])
except edgebm.EdgebmError as error:
    print(error.code)
"""
    done = child(code, runtime)
    assert done.returncode == 0, done.stderr
    # A runtime may need no thread of its own for so small a model.
    assert done.stdout.splitlines()[-1] in {"resource_error", "threads 2"}


@pytest.mark.row(52)
def test_one_processor_of_many(runtime: str) -> None:
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
session = load(threads=8)
session.run(IMAGE)
print(session.report()["threads"])
"""
    assert python(code, runtime) == "1\n"


@pytest.mark.row(53)
@pytest.mark.parametrize(
    ("output", "nodes", "shapes"),
    [
        ("n,m", "y = Identity(p)", "(20, 20) (0, 0)"),
        ("1", "s = ReduceSum<keepdims=0>(p) y = Reshape(s, a)", "(1,) (1,)"),
        ("1,1", "s = ReduceMax<keepdims=1>(p) y = Neg(s)", "(1, 1)"),
    ],
    ids=["free output", "fixed output", "fixed rank"],
)
def test_a_call_for_which_there_is_no_memory(
    runtime: str, output: str, nodes: str, shapes: str
) -> None:
    """OpenVINO says nothing: it hands out an empty array, or the answer of the call before."""
    code = f"""
import onnx
from edgebm.runtime.engines import open_engine
from edgebm.spec import EngineConfig, TensorSpec
model = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x, float[n] z) => (float[{output}] y)'
    '{{ a = Constant<value_ints=[1]>() b = Constant<value_ints=[0]>()'
    '  u = Unsqueeze(x, a) v = Unsqueeze(z, b) p = MatMul(u, v) {nodes} }}')
face = [TensorSpec("x", "float32", ("n",)), TensorSpec("z", "float32", ("n",))]
size = tuple(int(d) if d.isdigit() else d for d in {output!r}.split(","))
y = TensorSpec("y", "float32", size)
files = {{"model.onnx": model.SerializeToString()}}
engine = open_engine(RUNTIME, files, EngineConfig(), face, [y])
def run(n):
    request = engine.request({{"x": (n,), "z": (n,)}})
    request.infer()
    return request.outputs[0].shape
print(*[run(n) for n in (20, 0)[:{shapes.count("(")}]])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
for _ in range(2):
    try:
        print(run(20_000))
    except edgebm.EdgebmError as error:
        print(error.code)
"""
    done = child(code, runtime)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{shapes}\nresource_error\nresource_error\n"


@pytest.mark.row(53, partly=True)
def test_a_bundle_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.os, "fdopen", _no_memory)
    with pytest.raises(ResourceError, match="not enough memory"):
        read_bundle(SOURCE)


def _no_memory(*args: object, **how: object) -> None:
    raise MemoryError


@pytest.mark.row(37, partly=True)
@pytest.mark.parametrize("value", [0, 1, -3.5])
def test_a_constant_image_is_answered(runtime: str, value: float) -> None:
    with edgebm.load(SOURCE, target=runtime) as session:
        scores = session.run(np.full((1, 3, 4, 5), value, np.float32))["scores"]
    assert np.isfinite(scores).all()


@pytest.mark.row(28, partly=True)
@pytest.mark.parametrize("name", ["with space", "ünïcødé", "n" * 255, "a;b$(c)"])
def test_odd_paths(tmp_path: Path, name: str, good: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(good)
    assert read_bundle(path).size == len(good)
    with pytest.raises(EdgebmError, match=re.escape("cannot be opened")):
        read_bundle(tmp_path / ("n" * 256))
