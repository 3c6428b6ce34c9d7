"""Names that the Python of a page uses and does not make: the robot around the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import snippet_models as models

import edgebm


class Camera:
    """A camera of `frames` pictures; it is open as long as it has some."""

    def __init__(self, *shape: int, frames: int = 5, dtype: str = "float32") -> None:
        self.left, self.number = frames, 0
        self.picture = np.zeros(shape, dtype)

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def read(self) -> tuple[Any, ...]:
        self.number += 1
        return self.picture, self.number, self.number * 1_000_000


def _image(folder: Path) -> dict[str, Any]:
    return {"image": np.zeros((1, 1, 8, 8), np.float32), "number": 7}


def _microphone(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(4, 1, 1, models.BANDS)).astype(np.float32)
    return {"microphone": list(frames)}


def _readme(folder: Path) -> dict[str, Any]:
    return _image(folder) | _microphone(folder)


def _stream_session(folder: Path) -> dict[str, Any]:
    return _microphone(folder) | {"session": edgebm.load(folder / "steps.edgebm")}


def _driving(folder: Path) -> dict[str, Any]:
    camera = Camera(1, 3, 24, 24)
    seen: list[Any] = []
    return {
        "camera": camera, "driving": camera,
        "steer": lambda *what: seen.append(what), "log": lambda *what: seen.append(what),
    }  # fmt: skip


def _logged(folder: Path) -> dict[str, Any]:
    import logging

    return {"log": logging.getLogger("robot"), "session": edgebm.load(folder / "model.edgebm")}


def _bytes(folder: Path) -> dict[str, Any]:
    """OpenCV's camera, and a bundle with the recipe that the page shows."""
    (recipe,) = folder.glob("line*.yaml")
    frames = np.random.default_rng(0).integers(0, 256, (12, 480, 640, 3), np.uint8)
    models.bundle(models.camera(), folder / "camera.edgebm", recipe=recipe, data=frames)

    class OpenCv:
        def read(self) -> tuple[bool, Any]:
            return True, frames[0]

    return {"camera": OpenCv(), "session": edgebm.load(folder / "camera.edgebm")}


def _two_inputs(folder: Path) -> dict[str, Any]:
    path = folder / "texts.edgebm"
    if not path.exists():
        models.bundle(models.tokens(), path)
    ids = np.ones((1, 8), np.int64)
    image = _image(folder)["image"]
    return {
        "image": image, "x": image, "buffer": np.empty((1, 10), np.float32),
        "texts": edgebm.load(path), "ids": ids, "mask": np.ones_like(ids),
    }  # fmt: skip


def _translating(folder: Path) -> dict[str, Any]:
    import transformers

    rng = np.random.default_rng(0)
    samples = {
        "input_ids": rng.integers(3, 60, (20, 16)),
        "attention_mask": np.ones((20, 16), np.int64),
        "token_type_ids": np.zeros((20, 16), np.int64),
    }
    if not (folder / "decoder.edgebm").exists():
        return {"transformers": transformers, "edgebm": edgebm, "samples": samples}
    ids = np.array([[5, 9, 30, 44, 1]])
    return {
        "encoder": edgebm.load(folder / "encoder.edgebm"),
        "decoder": edgebm.load(folder / "decoder.edgebm"),
        "ids": ids, "mask": np.ones_like(ids), "start": 0, "end": 1, "np": np,
    }  # fmt: skip


def _pass_names(folder: Path) -> dict[str, Any]:
    from typing import Annotated, ClassVar, Literal

    from pydantic import Field

    from edgebm.ir.model import Model
    from edgebm.passes.base import Context, step

    return {
        "step": step, "Context": Context, "Model": Model, "Field": Field,
        "Annotated": Annotated, "ClassVar": ClassVar, "Literal": Literal,
    }  # fmt: skip


def _batches(folder: Path) -> dict[str, Any]:
    import torch

    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.uniform(0, 16, (4, 8, 1, 8, 8)).astype(np.float32))
    return {"batches": [(each, torch.arange(8)) for each in pictures]}


def _quantizer(folder: Path) -> dict[str, Any]:
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.rest: Iterator[Any] = iter(rng.normal(size=(4, 1, 3, 24, 24)).astype(np.float32))

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {"image": image}

    return {"QuantType": QuantType, "quantize_static": quantize_static, "reader": Reader()}


_NAMES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": _readme,
    "docs/index.md": _image,
    "docs/how-to/add-a-pass.md": _pass_names,
    "docs/how-to/frame-loops.md": _driving,
    "docs/how-to/health.md": _logged,
    "docs/how-to/huggingface.md": _translating,
    "docs/how-to/preprocessing.md": _bytes,
    "docs/how-to/run-a-bundle.md": _two_inputs,
    "docs/how-to/streams.md": _stream_session,
    "docs/how-to/train.md": _batches,
    "docs/reference/tensorrt.md": _quantizer,
}


def names(page: str, folder: Path) -> dict[str, Any]:
    """What the page's Python has not made itself: asked for when a block is about to run."""
    return _NAMES[page](folder) if page in _NAMES else {}
