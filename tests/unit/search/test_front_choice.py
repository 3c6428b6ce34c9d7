"""Which input a recipe's preprocessing goes in front of, and what is said about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import parse
from stateful_models import lstm_step
from tiny_models import cnn, small, transformer

from edgebm.data.preprocess import Preprocess
from edgebm.data.samples import open_samples
from edgebm.data.sounds import Audio
from edgebm.errors import UsageError
from edgebm.ir.face import face
from edgebm.recipe import Recipe
from edgebm.search.candidates import Face
from edgebm.search.front import Front, put_in_front
from edgebm.search.input_scale import scale_warnings
from edgebm.search.made_up import made_up_samples

MODEL = cnn()  # image: float32[1, 3, 16, 16]
TWO = (
    "g (float[1,3,6,8] left, float[1,3,6,8] right) => (float[1,3,6,8] y) { y = Sub(left, right) }"
)


def put(model: Any = MODEL, audio: Audio | None = None, **keys: Any) -> Front:
    how = Preprocess(**{"size": (16, 16), "in_graph": True, **keys}) if keys else None
    return put_in_front(model, Recipe(version=1, steps=(), preprocess=how, audio=audio))


def inputs(front: Front) -> list[str]:
    return [f"{spec} {spec.layout}".strip() for spec in face(front.model)[0]]


def test_nothing_is_put_where_nothing_is_asked_for() -> None:
    assert put().model is MODEL
    front = put(in_graph=False, mean=(0.5,))
    assert front == Front(MODEL)


def test_the_model_itself_stays_as_it_is() -> None:
    before = MODEL.to_bytes()
    front = put(source=(24, 40), source_color="bgr")
    assert inputs(front) == ["image: uint8[1, 24, 40, 3] NHWC BGR"]
    assert MODEL.to_bytes() == before


def test_it_is_said_what_stands_in_front() -> None:
    front = put(source=(24, 40), crop=True, mean=(0.5,), std=(0.2, 0.3, 0.4), source_color="bgr")
    assert front.notes == (
        "in front of 'image': uint8 frames of 24x40 (bgr, NHWC), the middle 21x21 from row 1 and "
        "column 9, resized to 16x16 (bilinear, no antialiasing), turned into rgb, "
        "(x / 255 - 0.5) / [0.2, 0.3, 0.4]",
    )
    assert not front.warnings
    assert "resized" not in put(in_graph=True).notes[0]


def test_frames_much_larger_than_the_model_are_warned_about() -> None:
    assert not put(source=(32, 32)).warnings
    (warning,) = put(source=(16, 48)).warnings
    assert "shrink 3 times without antialiasing" in warning


def test_free_axes_take_the_size_of_the_recipe() -> None:
    model = parse("g (float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Relu(x) }")
    assert inputs(put(model, size=(6, 8))) == ["x: uint8[n, 6, 8, 3] NHWC RGB"]


def test_the_only_image_and_the_only_waveform_of_several_inputs() -> None:
    model = parse(
        "g (float[1,9] sound, float[1,3,6,8] x, int64[1] k) => (float[1,9] y, float[1,3,6,8] z) "
        "{ y = Neg(sound)\n z = Neg(x) }"
    )
    front = put(model, Audio(), size=(6, 8))
    assert inputs(front) == [
        "sound: int16[1, 9] PCM",
        "x: uint8[1, 6, 8, 3] NHWC RGB",
        "k: int64[1]",
    ]
    assert len(front.notes) == 2
    assert "divided by 32768" in front.notes[1]


def test_states_are_not_what_is_meant() -> None:
    front = put(lstm_step(), Audio())
    assert inputs(front)[0] == "x: int16[1, 1, 6] PCM"
    assert [spec.dtype for spec in face(front.model)[0]] == ["int16", "float32", "float32"]


def test_one_of_several_is_named() -> None:
    with pytest.raises(UsageError, match="several inputs of rank 4: 'left'.*'right'") as caught:
        put(parse(TWO), size=(6, 8))
    assert "input: NAME" in caught.value.hint
    front = put(parse(TWO), size=(6, 8), input="right")
    assert inputs(front) == ["left: float32[1, 3, 6, 8]", "right: uint8[1, 6, 8, 3] NHWC RGB"]


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        (MODEL, {"input": "picture"}, "no input 'picture'"),
        (MODEL, {"size": (17, 16)}, r"\[1, 3, 17, 16\].*takes \[1, 3, 16, 16\]"),
        (MODEL, {"layout": "NHWC"}, r"\[1, 16, 16, 3\] \(NHWC"),
        (MODEL, {"color": "gray"}, r"\[1, 1, 16, 16\].*gray"),
        (small(), {"mean": (0.5,)}, "no input of rank 4; its inputs are 'x'"),
        (small(), {"input": "x"}, r"takes \[1, 8\]"),
        (transformer(), {"input": "ids"}, "'ids' takes int64"),
    ],
)
def test_an_input_that_does_not_fit(model: Any, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        put(model, **{"in_graph": True, **keys})
    assert caught.value.hint


def test_an_input_that_is_an_output_too_is_left_alone() -> None:
    model = parse("g (float[1,9] s) => (float[1,9] s, float[1,9] y) { y = Neg(s) }")
    with pytest.raises(UsageError, match="'s' is an output of the model, too"):
        put(model, Audio(input="s"))
    with pytest.raises(UsageError, match="no input of floats"):
        put(model, Audio())


def test_a_waveform_has_to_be_floats() -> None:
    with pytest.raises(UsageError, match="audio: the model has no input of floats"):
        put(transformer(), Audio())
    with pytest.raises(UsageError, match=r"audio\.input: 'ids' takes int64"):
        put(transformer(), Audio(input="ids"))


def test_made_up_frames_are_bytes_of_all_kinds() -> None:
    model = put(source=(24, 40)).model
    made = made_up_samples(model, Face(*(tuple(s) for s in face(model))), {}, None, 0)
    first = next(iter(made.feeds()))["image"]
    assert first.dtype == np.uint8
    assert first.shape == (1, 24, 40, 3)
    assert len(np.unique(first)) > 200


def test_a_wrong_normalization_is_seen_behind_it() -> None:
    """Of the samples themselves nothing can be wrong any more: they are bytes."""
    frames = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    found = {}
    for std in (0.29, 0.001):
        model = put(norm_first(), size=(16, 16), mean=(0.5,), std=(std,)).model
        samples = open_samples({"x": frames}, face(model)[0])
        found[std] = list(scale_warnings(model, samples))
    assert not found[0.29]
    (warning,) = found[0.001]
    assert "first BatchNormalization" in warning
    assert "Input 'x' has mean 128, range [0, 255]" in warning


def norm_first() -> Any:
    """A BatchNormalization that saw values of mean 0 and variance 1, nearly, in training."""
    ones = np.ones(3, np.float32)
    return parse(
        "g (float[1,3,16,16] x) => (float[1,3,16,16] y) "
        "{ y = BatchNormalization(x, gain, shift, mean, var) }",
        gain=ones,
        shift=0 * ones,
        mean=0 * ones + np.float32(0.01),
        var=ones,
    )
