"""Figures of one artifact count for another one if only the weights differ."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import transformer

from edgebm.ir.model import Model
from edgebm.search.candidates import Artifact
from edgebm.search.structure import structure_sha256

TEXT = """g (float[1,6] x) => (float[2,3] y) {
  h = MatMul(x, w)
  r = Reshape(h, s)
  y = Clip(r, low, high)
}"""


def model(
    seed: int = 0, text: str = TEXT, width: int = 6, sizes: tuple[int, int] = (2, 3)
) -> Model:
    weights = np.random.default_rng(seed).normal(size=(6, width)).astype(np.float32)
    ends = {"low": np.float32(-1 - seed), "high": np.float32(1 + seed)}
    return Model.parse(text, w=weights, s=np.array(sizes), **ends)


def key(model: Model, kind: str = "float", runtime: str = "onnxruntime") -> str:
    return structure_sha256(Artifact(runtime, kind, {}, model))


def test_other_weights_do_not_matter() -> None:
    assert key(model(0)) == key(model(1))


@pytest.mark.parametrize(
    "other",
    [
        {"width": 12},
        {"sizes": (3, 2)},
        {"text": TEXT.replace("MatMul", "Gemm")},
        {"text": TEXT.replace("MatMul(x, w)", "Gemm<transB=0>(x, w)")},
        {"text": TEXT.replace("float[1,6] x", "float[n,6] x")},
    ],
)
def test_all_else_matters(other: dict[str, object]) -> None:
    assert key(model()) != key(model(**other))  # type: ignore[arg-type]


def test_kind_and_runtime_matter() -> None:
    assert len({key(model(), *more) for more in ((), ("w8",), ("float", "openvino"))}) == 3


def test_the_same_graph_built_twice_is_the_same() -> None:
    assert key(transformer()) == key(transformer())
    assert key(transformer(16)) != key(transformer())
