"""What ONNX Runtime's own profile says of each node that ran: where, on what, and how long.

It is the one account of this that every version from 1.20 on gives, and it tells the types and
sizes of what was computed, by which a shape can be told from data.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMED = "_kernel_time"  # how a profile marks a node's own time
_FLOATS = {"float": "f32", "float16": "f16", "bfloat16": "bf16", "double": "f64"}
_BYTES = {"int8", "uint8"}
# Copies, and what only changes how values are written, are no layers.
_NOT_LAYERS = re.compile("Memcpy|Cast|QuantizeLinear|Reshape|Transpose|Shape|Concat|Slice|squeeze")
CELLS = {"LSTM", "GRU", "RNN"}
# Where the work of a model is; "Conv" is ConvTranspose, FusedConv and QLinearConv, too.
_HEAVY = re.compile("Conv|MatMul|Gemm|Einsum|Attention|LSTM|GRU|RNN")
# As many elements as the shape of a tensor or the scales of a Resize may have, and no data.
_FEW = 64


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One run of a node. `inputs` and `outputs` are types of tensors by ONNX Runtime's names.

    `elements` is how many the largest output has.
    """

    label: str
    op: str
    provider: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    taken_us: float

    @property
    def precision(self) -> str:
        """What a layer computes in; "" for a node that is none."""
        if _NOT_LAYERS.search(self.op):
            return ""
        if _BYTES & {*self.inputs} and not _FLOATS.keys() & {*self.inputs[:1]}:
            return "int8"
        return next((_FLOATS[kind] for kind in self.outputs if kind in _FLOATS), "")

    @property
    def is_heavy(self) -> bool:
        """Whether this is where the work of a model is."""
        return _HEAVY.search(self.op) is not None

    @property
    def is_shape(self) -> bool:
        """Whether it computes shapes or indices, which ONNX Runtime does on the CPU by design."""
        floats = _FLOATS.keys() & {*self.inputs, *self.outputs}
        return not self.is_heavy and (not floats or self.elements <= _FEW)


def node_runs(profile: str | Path) -> list[NodeRun]:
    """The runs of all nodes in a profile file, in their order."""
    events = json.loads(Path(profile).read_text(encoding="utf-8"))
    return [
        _node_run(event)
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_TIMED)
    ]


def _node_run(event: dict[str, Any]) -> NodeRun:
    args = event["args"]
    outputs = args.get("output_type_shape", ())
    sizes = (_elements(shape) for each in outputs for shape in each.values())
    return NodeRun(
        label=event["name"].removesuffix(_TIMED),
        op=args["op_name"],
        provider=args.get("provider", ""),
        inputs=tuple(kind for each in args.get("input_type_shape", ()) for kind in each),
        outputs=tuple(kind for each in outputs for kind in each),
        elements=max(sizes, default=0),
        taken_us=event["dur"],
    )


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def elsewhere(runs: Iterable[NodeRun], provider: str) -> list[NodeRun]:
    """What computed data on another provider than this."""
    return [run for run in runs if run.provider != provider and not run.is_shape]


def layers(runs: Iterable[NodeRun]) -> dict[str, int]:
    """How many layers ran, by precision."""
    counts = Counter(run.precision for run in runs)
    del counts[""]
    return dict(sorted(counts.items()))


def cells(runs: Iterable[NodeRun]) -> dict[str, str]:
    """What each recurrent layer ran in, by its name."""
    return {run.label: run.precision for run in runs if run.op in CELLS}


def named(runs: Sequence[NodeRun]) -> str:
    """The nodes for people: not more than ten."""
    shown = dict.fromkeys(f"{run.op} '{run.label}'" for run in runs)
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ", ".join(list(shown)[:10]) + more
