from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from edgebm.errors import UnsupportedModel
from edgebm.ir.canonical import canonicalize
from edgebm.ir.evaluate import evaluate, output_bytes
from edgebm.ir.model import Model

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def node_of(body: str, **weights: Any) -> Any:
    text = f"g (float[1] x) => (float[1] y) {{ {body} }}"
    model = Model.parse(HEADER + text, **{k: np.asarray(v) for k, v in weights.items()})
    return next(model.nodes())


def test_values_are_those_of_the_operator() -> None:
    found = evaluate(node_of("y = Transpose(w)", w=np.eye(2, 3, dtype=np.float32)), 20)
    assert found is not None
    np.testing.assert_array_equal(found[0], np.eye(3, 2))
    filled = evaluate(node_of("y = ConstantOfShape<value=int64[1] {7}>(s)", s=[2, 2]), 20)
    assert filled is not None
    np.testing.assert_array_equal(filled[0], np.full((2, 2), 7))


@pytest.mark.row(16)
@pytest.mark.parametrize(
    ("body", "weights", "size"),
    [
        ("y = ConstantOfShape(s)", {"s": [2**20, 2**16]}, 2**38),
        ("y = Expand(w, s)", {"w": np.ones(1, np.float32), "s": [2**36]}, 2**38),
        ("y = Tile(w, s)", {"w": np.ones(4, np.float16), "s": [2**34]}, 2**37),
        ("y = Range(a, b, c)", {"a": 0, "b": 2**36, "c": 1}, 2**39),
        ("y = Pad(w, p)", {"w": np.ones(1, np.float32), "p": [2**30, 2**30]}, 4 * (2**31 + 1)),
        ("y = NonZero(w)", {"w": np.ones((4, 4), np.float32)}, 16 * 2 * 8),
    ],
)
def test_the_size_is_known_before_anything_is_allocated(
    body: str, weights: dict[str, Any], size: int
) -> None:
    assert output_bytes(node_of(body, **weights), 20) == size


@pytest.mark.row(16)
def test_a_bomb_is_refused_in_an_instant_and_named() -> None:
    text = """g (float[1] x) => (float[1] y) {
      [boom] c = ConstantOfShape(s)
      m = ReduceMax<keepdims=0>(c)
      y = Add(x, m) }"""
    model = Model.parse(HEADER + text, s=np.asarray([2**36]))
    start = time.monotonic()
    with pytest.raises(UnsupportedModel, match=r"node 'boom' .* constant of 256.0 GiB"):
        canonicalize(model)
    assert time.monotonic() - start < 60


def test_what_would_grow_the_file_stays_a_node() -> None:
    text = "g (float[1] x) => (float[n] y) {\n e = Expand(w, s)\n y = Mul(x, e)\n}"
    model = Model.parse(HEADER + text, w=np.ones(1, np.float32), s=np.asarray([2**20]))
    assert [node.op_type for node in canonicalize(model).nodes()] == ["Expand", "Mul"]


def test_random_draws_are_not_folded() -> None:
    text = "g (float[2] x) => (float[2] y) {\n r = RandomUniformLike(w)\n y = Mul(x, r)\n}"
    model = Model.parse(HEADER + text, w=np.ones(2, np.float32))
    assert [n.op_type for n in canonicalize(model).nodes()] == ["RandomUniformLike", "Mul"]
