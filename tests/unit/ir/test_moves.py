from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import parse

from edgebm.ir.moves import carry_back, carry_on, upper_limit

CONSTANTS = {
    "zero": np.float32(0), "six": np.float32(6), "low": np.float32(-1),
    "space": [2, 3], "rest": [1, 2, 3], "none": np.zeros(0, np.int64),
    "flat": [2, 36], "split": [2, 4, 3, 3], "joined": [2, 4, 9], "mixed": [8, 9],
    "border": [0, 0, 1, 1, 0, 0, 1, 1], "wider": [0, 1, 0, 0, 0, 0, 0, 0],
    "slope": np.ones((4, 1, 1), np.float32),
}  # fmt: skip
# call: where channels on axis 1 of x [2, 4, 3, 3] lie behind it, as (axis, repeat)
CALLS: dict[str, tuple[int, int] | None] = {
    "Relu(x)": (1, 1),
    "LeakyRelu(x)": (1, 1),
    "Neg(x)": (1, 1),
    "Clip(x, zero)": (1, 1),
    "Clip(x, low)": None,
    "Clip(x, zero, six)": None,
    "Sigmoid(x)": None,
    "Exp(x)": None,
    "MaxPool<kernel_shape=[2,2]>(x)": (1, 1),
    "AveragePool<kernel_shape=[2,2]>(x)": (1, 1),
    "GlobalAveragePool(x)": (1, 1),
    "Pad(x, border)": (1, 1),
    "Pad(x, border, zero)": (1, 1),
    "Pad(x, border, six)": None,
    "Pad(x, wider)": None,
    'Pad<mode="edge">(x, border)': (1, 1),
    "Transpose<perm=[0,2,3,1]>(x)": (3, 1),
    "ReduceMean(x, space)": (1, 1),
    "ReduceMean<keepdims=0>(x, space)": (1, 1),
    "ReduceL2(x, space)": (1, 1),
    "ReduceMean(x, rest)": None,
    "ReduceMean(x)": None,
    "ReduceMean(x, none)": None,
    "PRelu(x, slope)": (1, 1),
    "Flatten(x)": (1, 9),
    "Flatten<axis=2>(x)": None,
    "Reshape(x, flat)": (1, 9),
    "Reshape(x, split)": (1, 1),
    "Reshape(x, joined)": (1, 1),
    "Reshape(x, mixed)": None,
    "Concat<axis=1>(x, x)": None,
}


def node_of(call: str) -> ir.Node:
    used = {k: np.asarray(v) for k, v in CONSTANTS.items() if f" {k}" in call}
    text = f"g (float[2,4,3,3] x) => (float y) {{ h = {call}\n y = ReduceSum<keepdims=0>(h) }}"
    return next(parse(text, **used).nodes())


@pytest.mark.parametrize("call", CALLS)
def test_where_channels_go(call: str) -> None:
    node, want = node_of(call), CALLS[call]
    assert carry_on(node, 1) == want
    same_axis = want == (1, 1) and node.op_type not in {"ReduceMean", "ReduceL2", "Reshape"}
    assert carry_back(node, 1) == (1 if same_axis else None)


def test_pooling_does_not_keep_other_axes() -> None:
    assert carry_on(node_of("MaxPool<kernel_shape=[2,2]>(x)"), 2) is None
    assert carry_on(node_of("ReduceMean<keepdims=0>(x, space)"), 3) is None


def test_the_limit_of_a_relu6() -> None:
    assert upper_limit(node_of("Clip(x, zero, six)")) == 6.0
    for other in ("Clip(x, low, six)", "Clip(x, zero)", "Clip(x, zero, low)", "Relu(x)"):
        assert upper_limit(node_of(other)) is None
