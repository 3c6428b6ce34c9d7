"""The verb `lint`: what a runtime's rules say of an ONNX graph, before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgebm.backends.tensorrt.lint import Finding
from edgebm.backends.tensorrt.lint import lint as lint_graph
from edgebm.backends.tensorrt.versions import OLDEST, parse_version, version_text
from edgebm.errors import UsageError
from edgebm.importers import read_model

_RUNTIME = "tensorrt"


@dataclass(frozen=True, slots=True)
class Lint:
    """What was found in `model` against `against`, such as `tensorrt:10.3`."""

    model: str
    against: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What parser or builder refuse."""
        return tuple(f for f in self.findings if f.rule.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What builds, and is slower or less accurate than it could be."""
        return tuple(f for f in self.findings if f.rule.severity == "warning")

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; `rules` says of each rule that was broken what to do."""
        broken = {finding.rule.code: finding.rule for finding in self.findings}
        return {
            "model": self.model,
            "against": self.against,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [
                {
                    "rule": f.rule.code,
                    "severity": f.rule.severity,
                    "node": f.node,
                    "op_type": f.op_type,
                    "text": f.text,
                }
                for f in self.findings
            ],
            "rules": {
                code: {"what": rule.what, "do": rule.do, "versions": rule.versions}
                for code, rule in broken.items()
            },
        }


def lint(model: object, against: str = _RUNTIME) -> Lint:
    """Hold an ONNX graph against the rules of TensorRT. Nothing is built, and none is needed.

    The graph is taken as it is in the file, whatever tool quantized it. No finding does not mean
    that TensorRT builds it: `docs/reference/tensorrt.md` lists what a graph does not tell.

    Args:
        model: as for `compress`; an ONNX file, mostly.
        against: `tensorrt` for the oldest version that is handled, 10.3, whose rules are the
            strictest, or `tensorrt:VERSION`.

    Raises:
        UsageError: no such runtime or version; names those that are known.
        ModelError: the model cannot be read.
    """
    runtime, _, written = against.partition(":")
    if runtime != _RUNTIME:
        raise UsageError(
            f"there are no rules for '{runtime}'",
            hint=f"write {_RUNTIME}, or {_RUNTIME}:{version_text(OLDEST)}",
        )
    version = OLDEST if ":" not in against else parse_version(written)
    read = read_model(model)
    return Lint(read.source, f"{runtime}:{version_text(version)}", lint_graph(read, version))
