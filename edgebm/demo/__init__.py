"""Three small models trained on handwritten digits, and samples: what `edgebm demo` compresses.

`examples/digits/train.py` made the files. Images are float32 [N, 1, 8, 8] with values 0 to 16
under the name `image`; `labels` are int64 [N].
"""

from __future__ import annotations

from pathlib import Path

MODELS = ("digits_cnn", "digits_transformer", "digits_lstm")
CALIBRATION, TEST = "calibration.npz", "test.npz"


def demo_files() -> dict[str, bytes]:
    """The content of the models and samples by file name."""
    folder = Path(__file__).parent
    names = (*(f"{name}.onnx" for name in MODELS), CALIBRATION, TEST)
    return {name: (folder / name).read_bytes() for name in names}
