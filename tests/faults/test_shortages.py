"""No more files, threads, processors or memory to be had."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fault_bundles import SOURCE
from fault_children import child, python

from edgebm.errors import EdgebmError, ResourceError
from edgebm.runtime import bundle as reader
from edgebm.runtime.bundle import read_bundle


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
    """The limit does not bind root: the child gives its rights up, and may read no file then."""
    code = """
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.select import choose_variant
from edgebm.runtime.session import open_variant
load(threads=2).close()
bundle = read_bundle(PATH)
variant = choose_variant(bundle.manifest, RUNTIME)
if os.getuid() == 0:
    try:
        os.setuid(65534)
    except OSError:
        print("bound to root")
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
edgebm.runtime.session.usable_threads = lambda: 2
try:
    print("threads", open_variant(bundle, variant, 2).report()["threads"])
except edgebm.EdgebmError as error:
    print(error.code)
"""
    done = child(code, runtime)
    assert done.returncode == 0, done.stderr
    if "bound to root" in done.stdout:
        pytest.skip("root cannot give its rights up here")
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


@pytest.mark.row(53)
def test_a_bundle_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.os, "fdopen", _no_memory)
    with pytest.raises(ResourceError, match="not enough memory"):
        read_bundle(SOURCE)


def _no_memory(*args: object, **how: object) -> None:
    raise MemoryError


@pytest.mark.row(28)
@pytest.mark.parametrize("name", ["with space", "ünïcødé", "n" * 255, "a;b$(c)"])
def test_odd_paths(tmp_path: Path, name: str, good: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(good)
    assert read_bundle(path).size == len(good)
    with pytest.raises(EdgebmError, match=re.escape("cannot be opened")):
        read_bundle(tmp_path / ("n" * 256))
