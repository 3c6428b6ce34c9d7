from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgebm.ir.dims import Free, Known, is_number, propagate, shape_array
from edgebm.ir.model import Model

B = Free(("B",))
HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def result(body: str, **weights: Any) -> list[Any] | None:
    """What `propagate` knows of the last value of a graph with input x: float[B,3,8]."""
    text = f"g (float[B,3,8] x) => (float y) {{\n {body}\n}}"
    model = Model.parse(HEADER + text, **{k: np.asarray(v) for k, v in weights.items()})
    known: Known = {}
    found = None
    for node in model.nodes():
        found = propagate(node, known)
        if found is not None:
            known[node.outputs[0]] = found
    return None if found is None else list(np.atleast_1d(found))


def test_products_of_sizes() -> None:
    assert B * 2 == 2 * B == Free(("B",), 2)
    assert B * Free(("A",), 3) == Free(("A", "B"), 3)
    assert Free(("B",), 4) // 2 == Free(("B",), 2)
    assert B * 0 == 0


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("y = Shape(x)", {}, [B, 3, 8]),
        ("y = Shape<start=1>(x)", {}, [3, 8]),
        ("y = Size(x)", {}, [Free(("B",), 24)]),
        ("s = Shape(x)\n y = Gather(s, i)", {"i": 0}, [B]),
        ("s = Shape(x)\n y = Gather(s, i)", {"i": [-1, 0]}, [8, B]),
        ("s = Shape(x)\n y = Slice(s, a, b)", {"a": [1], "b": [99]}, [3, 8]),
        ("s = Shape(x)\n y = Concat<axis=0>(s, i)", {"i": [5]}, [B, 3, 8, 5]),
        ("s = Shape(x)\n p = Gather(s, i)\n y = Unsqueeze(p, z)", {"i": 0, "z": [0]}, [B]),
        ("s = Shape<end=1>(x)\n y = Squeeze(s)", {}, [B]),
        ("s = Shape<end=1>(x)\n y = Reshape(s, r)", {"r": [-1]}, [B]),
        ("s = Shape(x)\n y = Mul(s, i)", {"i": 2}, [Free(("B",), 2), 6, 16]),
        ("s = Shape<start=1>(x)\n y = Div(s, i)", {"i": 2}, [1, 4]),
        ("s = Shape<start=1>(x)\n y = Add(s, i)", {"i": 2}, [5, 10]),
        ("s = Shape<start=1>(x)\n y = Sub(s, i)", {"i": 2}, [1, 6]),
        ("s = Shape(x)\n y = Cast<to=6>(s)", {}, [B, 3, 8]),
        ("s = Shape(x)\n y = Equal(s, i)", {"i": -1}, [False, False, False]),
        (
            "s = Shape(x)\n e = Equal(s, i)\n y = Where(e, o, s)",
            {"i": -1, "o": [1, 1, 1]},
            [B, 3, 8],
        ),
    ],
)
def test_rules(body: str, weights: dict[str, Any], expected: list[Any]) -> None:
    assert result(body, **weights) == expected


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Relu(x)", {}),
        ("s = Shape(x)\n y = Add(s, i)", {"i": 1}),
        ("s = Shape(x)\n y = Equal(s, i)", {"i": 4}),
        ("s = Shape(x)\n y = Div(s, i)", {"i": 2}),
        ("s = Shape(x)\n y = Div(s, i)", {"i": 0}),
        ("s = Shape(x)\n y = Gather(s, i)", {"i": 7}),
        ("s = Shape(x)\n y = Cast<to=1>(s)", {}),
    ],
)
def test_what_is_no_product_of_sizes_stays_unknown(body: str, weights: dict[str, Any]) -> None:
    assert result(body, **weights) is None


def test_names_of_exporters_are_products() -> None:
    value = ir.val("v", dtype=ir.DataType.FLOAT, shape=["2*batch", "a + 1", None])
    shape = shape_array(value)
    assert shape is not None
    assert list(shape) == [Free(("batch",), 2), Free(("a + 1",)), Free(("?v.2",))]
    assert not is_number(shape)
    assert shape_array(ir.val("no_rank")) is None
