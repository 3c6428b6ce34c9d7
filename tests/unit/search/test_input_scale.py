"""Wrong scaling, on the digits of the demo and on small graphs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from graphs import parse

from edgebm.data.samples import open_samples
from edgebm.demo import CALIBRATION, TEST, demo_files
from edgebm.importers import import_model
from edgebm.ir.face import face
from edgebm.ir.model import Model
from edgebm.search.input_scale import scale_warnings

RNG = np.random.default_rng(4)


def images(name: str) -> np.ndarray:
    with np.load(io.BytesIO(demo_files()[name])) as arrays:
        return np.asarray(arrays["image"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("digits") / "m.onnx"
    path.write_bytes(demo_files()["digits_cnn.onnx"])
    return import_model(path)


def warned(model: Model, samples: Any) -> list[str]:
    return list(scale_warnings(model, open_samples(samples, face(model)[0])))


@pytest.mark.parametrize("name", [CALIBRATION, TEST])
@pytest.mark.parametrize("count", [1, 8, 200])
def test_the_right_digits_raise_no_alarm(digits: Model, name: str, count: int) -> None:
    assert warned(digits, images(name)[:count]) == []


@pytest.mark.row(66)
@pytest.mark.parametrize(
    ("scale", "shift", "figures"),
    [
        (255.0, 0.0, "range [0, 4.08e+03]"),
        (1 / 16, 0.0, "range [0, 1]"),
        (1 / 6, -0.8, "range [-0.8, 1.87]"),
    ],
)
def test_digits_of_another_scale_do(
    digits: Model, scale: float, shift: float, figures: str
) -> None:
    scaled = (images(CALIBRATION) * scale + shift).astype(np.float32)
    (sentence,) = warned(digits, scaled)
    assert figures in sentence
    assert "first BatchNormalization" in sentence
    assert "is the normalization right?" in sentence


def conv(norm: str = "", **weights: np.ndarray) -> Model:
    return parse(
        f"g (float[1,3,8,8] image) => (float[1,4,6,6] y) {{ {norm or 'y = Conv(image, w)'} }}",
        w=RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        **weights,
    )


RAW = RNG.integers(0, 256, (20, 3, 8, 8)).astype(np.float32)
NORM = "c = Conv(image, w)\n y = BatchNormalization(c, s, s, m, v)"
ONES, ZEROS = np.ones(4, np.float32), np.zeros(4, np.float32)


@pytest.mark.row(66)
def test_raw_pixels_that_go_unscaled_into_a_layer() -> None:
    (sentence,) = warned(conv(), RAW)
    assert "input 'image' holds whole numbers, mean" in sentence
    assert "range [0, 255], like raw pixels" in sentence
    padded = "p = Pad(image, pads)\n y = Conv(p, w)"
    assert warned(conv(padded, pads=np.zeros(8, np.int64)), RAW)


@pytest.mark.parametrize("samples", [RAW / 255, RAW - 128, RAW / 16, np.round(RAW / 15), RAW * 2])
def test_other_values_are_no_raw_pixels(samples: np.ndarray) -> None:
    assert warned(conv(), samples.astype(np.float32)) == []


def test_a_model_that_scales_by_itself_takes_raw_pixels() -> None:
    scaling = "d = Div(image, k)\n y = Conv(d, w)"
    assert warned(conv(scaling, k=np.float32(255).reshape(1)), RAW) == []


def test_a_norm_that_saw_raw_pixels_is_content_with_them() -> None:
    weights = np.asarray(next(iter(conv().graph.graph.initializers.values())).const_value.numpy())
    flat = weights.reshape(4, -1).astype(np.float64)
    mean, deviation = flat.sum(axis=1) * RAW.mean(), np.sqrt((flat**2).sum(axis=1)) * RAW.std()
    model = parse(
        f"g (float[1,3,8,8] image) => (float[1,4,6,6] y) {{ {NORM} }}",
        w=weights, s=ONES, m=mean.astype(np.float32), v=(deviation**2).astype(np.float32),
    )  # fmt: skip
    assert warned(model, RAW) == []
    assert len(warned(model, RAW / 255)) == 1


def test_a_norm_that_was_never_trained_knows_nothing() -> None:
    assert "like raw pixels" in warned(conv(NORM, s=ONES, m=ZEROS, v=ONES), RAW)[0]
    (trained,) = warned(conv(NORM, s=ONES, m=ZEROS + np.float32(0.1), v=ONES), RAW)
    assert "first BatchNormalization" in trained


def test_a_norm_of_the_input_itself() -> None:
    model = parse(
        "g (float[1,4,6,6] image) => (float[1,4,6,6] y) "
        "{ y = BatchNormalization(image, s, s, m, v) }",
        s=ONES, m=ZEROS + np.float32(128), v=ONES * np.float32(73**2),
    )  # fmt: skip
    pixels = RNG.integers(0, 256, (20, 4, 6, 6)).astype(np.float32)
    assert warned(model, pixels) == []
    assert len(warned(model, pixels / 255)) == 1


def test_models_without_float_inputs() -> None:
    model = parse(
        "g (int64[1,5] ids) => (float[1,5,8] y) { y = Gather(w, ids) }",
        w=RNG.normal(size=(9, 8)).astype(np.float32),
    )
    assert warned(model, RNG.integers(0, 9, (20, 5))) == []
