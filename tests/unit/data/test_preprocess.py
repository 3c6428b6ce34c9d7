from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgebm.data.preprocess import Preprocess
from edgebm.data.samples import open_samples
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        Image.fromarray(np.roll(PIXELS, index, axis=0)).save(tmp_path / f"{index}.png")
    return tmp_path


def test_images_of_the_right_size_are_only_scaled(folder: Path) -> None:
    how = Preprocess(size=(6, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    specs = [TensorSpec("x", "float32", (1, 3, 6, 8))]
    samples = list(open_samples(folder, specs, preprocess=how).feeds())
    assert len(samples) == 3
    wanted = (PIXELS / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.1]
    np.testing.assert_allclose(samples[0]["x"][0], wanted.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        (Preprocess(size=(4, 5)), (3, 4, 5)),
        (Preprocess(size=(4, 5), layout="NHWC"), (4, 5, 3)),
        (Preprocess(size=(4, 4), crop=True, color="gray"), (1, 4, 4)),
        (Preprocess(size=(9, 20), crop=True), (3, 9, 20)),
    ],
)
def test_shapes(folder: Path, how: Preprocess, shape: tuple[int, ...]) -> None:
    array = how(folder / "0.png")
    assert array.shape == how.shape == shape
    assert array.dtype == np.float32
    assert array.min() >= 0
    assert array.max() <= 1


def test_raw_bytes_and_channel_order(folder: Path) -> None:
    how = Preprocess(size=(6, 8), dtype="uint8", layout="NHWC", color="bgr")
    np.testing.assert_array_equal(how(folder / "0.png"), PIXELS[..., ::-1])


def test_crop_takes_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 48:80] = 200
    Image.fromarray(wide).save(tmp_path / "w.png")
    array = Preprocess(size=(28, 28), crop=True, dtype="uint8", layout="NHWC")(tmp_path / "w.png")
    assert array[14, 14, 0] == 200
    assert array[14, 0, 0] == array[14, 27, 0] == 0


def test_what_is_cut_out_of_a_frame() -> None:
    how = Preprocess(size=(224, 224), in_graph=True, source=(480, 640))
    assert how.cut == (0, 0, 480, 640)
    assert replace(how, crop=True).cut == (30, 110, 420, 420)
    assert replace(how, source=None, crop=True).cut == (14, 14, 196, 196)
    assert replace(how, size=(100, 200), crop=True).cut == (100, 40, 280, 560)


def test_faults(folder: Path) -> None:
    with pytest.raises(ValidationError, match="2 numbers for 3 channels"):
        Preprocess(size=(4, 4), mean=(0.5, 0.5))
    with pytest.raises(ValidationError, match="leave mean and std out"):
        Preprocess(size=(4, 4), dtype="uint8", mean=(0.5,))
    for keys, words in (
        ({"in_graph": True, "dtype": "uint8"}, "takes floats"),
        ({"source": (8, 8)}, "source is of frames.*in_graph: true"),
        ({"source_color": "bgr"}, "source_color is of frames"),
        ({"input": "x"}, "input is of frames"),
        ({"in_graph": True, "color": "gray", "source_color": "bgr"}, "gets gray frames"),
    ):
        with pytest.raises(ValidationError, match=words):
            Preprocess(**{"size": (4, 4), **keys})  # type: ignore[arg-type]
    (folder / "3.png").write_bytes(b"no image")
    specs = [TensorSpec("x", "float32", (1, 3, 6, 8))]
    with pytest.raises(DataError, match=r"3\.png is not a readable image"):
        list(open_samples(folder, specs, preprocess=Preprocess(size=(6, 8))).feeds())
    with pytest.raises(DataError, match="NHWC, the model NCHW"):
        open_samples(folder, specs, preprocess=Preprocess(size=(6, 8), layout="NHWC"))
