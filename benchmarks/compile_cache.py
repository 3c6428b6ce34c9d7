"""What the cache of compiled models buys: the whole `edgebm.load`, compiled and read back.

Each load is a process of its own, in turns, with the bundle and the cache entry dropped from the
system's file cache before (`--warm`: kept there). It includes reading, hashes, the vendor's
import, warm-up and self-test:
    python benchmarks/compile_cache.py [--turns 5] [--warm] [--only transformer-int8]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from edgebm.backends.openvino import build
from edgebm.bundle_writer import golden_members, write_bundle
from edgebm.ir.model import Model
from edgebm.runtime.cache_place import CacheFolder
from edgebm.runtime.cpu import cpu_name
from edgebm.runtime.engines import open_engine
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant

BLOCKS, WIDTH, HEADS, TOKENS = 12, 416, 8, 64  # 25 million weights
CHANNELS, CONVOLUTIONS, SIDE = 64, 8, 32
CONFIG = EngineConfig(threads=1)
_KINDS = {"float32": "float", "int8": "int8", "uint8": "uint8", "int64": "int64"}
# The child prints one line of JSON: milliseconds of the load, and the session's report.
_CHILD = """
import json, sys, time
import edgebm
from pathlib import Path
from edgebm.runtime.cache_place import CacheFolder
cache = CacheFolder(Path(sys.argv[2]), least_saved_ms=-1) if sys.argv[2] else False
start = time.perf_counter()
session = edgebm.load(sys.argv[1], cache=cache)
print(json.dumps({"ms": (time.perf_counter() - start) * 1e3, **session.report()["cache"]}))
"""


class Graph:
    """ONNX text and weights, written down together; with `int8` as Q/DQ around the products."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[str] = []
        self.weights: dict[str, Any] = {}
        self.rng = np.random.default_rng(0)
        self._names = iter(range(1 << 20))
        if int8:
            self.keep("step", np.float32(0.05))
            self.keep("middle", np.uint8(128))

    def keep(self, name: str, value: Any) -> str:
        """A constant of the graph."""
        self.weights[name] = np.asarray(value)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        out = f"v{next(self._names)}"
        written = ", ".join(f"{k}={json.dumps(v)}" for k, v in attributes.items())
        mark = f"<{written}>" if written else ""
        self.nodes.append(f"{out} = {op}{mark}({', '.join(inputs)})")
        return out

    def rounded(self, x: str) -> str:
        """Activations on an 8-bit grid, where the graph is one of integers."""
        if not self.int8:
            return x
        whole = self.node("QuantizeLinear", x, "step", "middle")
        return self.node("DequantizeLinear", whole, "step", "middle")

    def weight(self, shape: tuple[int, ...], axis: int) -> str:
        """Random weights; int8 with a scale for each output channel, along `axis`."""
        name = f"w{next(self._names)}"
        fan_in = int(np.prod(shape)) // shape[axis]
        w = self.rng.normal(size=shape, scale=fan_in**-0.5).astype(np.float32)
        if not self.int8:
            return self.keep(name, w)
        rest = tuple(k for k in range(len(shape)) if k != axis)
        scale = (np.abs(w).max(rest, keepdims=True) / 127).astype(np.float32)
        self.keep(name, np.round(w / scale).astype(np.int8))
        self.keep(f"{name}_scale", scale.ravel())
        self.keep(f"{name}_zero", np.zeros(shape[axis], np.int8))
        return self.node("DequantizeLinear", name, f"{name}_scale", f"{name}_zero", axis=axis)

    def product(self, x: str, wide: int, out: int) -> str:
        """A linear layer with bias."""
        bias = self.keep(f"b{next(self._names)}", self.rng.normal(size=out).astype(np.float32))
        product = self.node("MatMul", self.rounded(x), self.weight((wide, out), 1))
        return self.node("Add", product, bias)

    def model(self, shape: tuple[int, ...], last: str, out: tuple[int, ...]) -> Model:
        """The graph from `x` to `y`, which is `last`."""
        self.nodes.append(f"y = Identity({last})")
        given = "".join(
            f", {_KINDS[str(w.dtype)]}[{','.join(map(str, w.shape))}] {name}"
            for name, w in self.weights.items()
        )
        sizes, out_sizes = (",".join(map(str, s)) for s in (shape, out))
        body = "\n".join(self.nodes)
        parsed = ir.from_onnx_text(
            f'<ir_version: 10, opset_import: ["": 20]>\n'
            f"g (float[{sizes}] x{given}) => (float[{out_sizes}] y) {{\n{body}\n}}"
        )
        for value in parsed.graph.inputs[1:]:
            parsed.graph.inputs.remove(value)
            value.const_value = ir.tensor(self.weights[str(value.name)], name=value.name)
            parsed.graph.register_initializer(value)
        return Model(parsed)


