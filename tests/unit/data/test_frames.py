"""Pictures as frames of a camera: their bytes, in the order and at the size that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgebm.data.frames import FrameColumn, frame_color, frame_layout
from edgebm.data.samples import open_samples
from edgebm.errors import DataError
from edgebm.spec import TensorSpec

Image = pytest.importorskip("PIL.Image")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def spec(layout: str, channels: int = 3) -> TensorSpec:
    return TensorSpec("image", "uint8", (1, 6, 8, channels), layout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        Image.fromarray(np.roll(PIXELS, index, axis=0)).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_a_layout_says_its_color(color: str) -> None:
    assert frame_color(spec(frame_layout(color))) == color  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["", "NCHW", "NHWC", "PCM", "NCHW RGB"])
def test_other_inputs_take_no_frames(layout: str) -> None:
    assert frame_color(spec(layout)) is None


def test_a_folder_gives_the_bytes_as_they_are(folder: Path) -> None:
    for layout, wanted in (("NHWC RGB", PIXELS), ("NHWC BGR", PIXELS[..., ::-1])):
        samples = [feeds["image"] for feeds in open_samples(folder, [spec(layout)]).feeds()]
        assert [(s.dtype, s.shape) for s in samples] == [(np.uint8, (1, 6, 8, 3))] * 3
        np.testing.assert_array_equal(samples[0][0], wanted)
        np.testing.assert_array_equal(samples[2][0], np.roll(wanted, 2, axis=0))


def test_gray_frames_of_a_colored_picture(folder: Path) -> None:
    (sample,) = open_samples(folder / "0.png", [spec("NHWC gray", 1)]).feeds()
    wanted = np.asarray(Image.fromarray(PIXELS).convert("L"))
    np.testing.assert_array_equal(sample["image"][0, ..., 0], wanted)


def test_a_picture_that_lies_on_its_side_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.rot90(PIXELS)).save(tmp_path / "turned.png", exif=exif)
    column = FrameColumn(tmp_path / "turned.png", "rgb")
    assert column.shape == (1, 6, 8, 3)
    np.testing.assert_array_equal(next(column.rows([0])), PIXELS)


def test_every_picture_of_another_size_is_named(folder: Path) -> None:
    for index, size in ((3, (9, 6)), (4, (8, 5))):
        Image.new("RGB", size).save(folder / f"{index}.png")
    with pytest.raises(DataError) as caught:
        open_samples(folder, [spec("NHWC RGB")])
    for words in ("2 of 5 pictures", "3.png has 6x9, the frames of 'image' 6x8", "4.png has 5x8"):
        assert words in str(caught.value), words
    assert "preprocess.source" in caught.value.hint
    with pytest.raises(DataError, match=r"3\.png has 6x9"):
        open_samples(folder / "3.png", [spec("NHWC RGB")])


def test_what_is_no_picture_is_refused_at_once(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png is not a readable image"):
        open_samples(folder, [spec("NHWC RGB")])


def test_a_picture_cut_short_is_found_when_it_is_read(folder: Path) -> None:
    path = folder / "2.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    samples = open_samples(folder, [spec("NHWC RGB")])
    with pytest.raises(DataError, match=r"2\.png is not a readable image"):
        list(samples.feeds())
