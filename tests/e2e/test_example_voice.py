"""The example of spoken digits: its audio and features, and its whole path in a short form."""

from __future__ import annotations

import importlib
import importlib.util
import os
import struct
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import edgebm

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "voice_commands"
RNG = np.random.default_rng(0)
SPEECH = RNG.integers(-3000, 3000, 9001).astype(np.int16)
CUTS = [[9001], [1], [7, 333, 80], [79], [801, 1]]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports modules of the example, and forgets them again: their names are common ones."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    held = {name: sys.modules.pop(name) for name in names if name in sys.modules}

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(held)


def cut(samples: Any, sizes: list[int]) -> list[Any]:
    parts, at = [], 0
    while at < len(samples):
        for size in sizes:
            parts.append(samples[at : at + size])
            at += size
    return parts


def wav(path: Path, samples: Any, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize("sizes", CUTS[1:])
def test_features_have_the_same_bits_however_the_samples_are_cut(
    example: Any, sizes: list[int]
) -> None:
    features = example("features")
    whole, stream = features.log_mel(SPEECH), features.LogMel()
    assert whole.shape == ((9001 - 200) // 80 + 1, 40)
    np.testing.assert_array_equal(
        np.concatenate([stream.push(part) for part in cut(SPEECH, sizes)]), whole
    )


def test_a_tone_is_loudest_in_the_band_of_its_frequency(example: Any) -> None:
    features = example("features")
    for hz in (200, 1000, 3000):
        tone = 8000 * np.sin(2 * np.pi * hz * np.arange(800) / 8000)
        band = features.log_mel(tone.astype(np.int16))[0].argmax()
        rows = features.mel_filters()[:, band]
        assert abs(rows.argmax() * 8000 / 256 - hz) < 120


@pytest.mark.parametrize("rate", [8001, 11025, 16000, 44100, 48000])
def test_a_rate_is_converted_without_an_echo_of_what_8_khz_cannot_hold(
    example: Any, rate: int
) -> None:
    audio = example("audio")
    times = np.arange(rate) / rate
    low = 9000 * np.sin(2 * np.pi * 440 * times)
    high = 9000 * np.sin(2 * np.pi * 5200 * times) * (rate > 12000)
    samples = np.rint(low + high).astype(np.int16)
    once = audio.Resampler(rate)
    found = np.concatenate([once.push(samples), once.flush()])
    assert len(found) == 8000
    wanted = 9000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    assert np.abs(found - wanted)[100:-100].max() < 5  # of 9000
    again = audio.Resampler(rate)
    parts = [again.push(part) for part in cut(samples, [1, 7, 1000])]
    np.testing.assert_array_equal(np.concatenate([*parts, again.flush()]), found)


def test_a_detection_waits_for_certainty_and_is_not_repeated_at_once(example: Any) -> None:
    spotter = example("spotter")
    decision = spotter.Decision(0.7)
    scores = np.zeros(7, np.float32)
    scores[3] = 20  # "two"
    found = [decision.push(scores) for _ in range(120)]
    at = [i for i, one in enumerate(found) if one]
    # 0.7 of 15 frames are 11; the next ones begin when 50 frames have passed.
    assert at == [10, 60, 110]
    assert {one.word for one in found if one} == {"two"}
    assert found[10].time_s == (10 * 80 + 200) / 8000
    assert not any(spotter.Decision(0.7).push(np.zeros(7, np.float32)) for _ in range(60))


def test_a_wav_that_cannot_be_used_says_why(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, path = example("audio"), tmp_path / "x.wav"

    def refused() -> str:
        with pytest.raises(audio.AudioError) as caught:
            list(audio.wav_chunks(path, [800]))
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "cannot be read: No such file" in refused()
    path.write_bytes(b"")
    assert "ends before its header does" in refused()
    path.write_bytes(b"ID3" + bytes(100))
    assert "RIFF" in refused()
    path.write_bytes(_float_wav())
    assert "unknown format: 3" in refused()
    wav(path, SPEECH[:0])
    assert "it has no samples" in refused()
    wav(path, SPEECH[:9000], channels=2)
    assert "2 channels" in refused()
    wav(path, SPEECH.view(np.uint8), width=1)
    assert "8 bits, 16 are needed" in refused()
    wav(path, SPEECH[:9000].view(np.int32), rate=4000, width=4, channels=1)
    assert "32 bits" in refused()
    assert "4000 Hz" in refused()
    wav(path, SPEECH)
    path.write_bytes(path.read_bytes()[:-1001])
    assert sum(map(len, audio.wav_chunks(path, [800]))) == 9001 - 501
    assert "ends early: 8500 of the 9001 samples" in capsys.readouterr().err


def _float_wav() -> bytes:
    head = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 44, b"WAVE", b"fmt ", 16, 3, 1, 8000, 32000, 4, 32
    )
    return head + struct.pack("<4sI", b"data", 8) + bytes(8)


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RECIPES": "int8",
        "PYTHONPATH": str(ROOT),
        "PATH": bin_folder + os.pathsep + os.environ["PATH"],
    }
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.mark.skipif("EDGEBM_DATA" not in os.environ, reason="EDGEBM_DATA names no data sets")
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_from_training_to_detections_that_no_cut_changes(example: Any, tmp_path: Path) -> None:
    python, bundle, demo = sys.executable, tmp_path / "int8.edgebm", tmp_path / "demo.wav"
    quick = ["--clips", 64, "--epochs", 1, "--hidden", 24]
    run(python, EXAMPLE / "train.py", "--out", tmp_path, *quick)
    run(python, EXAMPLE / "recordings.py", "--out", tmp_path, "--minutes", 0.1)
    run("sh", EXAMPLE / "compress.sh", tmp_path, "--measure-seconds", 0.3)
    with wave.open(str(demo)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(samples) == 60 * 8000

    samples = samples[5 * 8000 : 15 * 8000]
    wav(demo, samples)
    # So little training is certain of nothing: this threshold is reached every half second.
    device = [python, EXAMPLE / "device.py", bundle, "--threshold", 0.001]
    wanted = run(*device, "--wav", demo, "--scores", tmp_path / "0.npy")
    assert wanted.stdout.count(b"\n") == 20
    assert b"real-time factor" in wanted.stderr
    spotter = example("spotter")
    with edgebm.load(bundle, threads=1) as session:
        for sizes in ([1], [7, 333, 80], [80000]):
            with session.stream() as stream:
                listener = spotter.Listener(stream, 0.001, keep=True)
                found = [one for part in cut(samples, sizes) for one in listener.push(part)]
            lines = "".join(f"{f.time_s:9.3f} s  {f.word:<6}{f.score:.6f}\n" for f in found)
            assert lines.encode() == wanted.stdout
            np.testing.assert_array_equal(listener.scores, np.load(tmp_path / "0.npy"))
    heard = run(*device, "--mic", "--chunk", "123", input=samples.tobytes())
    assert heard.stdout == wanted.stdout

    judged = run(
        python, EXAMPLE / "judge.py", bundle, "--folder", tmp_path, "--recordings", "others"
    ).stdout.decode()
    assert "0 of 0 missed" in judged
