"""What nodes preprocessing in front of an input becomes; numbers are in the conformance tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import parse

from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import const
from edgebm.ir.face import face, layout_of, set_layout
from edgebm.ir.front import ImageFront, take_frames, take_pcm
from edgebm.ir.model import Model

ONES = np.ones(3, np.float32)
PLAIN = ImageFront((6, 8), (0, 0, 6, 8), (6, 8), False, ONES, 0 * ONES, nhwc=False)
SCALED = replace(PLAIN, scale=ONES / 255, shift=-ONES)


def image_model(batch: object = 1, kind: str = "float") -> Model:
    return parse(f"g ({kind}[{batch},3,6,8] x) => ({kind}[{batch},3,6,8] y) {{ y = Relu(x) }}")


def put(front: ImageFront, model: Model) -> Model:
    take_frames(model, "x", front)
    return canonicalize(model)


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.nodes()]


@pytest.mark.parametrize(
    ("front", "wanted"),
    [
        (PLAIN, "Cast Transpose"),
        (SCALED, "Cast Mul Add Transpose"),
        (replace(SCALED, shift=0 * ONES), "Cast Mul Transpose"),
        (replace(SCALED, swap=True), "Cast Mul Add Transpose Gather"),
        (replace(PLAIN, source=(12, 9), cut=(3, 0, 6, 8)), "Cast Slice Transpose"),
        (replace(SCALED, source=(12, 9), cut=(1, 1, 9, 6), swap=True),
         "Cast Transpose Slice Resize Gather Reshape Mul Add Reshape"),
        # Most of the frame is never looked at: its channels are moved when it is small.
        (replace(SCALED, source=(60, 80), cut=(0, 0, 60, 80)),
         "Cast Resize Mul Add Transpose"),
    ],
)  # fmt: skip
def test_as_few_nodes_as_it_takes(front: ImageFront, wanted: str) -> None:
    assert ops(put(front, image_model())) == [*wanted.split(), "Relu"]


def test_a_model_that_takes_channels_last_needs_no_transpose() -> None:
    model = parse("g (float[1,6,8,3] x) => (float[1,6,8,3] y) { y = Relu(x) }")
    front = replace(SCALED, source=(12, 9), cut=(1, 1, 9, 6), swap=True, nhwc=True)
    assert ops(put(front, model)) == ["Cast", "Slice", "Resize", "Gather", "Mul", "Add", "Relu"]


def test_a_free_first_axis_stays_free() -> None:
    front = replace(PLAIN, source=(12, 9), cut=(0, 0, 12, 9))
    made = put(front, image_model("n"))
    inputs, outputs = face(made)
    assert str(inputs[0]) == "x: uint8[n, 12, 9, 3]"
    assert str(outputs[0]) == "y: float32[n, 3, 6, 8]"


def test_numbers_alike_are_one_and_others_one_for_each_channel_of_a_row() -> None:
    large = {"source": (12, 9), "cut": (0, 0, 12, 9)}
    for keys, several in (({}, (8, 3)), (large, (3, 1))):
        for scale, shape in ((ONES / 255, ()), (np.array([1, 2, 3], np.float32), several)):
            made = put(replace(PLAIN, scale=scale, **keys), image_model())
            (mul,) = made.nodes("Mul")
            factor = const(mul.inputs[1])
            assert factor is not None
            assert factor.dtype == np.float32
            assert factor.shape == shape


def test_a_model_of_half_precision_gets_half_precision() -> None:
    made = put(SCALED, image_model(kind="float16"))
    assert ops(made) == ["Cast", "Mul", "Add", "Transpose", "Cast", "Relu"]
    assert str(face(made)[0][0]) == "x: uint8[1, 6, 8, 3]"


def test_names_that_are_taken_are_left_alone() -> None:
    model = parse(
        """g (float[1,3,6,8] x) => (float[1,3,6,8] y, float[1,3,6,8] z) {
          x.float = Relu(x)
          x.scaled = Neg(x.float)
          y = Abs(x.scaled)
          z = Exp(x)
        }""".replace("x.float", "x_float").replace("x.scaled", "x_scaled")
    )
    for node in model.nodes("Relu", "Neg"):
        node.outputs[0].name = str(node.outputs[0].name).replace("_", ".")
    made = put(SCALED, model)
    names = [v.name for node in made.nodes() for v in node.outputs]
    assert len(set(names)) == len(names)
    assert [spec.name for side in face(made) for spec in side] == ["x", "y", "z"]
    (exp,) = made.nodes("Exp")
    assert exp.inputs[0] is not made.graph.graph.inputs[0]


def test_int16_samples_are_divided() -> None:
    model: Any = parse("g (float[1,n] x, float[2] k) => (float[1,n] y) { y = Exp(x) }")
    take_pcm(model, "x")
    made = canonicalize(model)
    assert ops(made) == ["Cast", "Mul", "Exp"]
    assert [str(spec) for spec in face(made)[0]] == ["x: int16[1, n]", "k: float32[2]"]


def test_a_layout_goes_with_clones_and_into_no_file() -> None:
    model = image_model()
    before = model.to_bytes()
    set_layout(model.graph.graph.inputs[0], "NHWC RGB")
    assert layout_of(model.clone().graph.graph.inputs[0]) == "NHWC RGB"
    assert face(model)[0][0].layout == "NHWC RGB"
    assert model.to_bytes() == before
