"""A stand-in for NVIDIA's package, for tests only: the names of one version, computed on a CPU.

`STANDIN_TRT_VERSION` chooses a table of names. What the real version lacks is missing here, and
what it does not let be set cannot be set. Memory, streams and errors are those of `cuda.c`, the
numbers come from ONNX Runtime. It shows that the engine calls TensorRT as it must, and nothing of
TensorRT's kernels, fusions, speed or accuracy.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tensorrt import _building, _names, _running

__version__ = os.environ["STANDIN_TRT_VERSION"]
_TABLE = Path(__file__).parents[2] / "tensorrt_names"
_NAMES = _names.Names(
    json.loads((_TABLE / f"{os.environ.get('STANDIN_TRT_NAMES', __version__)}.json").read_text())
)
globals().update(_NAMES.classes((*_building.CLASSES, *_running.CLASSES)))
nptype = _running.nptype
if os.environ.get("STANDIN_TRT_FAULT") == "no parser":
    del globals()["OnnxParser"]
