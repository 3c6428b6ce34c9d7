from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from edgebm.errors import BundleIncompatible, UsageError
from edgebm.runtime import select
from edgebm.spec import EngineConfig, Manifest, TensorSpec, Variant


def manifest(*variants: tuple[str, str, Sequence[str]]) -> Manifest:
    face = (TensorSpec("x", "float32", (1,)),)
    made = [
        Variant(target, runtime, "int8", {}, EngineConfig(), "1", tuple(requires))
        for target, runtime, requires in variants
    ]
    return Manifest("m", "0", face, face, tuple(made))


BOTH = manifest(
    ("vnni", "openvino", ["avx2", "avx512_vnni"]),
    ("vnni", "onnxruntime", ["avx2"]),
    ("old", "openvino", []),
)


@pytest.fixture(autouse=True)
def _avx2_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "cpu_features", lambda: frozenset({"avx2", "fma"}))


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("auto", ("vnni", "onnxruntime")),
        ("vnni", ("vnni", "onnxruntime")),
        ("openvino", ("old", "openvino")),
        ("old/openvino", ("old", "openvino")),
    ],
)
def test_the_first_that_is_meant_and_runs_here(name: str, chosen: tuple[str, str]) -> None:
    variant = select.choose_variant(BOTH, name)
    assert (variant.target, variant.runtime) == chosen


def test_a_candidate_that_was_not_chosen_is_meant_by_its_whole_name_only() -> None:
    chosen, other = BOTH.variants[1], Variant("vnni", "openvino", "f32", {}, EngineConfig(), "1")
    both = replace(BOTH, variants=(chosen,), candidates=(other, chosen))
    assert select.choose_variant(both, "auto") is chosen
    assert select.choose_variant(both, "vnni/openvino/f32/t1") is other
    assert select.choose_variant(both, "vnni/onnxruntime/int8/t1") is chosen
    for name in ("openvino", "vnni/openvino", "f32", "vnni/openvino/f32"):
        with pytest.raises(BundleIncompatible, match="has no variant"):
            select.choose_variant(both, name)


def test_a_variant_that_needs_more_says_what() -> None:
    with pytest.raises(BundleIncompatible, match="vnni/openvino needs avx512_vnni") as caught:
        select.choose_variant(BOTH, "vnni/openvino")
    assert caught.value.details == {"missing": {"vnni/openvino": ["avx512_vnni"]}}


def test_a_name_that_is_not_there_lists_what_is() -> None:
    with pytest.raises(BundleIncompatible, match=r"it has vnni/openvino \(int8\), vnni/onnx"):
        select.choose_variant(BOTH, "jetson")


@pytest.mark.parametrize("target", ["", [], [""], [3], 3.0])
def test_names_must_be_names(target: object) -> None:
    with pytest.raises(UsageError):
        select.wanted_targets(target)  # type: ignore[arg-type]
