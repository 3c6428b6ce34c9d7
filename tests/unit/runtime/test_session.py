from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from echo_engine import echo

from edgebm.bundle_writer import write_bundle
from edgebm.errors import (
    BackendFailed,
    BackendUnavailable,
    BundleIncompatible,
    InputNonFinite,
    InputRange,
    SelfTestFailed,
    UsageError,
)
from edgebm.runtime import lanes, session
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST
from edgebm.runtime.session import load
from edgebm.spec import TensorSpec, Variant

DATA = Path(__file__).parents[2] / "device" / "data"
IMAGE = DATA / "image.edgebm"


def changed(path: Path, tmp_path: Path, *variants: Variant, **fields: Any) -> Path:
    """The bundle at `path` with other variants or manifest fields."""
    bundle = read_bundle(path)
    members = {name: bytes(data) for name, data in bundle.members.items() if name != MANIFEST}
    manifest = replace(bundle.manifest, variants=variants or bundle.manifest.variants, **fields)
    return write_bundle(tmp_path / "changed.edgebm", manifest, members, force=True)


def variants(path: Path = IMAGE) -> tuple[Variant, ...]:
    return read_bundle(path).manifest.variants


@pytest.mark.row(62)
def test_the_report_says_what_really_runs() -> None:
    with load(IMAGE, target="openvino", threads=1) as loaded:
        report = loaded.report()
        assert report["name"] == "image"
        assert report["digest"] == read_bundle(IMAGE).digest
        assert (report["target"], report["runtime"]) == ("any-cpu", "openvino")
        assert report["requested"] == "openvino"
        assert report["threads"] == 1
        assert set(report["layers"]) == {"f32"}
        assert (
            0 <= report["self_test"]["scores"] <= report["self_test_tolerance"]["scores"] == 1e-4
        )
        assert report["degraded"] is False
        json.dumps(report)
        report["warnings"].append("mine")
        assert "mine" not in loaded.report()["warnings"]


@pytest.mark.row(52)
def test_there_are_never_more_threads_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "usable_threads", lambda: 1)
    with load(IMAGE, threads=64) as loaded:
        assert loaded.report()["threads"] == 1
        assert any("64 threads asked for" in text for text in loaded.report()["warnings"])
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(UsageError, match="threads must be"):
            load(IMAGE, threads=wrong)  # type: ignore[arg-type]


@pytest.mark.row(29)
def test_a_failing_self_test_gives_no_session(tmp_path: Path) -> None:
    first, second = variants()
    strict = replace(first, tolerance={"scores": 0.0})
    assert strict.runtime == "openvino"
    path = changed(IMAGE, tmp_path, strict, second)
    with pytest.raises(SelfTestFailed, match="any-cpu/openvino gives other answers"):
        load(path)
    with load(path, target=["openvino", "onnxruntime"]) as loaded:
        assert loaded.report()["degraded"] is True
        assert "gives other answers" in loaded.report()["why"]


@pytest.mark.row(63)
def test_a_variant_for_another_processor_is_passed_over_or_refused(tmp_path: Path) -> None:
    first, second = variants()
    path = changed(IMAGE, tmp_path, replace(first, requires=("warp_drive",)), second)
    with load(path) as loaded:
        assert loaded.report()["runtime"] == second.runtime
        assert loaded.report()["degraded"] is False
    with pytest.raises(BundleIncompatible, match="needs warp_drive"):
        load(path, target=first.runtime)
    with pytest.raises(BundleIncompatible, match=r"none of \['openvino', 'nothing'\]"):
        load(path, target=["openvino", "nothing"])


@pytest.mark.row(56)
def test_auto_does_not_fall_back_from_a_missing_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable):
        load(IMAGE)
    with load(IMAGE, target=["auto", "onnxruntime"]) as loaded:
        assert loaded.report()["degraded"] is True


@pytest.mark.row(64)
def test_warnings_tell_of_other_versions_and_missed_constraints(tmp_path: Path) -> None:
    first, second = variants()
    path = changed(
        IMAGE,
        tmp_path,
        replace(first, runtime_version="1999.1", layers={"int8": 4}),
        second,
        constraints_met=False,
    )
    with load(path) as loaded:
        text = " ".join(loaded.report()["warnings"])
    assert "made with openvino 1999.1" in text
    assert "misses a constraint" in text
    assert "no layer runs in int8 here, 4 did" in text


def test_loading_leaves_every_known_shape_ready() -> None:
    with load(DATA / "tokens.edgebm", target="onnxruntime") as loaded:
        assert list(loaded._lanes.ready) == [((1, 4), (1, 4))]


def test_the_benchmark_runs_on_a_golden_sample_or_on_zeros(tmp_path: Path) -> None:
    with load(IMAGE) as loaded:
        assert loaded.benchmark(seconds=0.01).calls >= 1
        with pytest.raises(UsageError):
            loaded.benchmark(seconds=0)
    with load(changed(DATA / "tokens.edgebm", tmp_path, golden=0)) as loaded:
        assert loaded.benchmark(seconds=0.01).calls >= 1
        assert loaded.report()["self_test"] == {}


