"""What lies in the folder of each page before its first block."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import snippet_models as models

import edgebm
from edgebm.cli.main import main
from edgebm.demo import demo_files


def lay(page: str, folder: Path) -> None:
    """Puts the files of the page into its folder; a model and samples where none are named."""
    for make in _FILES.get(page, (models.digits,)):
        make(folder)


def _model_bundle(folder: Path) -> None:
    models.digits(folder)
    models.bundle(folder / "model.onnx", folder / "model.edgebm", ("openvino", "onnxruntime"))


def _two_releases(folder: Path) -> None:
    edgebm.compress(folder / "model.onnx", recipe="fp32", out=folder / "old.edgebm")
    shutil.copy(folder / "old.edgebm", folder / "new.edgebm")


def _released(folder: Path) -> None:
    """In float, so that no choice by time can make its follower much larger."""
    edgebm.compress(
        folder / "model.onnx", data=folder / "train.npz", eval=folder / "test.npz",
        recipe="fp32", out=folder / "released.edgebm",
    )  # fmt: skip


def _speech(folder: Path) -> None:
    models.sequences(folder, "speech.onnx", "speech.npz", "clips.npz", "test.npz")


def _frames(folder: Path) -> None:
    models.sequences(folder, "frames.onnx", "clips.npz")


def _streaming_bundle(folder: Path) -> None:
    _frames(folder)
    clips = folder / "clips.npz"
    models.bundle(folder / "frames.onnx", folder / "steps.edgebm", data=clips, streaming=True)
    for name in ("frames.onnx", "clips.npz"):
        (folder / name).unlink()


def _lane(folder: Path) -> None:
    models.bundle(models.lanes(), folder / "lane.edgebm")


def _spare_key(folder: Path) -> None:
    assert main(["keygen", "spare"]) == 0


def _digits_folder(folder: Path) -> None:
    """What examples/digits/train.py writes: the demo's files are made by it."""
    (folder / "digits").mkdir()
    for name, content in demo_files().items():
        (folder / "digits" / name).write_bytes(content)


def _digits_file(folder: Path) -> None:
    (folder / "digits.onnx").write_bytes(demo_files()["digits_cnn.onnx"])


def _float_file(folder: Path) -> None:
    models.digits(folder)
    (folder / "float.onnx").write_bytes(models.lanes().to_bytes())


_FILES: dict[str, tuple[Callable[[Path], None], ...]] = {
    "README.md": (models.digits, _two_releases, _frames),
    "docs/explanation/recurrent.md": (_speech,),
    "docs/how-to/frame-loops.md": (_lane,),
    "docs/how-to/gates.md": (models.zeros, _released),
    "docs/how-to/health.md": (_model_bundle,),
    "docs/how-to/huggingface.md": (models.reviews, models.translator),
    "docs/how-to/prune.md": (models.wide,),
    "docs/how-to/real-time.md": (_model_bundle,),
    "docs/how-to/run-a-bundle.md": (_model_bundle,),
    "docs/how-to/sign-bundles.md": (_model_bundle, _spare_key),
    "docs/how-to/start-faster.md": (_model_bundle,),
    "docs/how-to/streams.md": (_streaming_bundle,),
    "docs/how-to/train.md": (_digits_file,),
    "docs/reference/state.md": (_speech,),
    "docs/reference/tensorrt.md": (_float_file,),
    "docs/tutorial/first-model.md": (),
    "examples/digits/README.md": (_digits_folder,),
}
