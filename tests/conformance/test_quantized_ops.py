"""Small quantized models on the real engines, as the device runs them.

Two things are asked of every case: the engine computes what its Q/DQ graph says, to float32
rounding, and that graph keeps 25 dB against float. One layer with 7 bits on one side has about
35 dB; up to five roundings in a row cost 7 dB, narrow layers 3. What an engine cannot do is
data with a reason, and strictly expected to fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from graphs import (
    Array,
    Feeds,
    Listed,
    decide,
    face,
    nothing,
    outputs,
    parse,
    random_model,
    samples,
    sqnr_db,
)
from quantized_cases import CASES, RECURRENT, RUNTIMES, Case

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends.dialects import EXACT, Dialect, Grid, cpu_dialects, cpu_grids
from edgebm.backends.placement import Placement
from edgebm.backends.qdq import lower
from edgebm.exec.collect import FloatRunner
from edgebm.ir.model import Model
from edgebm.runtime.cpu import cpu_features
from edgebm.runtime.engines import open_engine
from edgebm.search.build import BUILD
from edgebm.spec import EngineConfig

LEAST_DB = 25.0
# A softmax of random scores passes their error on enlarged, and two roundings follow it.
ATTENTION_DB = 18.0
# 24 bits are 144 dB; sums of a few hundred products in another order cost some.
EQUAL_DB = 100.0
GRIDS = cpu_grids(cpu_features())
OVERFLOWS = EXACT not in GRIDS
IN_EVERY_GRID = frozenset({"conv 2d", "two gemms", "attention"})


# (case, runtime) -> why the engine falls short of what the case says.
KNOWN_FAILURES: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Ran:
    """A case in float, as its Q/DQ graph says (simulated), and as the engine runs it."""

    want: dict[str, Array]
    simulated: dict[str, Array]
    got: dict[str, Array]
    layers: dict[str, int]
    plan: Placement

    @property
    def sqnr_db(self) -> float:
        return min(sqnr_db(self.want[name], self.got[name]) for name in self.want)

    @property
    def engine_db(self) -> float:
        return min(sqnr_db(self.simulated[name], self.got[name]) for name in self.want)


def on_engine(
    model: Model, dialect: Dialect, feeds: Feeds, calibration: Listed | None = None
) -> Ran:
    decided, _ = decide(model, [dialect], calibration or samples(model, 8))
    lowered, plan = lower(decided, dialect, nothing)
    want = outputs(model, feeds)
    simulated = FloatRunner(lowered, list(want), plain=True).run(feeds)
    got, layers = run_files(BUILD[dialect.runtime](lowered), dialect.runtime, model, feeds)
    return Ran(want, simulated, got, layers, plan)


def run_files(
    files: dict[str, bytes], runtime: str, model: Model, feeds: Feeds
) -> tuple[dict[str, Array], dict[str, int]]:
    shown = face(model)
    engine = open_engine(runtime, files, EngineConfig(threads=1), shown.inputs, shown.outputs)
    request = engine.request({name: value.shape for name, value in feeds.items()})
    for buffer, spec in zip(request.inputs, shown.inputs, strict=True):
        np.copyto(buffer, feeds[spec.name])
    request.infer()
    pairs = zip(shown.outputs, request.outputs, strict=True)
    got = {spec.name: np.array(value) for spec, value in pairs}
    layers = engine.executed()
    if runtime == "onnxruntime":
        layers = onnxruntime_backend.executed_layers(files)
    engine.close()
    return got, layers


def run_case(what: Case, runtime: str, grid: Grid) -> Ran:
    model = random_model(what.text, **what.shapes)
    dialect = cpu_dialects(runtime, grid)[1 if what.attention else 0]
    return on_engine(model, dialect, next(iter(samples(model, 1, seed=7).feeds())))


def marked(table: dict[str, Case]) -> list[object]:
    """Every case in the first grid of this CPU, a few in the others."""
    rows = []
    for label, runtime, grid in product(table, RUNTIMES, GRIDS):
        if grid == GRIDS[0] or label in IN_EVERY_GRID:
            why = KNOWN_FAILURES.get((label, runtime))
            marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
            rows.append(
                pytest.param(label, runtime, grid, marks=marks, id=f"{label}-{runtime}-{grid}")
            )
    return rows


@pytest.mark.parametrize(("label", "runtime", "grid"), marked(CASES))
def test_integers_run_and_keep_the_signal(label: str, runtime: str, grid: Grid) -> None:
    ran = run_case(CASES[label], runtime, grid)
    assert {k: v.shape for k, v in ran.got.items()} == {k: v.shape for k, v in ran.want.items()}
    assert ran.engine_db >= EQUAL_DB
    assert ran.sqnr_db >= (ATTENTION_DB if CASES[label].attention else LEAST_DB)
    assert ran.layers.get("int8", 0) >= CASES[label].int8[runtime]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("transposed, of negative values", "only where its input is never negative"),
        ("transposed, grouped", "no int8 kernel for a ConvTranspose with groups"),
    ],
)
def test_a_transposed_convolution_that_would_run_in_float_is_not_rounded(
    label: str, why: str
) -> None:
    ran = run_case(CASES[label], "openvino", GRIDS[0])
    assert why in ran.plan.reasons["ConvTranspose_0"]
    assert ran.plan.points == {}
    assert ran.sqnr_db >= EQUAL_DB


@pytest.mark.parametrize("label", [k for k in CASES if k.startswith(("gemm", "two", "matmul"))])
def test_products_that_take_their_range_at_each_call(label: str) -> None:
    model = random_model(CASES[label].text, **CASES[label].shapes)
    feeds = next(iter(samples(model, 1, seed=7).feeds()))
    dialect = cpu_dialects("onnxruntime", GRIDS[-1])[0]
    decided, _ = decide(model, [dialect], samples(model, 8))
    lowered, plan = lower(decided, dialect, nothing)
    files, _, count = onnxruntime_backend.build_cells(lowered, GRIDS[-1], written_out=False)
    if not count:
        assert CASES[label].int8["onnxruntime"] == 0
        return
    want = outputs(model, feeds)
    got, layers = run_files(files, "onnxruntime", model, feeds)
    assert sqnr_db(want["y"], got["y"]) >= LEAST_DB
    assert layers["int8"] >= len(plan.nodes)


def test_known_failures_name_real_cases() -> None:
    assert set(KNOWN_FAILURES) <= {(label, runtime) for label in CASES for runtime in RUNTIMES}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("op", list(RECURRENT))
def test_recurrent_layers_without_a_decision_stay_in_float(op: str, runtime: str) -> None:
    ran = run_case(RECURRENT[op], runtime, GRIDS[0])
    assert ran.sqnr_db >= LEAST_DB
    laid_out = runtime == "openvino" and op != "RNN"
    why = "its integers were not laid out" if laid_out else f"{op} runs in float on {runtime}"
    assert [why] == list(ran.plan.reasons.values())
    assert ran.layers["int8"] >= 1, "the product behind it is still an integer one"
    assert ran.layers["f32"] >= 1


def worst_case(rows: int = 64) -> tuple[Model, Listed]:
    """Every weight and every activation at its largest: each pair of products is too."""
    text = f"g (float[4,{rows}] x) => (float[4,16] y) {{ y = MatMul(x, w) }}"
    model = parse(text, w=np.full((rows, 16), 0.5, np.float32))
    return model, Listed([{"x": np.ones((4, rows), np.float32)}])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_grids_of_this_cpu_do_not_overflow(runtime: str, grid: Grid) -> None:
    model, full = worst_case()
    ran = on_engine(model, cpu_dialects(runtime, grid)[0], next(iter(full.feeds())), full)
    assert ran.layers["int8"] == 1
    np.testing.assert_allclose(ran.got["y"], 32.0, rtol=1e-3)


@pytest.mark.skipif(not OVERFLOWS, reason="this CPU sums products of 8 bits in 32")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_eight_bits_on_both_sides_overflow_here(runtime: str) -> None:
    """Why `cpu_grids` takes a bit away: two products of 255 x 127 do not fit in 16 bits."""
    model, full = worst_case()
    ran = on_engine(model, cpu_dialects(runtime, EXACT)[0], next(iter(full.feeds())), full)
    np.testing.assert_allclose(ran.simulated["y"], 32.0, rtol=1e-3)
    assert (ran.got["y"] < 0.6 * 32).all()


@pytest.mark.parametrize("times", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_beyond_the_calibrated_range_no_engine_does_worse_than_clip(
    runtime: str, grid: Grid, times: float
) -> None:
    """7-bit activations lie in 8-bit integers: what is beyond their range may saturate a sum."""
    rng = np.random.default_rng(0)
    text = "g (float[4,64] x) => (float[4,16] y) { y = MatMul(x, w) }"
    model = parse(text, w=np.abs(rng.normal(size=(64, 16))).astype(np.float32))
    known = Listed([{"x": rng.uniform(0, 1, (4, 64)).astype(np.float32)} for _ in range(8)])
    feeds = {"x": (rng.uniform(0, times, (4, 64))).astype(np.float32)}
    ran = on_engine(model, cpu_dialects(runtime, grid)[0], feeds, known)
    clipped = outputs(model, {"x": np.minimum(feeds["x"], 1.0)})
    assert ran.sqnr_db >= sqnr_db(ran.want["y"], clipped["y"]) - 0.5
