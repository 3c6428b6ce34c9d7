"""Arrays of the graph as torch tensors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

TORCH_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}
"""The dtypes a trainable graph computes in."""

HELD_DTYPES = {
    **TORCH_DTYPES,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.UINT16: torch.int32,
}
"""The dtypes it may hold: integers that are only dequantized lie in wider ones."""

_WIDER = {"int2": "i1", "uint2": "u1", "int4": "i1", "uint4": "u1", "uint16": "i4"}


def to_tensor(array: NDArray[Any]) -> Tensor:
    """A copy that may be written to, in the dtype that `HELD_DTYPES` has for it."""
    if array.dtype.name == "bfloat16":  # a dtype that numpy borrows and torch does not take
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if array.dtype.name in _WIDER:
        array = array.astype(_WIDER[array.dtype.name])
    return torch.from_numpy(np.array(array, order="C"))


def to_array(tensor: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy on the host, in the dtype that the graph holds it in."""
    held = tensor.detach().cpu()
    if held.dtype == torch.bfloat16:
        held = held.to(torch.float32)
    return np.array(held.numpy(), dtype=dtype)
