"""From pictures and a recipe to a bundle that takes the camera's bytes, and the like for sound."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_formula import formula
from graphs import outputs, random_model, sqnr_db
from stateful_models import F, H, lstm_step, speech
from tiny_models import cnn

import edgebm
from edgebm.cli.main import main
from edgebm.data.preprocess import Preprocess
from edgebm.data.sounds import Audio
from edgebm.errors import InputDType, InputShape, UsageError
from edgebm.recipe import load_recipe
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.npy import read_npy

Image = pytest.importorskip("PIL.Image")
QUICK: dict[str, Any] = {"threads": 1, "measure_s": 0.2}
COUNT, HIGH, WIDE = 20, 24, 40
FRAMES = np.random.default_rng(0).integers(0, 256, (COUNT, HIGH, WIDE, 3), np.uint8)
LABELS = np.arange(COUNT) % 5
BLOCK = """
preprocess:
  size: [16, 16]
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  in_graph: true
  source: [24, 40]
  source_color: bgr
"""
HOW = Preprocess(
    size=(16, 16),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    in_graph=True,
    source=(HIGH, WIDE),
    source_color="bgr",
)
RECIPE = replace(load_recipe("int8"), preprocess=HOW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures as files and as an array with labels, and a recipe of one's own."""
    path = tmp_path_factory.mktemp("bytes")
    (path / "cnn.onnx").write_bytes(cnn().to_bytes())
    (path / "pictures").mkdir()
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame[..., ::-1]).save(path / "pictures" / f"{index:02}.png")
    np.savez(path / "frames.npz", image=FRAMES, labels=LABELS)
    recipes = Path(__file__).parents[2] / "recipes"
    (path / "camera.yaml").write_text((recipes / "int8.yaml").read_text() + BLOCK)
    return path


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    command = ["compress", f"{folder}/cnn.onnx", "-r", f"{folder}/camera.yaml"]
    command += ["-d", f"{folder}/pictures", "-o", f"{folder}/cnn.edgebm"]
    assert main([*command, "--measure-seconds", "0.2", "--threads", "1"]) == 0
    return folder / "cnn.edgebm"


def test_the_bundle_takes_the_bytes_of_the_camera(bundle: Path) -> None:
    with edgebm.load(bundle) as session:
        (spec,) = session.inputs
        assert str(spec) == f"image: uint8[1, {HIGH}, {WIDE}, 3]"
        assert spec.layout == "NHWC BGR"
        for frame in FRAMES[:4, None]:
            pixels = formula(frame, HOW).astype(np.float32)
            want = outputs(cnn(), {"image": pixels})["logits"]
            assert sqnr_db(want, session.run(frame)["logits"]) > 12  # 20 over all samples
        with pytest.raises(InputDType, match="image"):
            session.run(FRAMES[:1].astype(np.float32))
        with pytest.raises(InputShape) as caught:
            session.run(FRAMES[:1].transpose(0, 3, 1, 2))
        assert "NHWC is expected" in caught.value.hint
        with pytest.raises(InputShape):
            session.run(FRAMES[:1, :, :30])


def test_golden_samples_are_bytes(bundle: Path) -> None:
    opened = read_bundle(bundle)
    member = "golden/0/inputs/0.npy"
    golden = read_npy(bytes(opened.members[member]), member)
    assert golden.dtype == np.uint8
    assert golden.shape == (1, HIGH, WIDE, 3)
    assert any((golden[0] == frame).all() for frame in FRAMES)


