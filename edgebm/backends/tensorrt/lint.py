"""Hold a graph against the rules of one version of TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgebm.backends.tensorrt import (
    attention,
    grids,
    layers,
    operators,
    pairs,
    residual,
    strong_typing,
)
from edgebm.backends.tensorrt.reading import Fault, Reading, label, read
from edgebm.backends.tensorrt.rule import Rule
from edgebm.backends.tensorrt.rules import RULES
from edgebm.backends.tensorrt.versions import Version
from edgebm.ir.check import blaming
from edgebm.ir.model import Model

Check = Callable[[Reading], Iterator[Fault]]

CHECKS: Mapping[str, Check] = {
    "E01": grids.zero_points,
    "E02": grids.integer_types,
    "E03": grids.integer_biases,
    "E04": grids.scales,
    "E05": grids.scaled_activations,
    "E06": grids.channel_scales,
    "E07": grids.grid_shapes,
    "E08": grids.scalars,
    "E09": operators.imported,
    "E10": operators.opsets,
    "E12": operators.kernel_shapes,
    "E13": strong_typing.one_type,
    "E14": operators.half_layers,
    "E15": operators.forms,
    "E16": grids.int4_weights,
    "E17": grids.bare_integers,
    "E18": operators.face_types,
    "W01": layers.both_operands,
    "W02": layers.fusions,
    "W03": layers.batch_norms,
    "W04": pairs.float_only,
    "W05": residual.skips,
    "W06": layers.weight_scales,
    "W07": layers.small_convolutions,
    "W08": layers.small_products,
    "W09": pairs.concats,
    "W10": pairs.rounded_twice,
    "W11": pairs.outputs,
    "W12": pairs.one_scale,
    "W13": attention.products,
    "W14": pairs.both_sides,
    "W15": strong_typing.remainder,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a graph breaks a rule.

    `node` is the node's name, or that of its first output where it has none; `node` and
    `op_type` are empty where the model as a whole is meant. `text` is a sentence with the facts.
    """

    rule: Rule
    node: str
    op_type: str
    text: str


def lint(model: Model, version: Version) -> tuple[Finding, ...]:
    """What breaks the rules of `version` in a graph as it is, rule by rule, errors first.

    Args:
        model: any ONNX graph, quantized by whatever tool; it need not be canonical.
        version: one of `versions.KNOWN`.

    Raises:
        ModelError: the graph is not valid ONNX.
        UnsupportedModel: it has too many nodes.
    """
    with blaming(model):
        reading = read(model, version)
        wanted = [rule for rule in RULES.values() if rule.applies(version)]
        return tuple(f for rule in wanted for f in _findings(rule, CHECKS[rule.code](reading)))


def _findings(rule: Rule, faults: Iterable[Fault]) -> Iterator[Finding]:
    for node, text in dict.fromkeys(faults):
        if node is None:
            yield Finding(rule, "", "", text)
        else:
            yield Finding(rule, label(node), node.op_type, text)


def counts(findings: Iterable[Finding]) -> tuple[int, int]:
    """How many errors and how many warnings there are."""
    found = Counter(finding.rule.severity for finding in findings)
    return found["error"], found["warning"]
