from __future__ import annotations

import numpy as np
import pytest
from graphs import Listed, quantized, random_model, samples

from edgebm.backends.dialects import EXACT, cpu_dialects
from edgebm.errors import BackendFailed, DataError
from edgebm.exec.collect import FloatRunner, collect
from edgebm.exec.compare import layer_sqnr_db
from edgebm.ir.model import Model


def model() -> Model:
    return random_model(
        """g (float[1,6] x) => (float[1,4] y) {
          h = MatMul(x, w)
          r = Relu(h)
          y = MatMul(r, u)
        }""",
        w=(6, 6),
        u=(6, 4),
    )


def quiet() -> None:
    """No progress."""


def test_any_value_can_be_fetched_inputs_too() -> None:
    feeds = next(iter(samples(model(), 1).feeds()))
    found = FloatRunner(model(), ["x", "r", "y"]).run(feeds)
    assert set(found) == {"x", "r", "y"}
    np.testing.assert_array_equal(found["x"], feeds["x"])
    weights = {k: v.const_value.numpy() for k, v in model().graph.graph.initializers.items()}  # type: ignore[union-attr]
    want = np.maximum(feeds["x"] @ weights["w"], 0)
    np.testing.assert_allclose(found["r"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["y"], want @ weights["u"], rtol=1e-5, atol=1e-6)


def test_fetching_leaves_the_model_alone() -> None:
    source = model()
    before = source.to_bytes()
    FloatRunner(source, ["h", "r"])
    assert source.to_bytes() == before
    assert [v.name for v in source.graph.graph.outputs] == ["y"]


def test_only_inputs_need_no_run() -> None:
    feeds = next(iter(samples(model(), 1).feeds()))
    found = FloatRunner(model(), ["x"]).run(feeds)
    np.testing.assert_array_equal(found["x"], feeds["x"])


def test_collect_streams_one_sample_after_the_other() -> None:
    given = samples(model(), 5)
    order: list[str] = []
    alive: list[int] = []

    def feeds():  # type: ignore[no-untyped-def]
        for index, each in enumerate(given.feeds()):
            order.append(f"feed {index}")
            alive.append(index)
            yield each
            alive.remove(index)

    seen: list[np.ndarray] = []

    def sink(value: np.ndarray) -> None:
        order.append("sink")
        assert len(alive) == 1, "one sample in memory"
        seen.append(value.copy())

    count = collect(model(), feeds(), {"r": sink}, lambda: order.append("tick"))
    assert count == 5
    assert order[:6] == ["feed 0", "sink", "tick", "feed 1", "sink", "tick"]
    runner = FloatRunner(model(), ["r"])
    for got, each in zip(seen, given.feeds(), strict=True):
        np.testing.assert_array_equal(got, runner.run(each)["r"])


def test_faults_name_the_sample_and_the_value() -> None:
    def refuse(value: np.ndarray) -> None:
        raise ValueError("too large")

    with pytest.raises(DataError, match="calibration sample 0, value 'r': too large"):
        collect(model(), samples(model(), 2).feeds(), {"r": refuse}, quiet)
    with pytest.raises(DataError, match="no calibration samples"):
        collect(model(), [], {"r": lambda value: None}, quiet)


def test_a_wrong_feed_is_an_error_about_the_data() -> None:
    runner = FloatRunner(model(), ["y"])
    with pytest.raises(DataError, match="does not run the model on a sample"):
        runner.run({"x": np.zeros((1, 7), np.float32)})
    with pytest.raises(DataError, match="does not run the model on a sample"):
        runner.run({"z": np.zeros((1, 6), np.float32)})


def test_a_graph_no_runtime_knows_is_a_backend_error() -> None:
    bad = model()
    next(bad.nodes("Relu")).op_type = "Relux"
    with pytest.raises(BackendFailed, match=r"onnxruntime .* does not load the model") as caught:
        FloatRunner(bad, ["y"])
    assert caught.value.exit_code == 5


def test_plain_computes_what_the_qdq_nodes_say() -> None:
    """A simulation with 8 bits on both sides, free of this CPU's overflow."""
    source = random_model("g (float[1,64] x) => (float[1,8] y) { y = MatMul(x, w) }", w=(64, 8))
    dialect = cpu_dialects("onnxruntime", EXACT)[0]
    calibration = Listed([{"x": np.full((1, 64), v, np.float32)} for v in (0.0, 1.0)])
    lowered, _ = quantized(source, dialect, calibration=calibration)
    feeds = {"x": np.ones((1, 64), np.float32)}
    got = FloatRunner(lowered, ["y"], plain=True).run(feeds)["y"]
    stored = lowered.graph.graph.initializers
    q, scale = (stored[k].const_value.numpy() for k in ("w.q", "w.scale"))  # type: ignore[union-attr]
    np.testing.assert_allclose(got[0], (q * scale).sum(axis=0), rtol=1e-5)


def test_layer_sqnr_is_a_ratio_over_all_samples() -> None:
    given = samples(model(), 4)
    ticks: list[int] = []
    dialect = cpu_dialects("openvino", EXACT)[0]
    lowered, _ = quantized(model(), dialect, calibration=given)
    found = layer_sqnr_db(model(), lowered, ["h", "y"], given.feeds(), lambda: ticks.append(1))
    assert len(ticks) == 4
    plain, rounded = FloatRunner(model(), ["h", "y"]), FloatRunner(lowered, ["h", "y"], plain=True)
    for name in ("h", "y"):
        want = np.concatenate([plain.run(f)[name] for f in given.feeds()]).astype(np.float64)
        got = np.concatenate([rounded.run(f)[name] for f in given.feeds()])
        expected = 10 * np.log10((want**2).sum() / ((want - got) ** 2).sum())
        assert found[name] == pytest.approx(expected, abs=0.01)
        assert 25 < found[name] < 70
    assert found["y"] < found["h"] + 3, "errors add up"


def test_equal_graphs_have_no_noise() -> None:
    assert layer_sqnr_db(model(), model(), ["y"], samples(model(), 2).feeds(), quiet)["y"] > 120