def transformer(*, int8: bool) -> Model:
    """An encoder of 12 blocks: 100 MB in float."""
    g = Graph(int8=int8)
    g.keep("heads", np.array([0, 0, HEADS, WIDTH // HEADS]))
    g.keep("joined", np.array([0, 0, WIDTH]))
    g.keep("scale", np.float32((WIDTH // HEADS) ** -0.5))
    g.keep("gain", np.ones(WIDTH, np.float32))
    g.keep("shift", np.zeros(WIDTH, np.float32))
    x = "x"
    for _ in range(BLOCKS):
        n = g.node("LayerNormalization", x, "gain", "shift", axis=-1)
        q, k, v = (g.node("Reshape", g.product(n, WIDTH, WIDTH), "heads") for _ in range(3))
        q, v = (g.node("Transpose", each, perm=[0, 2, 1, 3]) for each in (q, v))
        k = g.node("Transpose", k, perm=[0, 2, 3, 1])
        scores = g.node("Mul", g.node("MatMul", q, k), "scale")
        heads = g.node("MatMul", g.node("Softmax", scores, axis=-1), v)
        joined = g.node("Reshape", g.node("Transpose", heads, perm=[0, 2, 1, 3]), "joined")
        x = g.node("Add", g.product(joined, WIDTH, WIDTH), x)
        n = g.node("LayerNormalization", x, "gain", "shift", axis=-1)
        hidden = g.node("Gelu", g.product(n, WIDTH, 4 * WIDTH))
        x = g.node("Add", g.product(hidden, 4 * WIDTH, WIDTH), x)
    return g.model((1, TOKENS, WIDTH), x, (1, TOKENS, WIDTH))


def cnn(*, int8: bool) -> Model:
    """Eight convolutions: 1 MB in float."""
    g = Graph(int8=int8)
    x, wide = "x", 3
    for _ in range(CONVOLUTIONS):
        w = g.weight((CHANNELS, wide, 3, 3), 0)
        x = g.node("Relu", g.node("Conv", g.rounded(x), w, pads=[1, 1, 1, 1]))
        wide = CHANNELS
    return g.model((1, 3, SIDE, SIDE), x, (1, CHANNELS, SIDE, SIDE))


MODELS = {
    f"{make.__name__}-{'int8' if int8 else 'f32'}": (make, int8)
    for make in (transformer, cnn)
    for int8 in (False, True)
}


def make_bundle(folder: Path, name: str) -> Path:
    """A bundle with one OpenVINO variant and one golden sample."""
    make, int8 = MODELS[name]
    model = make(int8=int8)
    face = [
        TensorSpec(value.name, "float32", tuple(value.shape.numpy()))
        for value in (model.graph.graph.inputs[0], model.graph.graph.outputs[0])
    ]
    files = build(model)
    x = np.random.default_rng(1).normal(size=face[0].shape).astype(np.float32)
    engine = open_engine("openvino", files, CONFIG, face[:1], face[1:])
    request = engine.request({"x": x.shape})
    request.inputs[0][...] = x
    request.infer()
    prefix = "variants/host/openvino"
    members = {f"{prefix}/{short}": data for short, data in files.items()}
    members |= golden_members([[x]], [request.outputs])
    short = {name: f"{prefix}/{name}" for name in files}
    variant = Variant("host", "openvino", name, short, CONFIG, engine.version)
    manifest = Manifest(name, "0", tuple(face[:1]), tuple(face[1:]), (variant,), golden=1)
    return write_bundle(folder / f"{name}.edgebm", manifest, members)


def drop(path: Path) -> None:
    """Forget what the system has of a file in memory."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def load(bundle: Path, cache: Path | None, *, warm: bool) -> dict[str, Any]:
    """One load in a process of its own."""
    if not warm:
        for path in (bundle, *(cache.glob("*.compiled") if cache else ())):
            drop(path)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(bundle), str(cache or "")],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, name: str, turns: int, *, warm: bool) -> str:
    """One line of the table."""
    bundle, cache = make_bundle(folder, name), folder / f"{name}-cache"
    first = load(bundle, cache, warm=warm)
    compiled, read = [], []
    for _ in range(turns):
        compiled.append(load(bundle, None, warm=warm))
        read.append(load(bundle, cache, warm=warm))
        if read[-1]["state"] != "hit":
            raise RuntimeError(f"no hit: {read[-1]}")
    load_ms = [median(each["ms"] for each in found) for found in (compiled, read)]
    open_ms = [median(each["open_ms"] for each in found) for found in (compiled, read)]
    pays = CacheFolder(cache).pays(first["compile_ms"], first["reopen_ms"])
    return (
        f"{name:18} {bundle.stat().st_size / 1e6:8.1f} {first['bytes'] / 1e6:8.1f} | "
        f"{open_ms[0]:8.0f} {open_ms[1]:8.0f} | {first['ms']:8.0f} {load_ms[0]:8.0f} "
        f"{load_ms[1]:8.0f} {load_ms[0] / load_ms[1]:6.2f} | "
        f"{first['reopen_ms']:8.0f} {'kept' if pays else 'not kept'}"
    )


def main() -> None:
    """Print one line for each model; times in ms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--only", choices=MODELS, action="append")
    options = parser.parse_args()
    print(f"{cpu_name()}, Python {platform.python_version()}, 1 thread, ms")
    print(
        f"{'model':18} {'bundle':>8} {'entry':>8} | {'compile':>8} {'reopen':>8} | {'storing':>8} "
        f"{'load':>8} {'cached':>8} {'ratio':>6} | {'proved':>8} rule (sizes in MB)"
    )
    with tempfile.TemporaryDirectory(prefix="edgebm-") as folder:
        for name in options.only or MODELS:
            print(measure(Path(folder), name, options.turns, warm=options.warm), flush=True)


if __name__ == "__main__":
    main()