def test_report_and_inspect_say_what_stands_in_front(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "NHWC BGR" in shown
    report = json.loads(bytes(read_bundle(bundle).members["report.json"]))
    assert any(note.startswith("in front of 'image': uint8 frames") for note in report["notes"])
    assert report["recipe"]["preprocess"]["source"] == [HIGH, WIDE]


def test_a_dry_run_says_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compress", f"{folder}/cnn.onnx", "-r", f"{folder}/camera.yaml", "--dry-run"]
    assert main([*command, "-d", f"{folder}/pictures"]) == 0
    assert "note: in front of 'image': uint8 frames of 24x40 (bgr" in capsys.readouterr().err


def test_pictures_and_arrays_of_bytes_are_the_same_samples(folder: Path) -> None:
    plans = [
        edgebm.quantize(cnn(), data, recipe=RECIPE).to_bytes()
        for data in (folder / "pictures", FRAMES, {"image": FRAMES})
    ]
    assert plans[0] == plans[1] == plans[2]


def test_a_bundle_is_scored_on_pictures_without_a_recipe(folder: Path, bundle: Path) -> None:
    scores = [
        edgebm.evaluate(bundle, data=data, labels=labels)["value"]
        for data, labels in ((folder / "frames.npz", None), (folder / "pictures", LABELS))
    ]
    assert scores[0] == scores[1]


def test_labels_judge_what_takes_bytes(folder: Path) -> None:
    planned = edgebm.plan(cnn(), data=folder / "frames.npz", recipe=RECIPE, **QUICK)
    assert planned["judged_by"] == "metric"
    assert planned["data"]["labels"]


def test_pictures_of_mixed_sizes_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, size in enumerate([(WIDE, HIGH), (30, 30)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    command = ["compress", f"{folder}/cnn.onnx", "-r", f"{folder}/camera.yaml", "--dry-run"]
    assert main([*command, "-d", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "1.png has 30x30, the frames of 'image' 24x40" in said
    assert "preprocess.source" in said


def test_without_samples_made_up_frames_are_timed() -> None:
    planned = edgebm.plan(cnn(), recipe=RECIPE, **QUICK)
    assert planned["data"]["source"] == "made-up inputs"
    assert planned["targets"][0]["candidates"]


def test_a_jetson_gets_bytes_too_and_no_int16(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    edgebm.compress(
        cnn(), data=FRAMES, recipe=RECIPE, target="jetson-orin-nano", out=path, **QUICK
    )
    (variant, *_) = read_bundle(path).manifest.variants
    assert variant.runtime == "tensorrt"
    assert variant.precision.startswith("int8")
    with pytest.raises(edgebm.errors.EdgebmError, match="the input 'sound' is int16"):
        edgebm.compress(waveform(), data=SOUND, recipe=HEARING, target="jetson-orin-nano", **QUICK)


SOUND = {"sound": np.random.default_rng(1).integers(-9000, 9000, (24, 1, 64), np.int16)}
HEARING = replace(load_recipe("int8"), audio=Audio())
ONLY_HEARING = replace(load_recipe("fp32"), audio=Audio())


def waveform() -> Any:
    return random_model(
        """g (float[1,1,64] sound) => (float[1,5] y) {
          c = Conv<kernel_shape=[8], strides=[4]>(sound, w1, b1)
          r = Relu(c)
          p = GlobalAveragePool(r)
          f = Flatten(p)
          y = Gemm<transB=1>(f, w2, b2)
        }""",
        w1=(16, 1, 8), b1=(16,), w2=(5, 16), b2=(5,),
    )  # fmt: skip


def test_a_bundle_that_takes_int16_sound(tmp_path: Path) -> None:
    path = tmp_path / "sound.edgebm"
    edgebm.compress(waveform(), data=SOUND, recipe=HEARING, out=path, **QUICK)
    with edgebm.load(path) as session:
        (spec,) = session.inputs
        assert (str(spec), spec.layout) == ("sound: int16[1, 1, 64]", "PCM")
        x = SOUND["sound"][:1]
        want = outputs(waveform(), {"sound": x.astype(np.float32) / 32768})["y"]
        assert sqnr_db(want, session.run(x)["y"]) > 12
        with pytest.raises(InputDType):
            session.run(x.astype(np.int32) + 40000)


def size_of_y(found: Any, _labels: Any) -> float:
    return float(np.abs(found["y"]).sum())


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    path, folder = tmp_path / "sound.edgebm", tmp_path / "sounds"
    folder.mkdir()
    for number, row in enumerate(SOUND["sound"]):
        with wave.open(str(folder / f"{number:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(row.tobytes())
    recipe = replace(HEARING, audio=Audio(rate=8000))
    edgebm.compress(waveform(), data=folder, recipe=recipe, out=path, **QUICK)
    with edgebm.load(path) as session:
        assert session.inputs[0].layout == "PCM 8000 Hz"
    by_files, by_arrays = (
        edgebm.evaluate(path, data=data, labels=np.zeros(len(SOUND["sound"])), metric=size_of_y)
        for data in (folder, SOUND)
    )
    assert by_files["value"] == by_arrays["value"] != 0


STEPS = np.random.default_rng(2).integers(-30000, 30000, (20, 10, 1, F), np.int16)


def test_a_model_with_state_takes_int16(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    edgebm.compress(lstm_step(), data={"x": STEPS}, recipe=ONLY_HEARING, out=path, **QUICK)
    with edgebm.load(path) as session, session.stream() as stream:
        assert [s.dtype for s in session.inputs] == ["int16", "float32", "float32"]
        held = {k: np.zeros((2, 1, H), np.float32) for k in ("h", "c")}
        for step in STEPS[0][:, None]:
            got = stream.step(step)["y"]
            want = outputs(lstm_step(), {"x": step.astype(np.float32) / 32768, **held})
            held = {"h": want["hn"], "c": want["cn"]}
            np.testing.assert_allclose(got, want["y"], rtol=1e-4, atol=1e-5)


def test_a_sequence_model_made_streaming_takes_int16(tmp_path: Path) -> None:
    path = tmp_path / "m.edgebm"
    whole = np.random.default_rng(3).integers(-30000, 30000, (20, 12, F), np.int16)
    recipe = ONLY_HEARING
    edgebm.compress(speech(), data=whole, recipe=recipe, streaming=True, out=path, **QUICK)
    want = outputs(speech(), {"x": whole[:1].astype(np.float32) / 32768})["y"]
    with edgebm.load(path) as session, session.stream() as stream:
        (spec,) = [spec for spec in session.inputs if spec.dtype == "int16"]
        assert (str(spec), spec.layout) == (f"x: int16[1, 1, {F}]", "PCM")
        got = [stream.step(step[None, None])["y"][:, 0] for step in whole[0]]
    np.testing.assert_allclose(np.stack(got, axis=1), want, rtol=1e-4, atol=1e-5)


def test_a_recipe_that_does_not_fit_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="no input of rank 4"):
        edgebm.plan(waveform(), data=SOUND, recipe=RECIPE, **QUICK)
