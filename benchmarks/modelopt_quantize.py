"""Quantize an ONNX file with NVIDIA Model Optimizer, as `tensorrt_placement.py` asks for.

Runs under the Python that Model Optimizer is installed for, and imports nothing else of here.

    python modelopt_quantize.py float.onnx calibration.npz quantized.onnx fp16
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize


def main(model: str, calibration: str, out: str, precision: str) -> None:
    """Write `out`: int8 by their own placement, scales by the largest magnitude seen."""
    with np.load(calibration) as stored:
        samples = {name: stored[name] for name in stored.files}
    quantize(
        model,
        quantize_mode="int8",
        calibration_data=samples,
        calibration_method="max",
        calibration_eps=["cpu"],
        high_precision_dtype=precision,
        output_path=out,
        log_level="WARNING",
    )


if __name__ == "__main__":
    main(*sys.argv[1:5])
