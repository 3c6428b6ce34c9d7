"""WAV files as samples."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edgebm.data.samples import Samples, open_samples
from edgebm.data.sounds import Audio, sound_layout, sound_rate
from edgebm.errors import DataError
from edgebm.recipe import load_recipe
from edgebm.spec import TensorSpec

RATE = 8000
HEARS = Audio(dtype="float32", rate=RATE)
FLOATS = TensorSpec("sound", "float32", (1, 1, 6))
BYTES = TensorSpec("sound", "int16", (1, 6), sound_layout(RATE))


def write(path: Path, samples: object, rate: int = RATE, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.array(samples, "<i2").tobytes())
    return path


def opened(path: Path, spec: TensorSpec = FLOATS, audio: Audio | None = HEARS) -> Samples:
    return open_samples(path, [spec], audio=audio)


def test_a_folder_in_the_order_of_names_as_floats(tmp_path: Path) -> None:
    write(tmp_path / "b.wav", [-32768, 16384, 0, 0, 0, 1])
    write(tmp_path / "a.WAV", [1, 2, 3, 4, 5, 6])
    with opened(tmp_path) as samples:
        first, second = (feeds["sound"] for feeds in samples.feeds())
        assert not samples.warnings
    assert first.dtype == np.float32
    assert first.shape == (1, 1, 6)
    np.testing.assert_array_equal(first[0, 0] * 32768, np.arange(1, 7))
    np.testing.assert_array_equal(second[0, 0, :2], [-1, 0.5])


def test_a_graph_that_takes_the_numbers_gets_them_and_knows_the_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [-32768, 32767, 0, 1, 2, 3])
    feeds = next(opened(path, BYTES, None).feeds())
    assert feeds["sound"].dtype == np.int16
    assert feeds["sound"].tolist() == [[-32768, 32767, 0, 1, 2, 3]]


def test_other_lengths_are_cut_or_filled_and_told(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", range(9))
    write(tmp_path / "short.wav", [7])
    samples = opened(tmp_path, BYTES)
    long, short = (feeds["sound"].tolist() for feeds in samples.feeds())
    assert long == [[0, 1, 2, 3, 4, 5]]
    assert short == [[7, 0, 0, 0, 0, 0]]
    assert list(samples.warnings) == [
        "1 of 2 sounds are longer than the input and are cut off",
        "1 of 2 sounds are shorter than the input: zeros follow",
    ]


def test_a_free_axis_takes_the_length_of_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", range(9))
    write(tmp_path / "b.wav", [7])
    samples = opened(tmp_path, TensorSpec("sound", "float32", ("batch", "time")))
    assert [feeds["sound"].shape for feeds in samples.feeds()] == [(1, 9), (1, 1)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rate": 16000}, "16000 Hz in place of 8000"),
        ({"channels": 2}, "2 channels in place of 1"),
        ({"samples": []}, "no samples"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, given: dict[str, object], words: str) -> None:
    path = write(tmp_path / "a.wav", **{"samples": [1, 2], **given})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=words) as caught:
        opened(path)
    assert "-ar 8000" in caught.value.hint


def test_what_is_no_wav_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"ID3 an mp3 with another name")
    with pytest.raises(DataError, match="no WAV file with plain samples"):
        opened(path)


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", range(6))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="ends after 4 of the 6 samples"):
        list(opened(path).feeds())


def test_a_rate_has_to_be_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", range(6))
    for audio in (None, Audio()):
        with pytest.raises(DataError, match="at which rate the model hears is not said"):
            opened(path, audio=audio)


@pytest.mark.parametrize(
    "spec", [TensorSpec("x", "float32", (1, 3, 6)), TensorSpec("x", "int64", (1, 6))]
)
def test_a_model_that_takes_no_sounds(tmp_path: Path, spec: TensorSpec) -> None:
    with pytest.raises(DataError, match="is a sound, the model takes"):
        opened(write(tmp_path / "a.wav", range(6)), spec)


def test_layouts_tell_the_rate() -> None:
    assert sound_rate(BYTES) == RATE
    for layout in ("", "PCM", "PCM fast", "NHWC RGB"):
        assert sound_rate(TensorSpec("x", "int16", (1, 6), layout)) is None


def test_a_recipe_says_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("version: 1\nsteps: []\naudio: {rate: 16000, dtype: float32}\n")
    assert load_recipe(path).audio == Audio(rate=16000, dtype="float32")
