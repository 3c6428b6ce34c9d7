"""What the products of training are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from edgebm.runtime.cpu import cpu_features

Choice = Literal["auto", "f32", "bf16", "f16"]
_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True)
class Precision:
    """`name` is f32, bf16 or f16; weights and what is learned about them are always f32."""

    name: str
    why: str

    def cast(self, device: torch.device) -> AbstractContextManager[None]:
        """Where products are computed in it; convolutions, matrices and recurrent layers."""
        dtype = _DTYPES.get(self.name)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Keeps the small gradients of f16 from becoming zero; of others it does nothing."""
        return torch.amp.GradScaler(device.type, enabled=self.name == "f16")


F32 = Precision("f32", "")


def chosen(wanted: Choice, device: torch.device, *, convolutions: bool) -> Precision:
    """`auto` takes bf16 where the processor has products of it that are faster than f32.

    On CPUs that is so for convolutions; AVX-512 BF16 or AMX must be there.
    """
    if wanted != "auto":
        return Precision(wanted, "as asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "the GPU has it")
        return Precision("f32", "the GPU has no bf16")
    if not cpu_features() & {"avx512_bf16", "amx_bf16"}:
        return Precision("f32", "the CPU has no bf16")
    if not convolutions:
        return Precision("f32", "the model has no convolutions; bf16 speeds up those")
    return Precision("bf16", "the CPU has it, and the model has convolutions")
