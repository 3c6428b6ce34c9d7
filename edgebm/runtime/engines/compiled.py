"""What a vendor compiled, as bytes that a later start can read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Compiled:
    """Compiled models in the vendor's own form: the free one, then the static copies in order.

    `options` are those that each was compiled with. They must be given again: OpenVINO reads a
    model that was compiled for f32 back in bf16 where nothing is said. The bytes are code to the
    vendor; they come from this device or from nowhere.
    """

    blobs: tuple[bytes, ...]
    options: tuple[Mapping[str, str], ...]