@pytest.mark.parametrize("form", ["positional", "dict", "keyword"])
def test_the_three_forms_of_a_call(form: str) -> None:
    one, _ = echo(TensorSpec("x", "float32", (2,)))
    x = np.array([1, -2], np.float32)
    for _ in range(2):
        calls = {
            "positional": lambda: one.run(x),
            "dict": lambda: one.run({"x": x}),
            "keyword": lambda: one.run(x=x),
        }
        np.testing.assert_array_equal(calls[form]()["x_out"], -x)


def test_names_that_are_no_keywords_go_through_the_dict() -> None:
    one, _ = echo(TensorSpec("out", "float32", (1,)))
    x = np.ones(1, np.float32)
    assert one.run({"out": x})["out_out"][0] == -1


def test_a_request_is_reused_and_one_that_raised_is_not() -> None:
    one, engine = echo(TensorSpec("x", "float32", (2,)))
    x = np.ones(2, np.float32)
    for _ in range(5):
        one.run(x)
    assert len(engine.requests) == 1

    def fail() -> None:
        raise BackendFailed("broken")

    one._lanes.ready[(2,)][0].request.infer = fail
    one._lanes.ready[(2,)][0].quick = lambda _: fail()
    with pytest.raises(BackendFailed):
        one.run(x)
    np.testing.assert_array_equal(one.run(x)["x_out"], -x)
    assert len(engine.requests) == 2


def test_the_number_of_kept_shapes_is_bounded_and_known_ones_stay() -> None:
    spec = TensorSpec("x", "float32", ("n",))
    one, engine = echo(spec, axes={"n": (1, 1000)})
    one.warm_up([{"x": (7,)}], None)
    for n in range(1, 200):
        one.run(np.ones(n, np.float32))
    assert len(one._lanes.ready) <= lanes._MAX_SHAPES + 1
    before = len(engine.requests)
    one.run(np.ones(7, np.float32))
    assert len(engine.requests) == before


@pytest.mark.row(35)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 4096, 4097, 20_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_found_in_small_and_large_arrays(
    dtype: str, size: int, bad: float
) -> None:
    one, engine = echo(TensorSpec("x", dtype, (size,)))
    x = np.full(size, 2, dtype)
    np.testing.assert_array_equal(one.run(x)["x_out"], -x)
    for place in {0, size // 2, size - 1}:
        x[place] = bad
        with pytest.raises(InputNonFinite, match=rf"the first at \[{place}\]"):
            one.run(x)
        x[place] = 2
    assert sum(request.calls for request in engine.requests) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_largest_finite_values_pass_without_a_warning(dtype: str) -> None:
    one, _ = echo(TensorSpec("x", dtype, (5000,)), TensorSpec("y", dtype, (3,)))
    top = float(np.finfo(dtype).max)
    x, y = np.full(5000, top, dtype), np.array([top, -top, top], dtype)
    np.testing.assert_array_equal(one.run(x=x, y=y)["y_out"], -y)


@pytest.mark.row(42)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_indices_are_held_to_their_table(dtype: str) -> None:
    one, _ = echo(TensorSpec("x", dtype, (3,)), index_limits={"x": 100})
    one.run(np.array([0, 99, 5], dtype))
    wrong = [100, *([-1] if dtype.startswith("int") else [])]
    for value in wrong:
        with pytest.raises(InputRange, match=f"the first is {value} at"):
            one.run(np.array([0, value, 1], dtype))


def test_a_limit_wider_than_the_dtype_is_no_limit() -> None:
    one, _ = echo(TensorSpec("x", "uint8", (1,)), index_limits={"x": 1000})
    one.run(np.array([255], np.uint8))


def test_several_inputs_and_outputs_keep_their_order() -> None:
    one, _ = echo(TensorSpec("b", "float32", (2,)), TensorSpec("a", "int8", ()))
    feeds = {"a": np.array(3, np.int8), "b": np.ones(2, np.float32)}
    for _ in range(2):
        out = one.run(feeds)
        assert list(out) == ["b_out", "a_out"]
        assert out["a_out"] == -3
        assert out["a_out"].shape == ()


def test_a_partial_out_gets_the_rest_as_new_arrays() -> None:
    one, _ = echo(TensorSpec("a", "float32", (2,)), TensorSpec("b", "float32", (1,)))
    a, b, buffer = np.ones(2, np.float32), np.ones(1, np.float32), np.zeros(2, np.float32)
    out = one.run({"a": a, "b": b}, out={"a_out": buffer})
    assert out["a_out"] is buffer
    np.testing.assert_array_equal(buffer, -a)
    np.testing.assert_array_equal(out["b_out"], -b)


def test_a_deadline_hands_out_the_same_answer() -> None:
    one, _ = echo(TensorSpec("x", "float32", (1,)))
    assert one.run(np.ones(1, np.float32), deadline_ms=60_000)["x_out"][0] == -1
