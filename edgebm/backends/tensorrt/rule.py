"""What a rule for graphs says: whom it holds for, what a good graph does, how to get there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgebm.backends.tensorrt.versions import OLDEST, Version, version_text

Severity = Literal["error", "warning"]

# Where a rule was read. `Rule.source` names some of the keys.
SOURCES = {
    "P": "the parser's source, onnx-tensorrt 10.1-GA (the newest that is public), its changelog",
    "O": "the parser's own list of operators, `operators.md` of 10.15",
    "H": "`NvInfer.h` of 10.3 and 11.1, at IQuantizeLayer and IDequantizeLayer",
    "G": "TensorRT's developer guide: explicit quantization, fused attention, opsets of each "
    "release",
    "M": "NVIDIA Model Optimizer, `modelopt/onnx/quantization` of August 2026",
    "I": "issues #1694, #1934 and #4832 of NVIDIA/TensorRT",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. It holds for versions from `since` on and, if `until` is given, below that.

    `what` is a sentence that says what a good graph does, `do` one that says how to get there.
    `unseen` says what a graph alone does not tell; empty if there is nothing.
    """

    code: str
    what: str
    do: str
    source: str
    since: Version = OLDEST
    until: Version | None = None
    unseen: str = ""

    @property
    def severity(self) -> Severity:
        """An error is refused by parser or builder; after a warning it builds, but is worse."""
        return "error" if self.code.startswith("E") else "warning"

    def applies(self, version: Version) -> bool:
        """Whether the rule holds for this version of TensorRT."""
        return self.since <= version and (self.until is None or version < self.until)

    @property
    def versions(self) -> str:
        """Those it holds for, such as `10.3 and later` or `10.3 to before 10.4`."""
        first = version_text(self.since)
        if self.until is None:
            return f"{first} and later"
        return f"{first} to before {version_text(self.until)}"
