"""From an annotated graph to every artifact worth measuring on a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from edgebm.backends import onnxruntime as onnxruntime_backend
from edgebm.backends import openvino as openvino_backend
from edgebm.backends.dialects import EXACT, Dialect, Grid, cpu_dialects
from edgebm.backends.placement import Ignored, Placement, place
from edgebm.backends.qdq import lower
from edgebm.backends.runtimes import BUILD, BUILD_F32, Builders, dialects_of, is_gpu
from edgebm.backends.weight_only import store_weights
from edgebm.errors import BackendFailed
from edgebm.ir.annotate import annotated, clear_quant, set_quant
from edgebm.ir.model import Model
from edgebm.ir.traits import MATMULS
from edgebm.pruning.semi_structured import sparse_layers
from edgebm.quant.params import Range
from edgebm.search.candidates import AT_RUN_TIME, CELLS, DYNAMIC, Artifact

# Share of the layers that another way to compute some must cover to be a candidate of its own:
# the head of a CNN alone is not worth one.
_WORTH = 0.5
TURNED = "-reset-before"


def values_to_observe(model: Model, runtimes: Sequence[str], ignored: Ignored) -> frozenset[str]:
    """Names of the values that some placement on some of `runtimes` quantizes."""
    plans = (
        place(model, dialect, ignored, decided=False)
        for runtime in runtimes
        for dialect in dialects_of(runtime)
    )
    # A point takes its range from where its integers first exist.
    return frozenset(v.name for plan in plans for v in plan.points.values() if v.name)


def build_float(model: Model, runtime: str) -> Artifact:
    """The uncompressed model for `runtime`, in FP32.

    Raises:
        BackendFailed: the runtime refuses the model.
    """
    build = BUILD_F32 if is_gpu(runtime) else BUILD
    return Artifact(runtime, "float", build[runtime](model), lowered=model)


def build_half(model: Model, runtime: str) -> Artifact:
    """The model for `runtime`, a GPU's, in FP16. Its values know their extents.

    Raises:
        BackendFailed: the runtime refuses the model, or it cannot be written in FP16.
    """
    made = Artifact(runtime, "float", BUILD[runtime](model), lowered=model, precision="f16")
    return replace(made, settings=_asked(made))


def _asked(artifact: Artifact) -> dict[str, str]:
    """What TensorRT's builder is asked for: to look at weights that are 2:4 sparse."""
    sparse = artifact.runtime == "tensorrt" and any(sparse_layers(artifact.lowered).values())
    return {"sparse_weights": "1"} if sparse else {}


def build_integer(
    model: Model, runtime: str, grids: Sequence[Grid], ignored: Ignored, build: Builders = BUILD
) -> list[Artifact | BackendFailed]:
    """One artifact per distinct placement of the decisions on `model`; none without any.

    Args:
        model: annotated.
        runtime: its name; for a GPU the values of `model` know their extents.
        grids: the chosen grid first; the others are those that do not overflow either.
        ignored: nodes the user wants in float.
        build: how the files are made.

    Returns:
        Artifacts. A placement that the runtime refuses is returned as the error, so that the
        report can say why it is missing.
    """
    if not annotated(model):
        return []
    built: list[Artifact | BackendFailed] = []
    seen: set[frozenset[str]] = set()
    for dialect in dialects_of(runtime, grids[0]):
        lowered, plan = lower(model, dialect, ignored)
        key = frozenset(plan.points) | set(plan.integer_nodes)
        if key not in seen and key:
            seen.add(key)
            kind = "int8" + "+attention" * dialect.attention
            made = _artifact(kind, lowered, plan, build[runtime], dialect)
            if isinstance(made, Artifact):
                made = replace(made, decided=model)
            built.append(made)
    if runtime == "onnxruntime":
        built += _dynamic(model, grids, ignored, cpu_dialects(runtime)[0], share=_WORTH)
    return built


def build_turned(
    model: Model, runtime: str, grids: Sequence[Grid], ignored: Ignored, build: Builders = BUILD
) -> list[Artifact | BackendFailed]:
    """The same as `build_integer` of a model whose GRUs were turned, where that is what counts.

    Only placements in which a recurrent layer runs on integers inside are worth a candidate.
    """
    artifacts = [
        each if isinstance(each, BackendFailed) else replace(each, kind=each.kind + TURNED)
        for each in build_integer(model, runtime, grids, ignored, build)
        if isinstance(each, BackendFailed) or each.kind not in AT_RUN_TIME
    ]
    cells = {node.name for node in model.nodes("GRU")}
    return [a for a in artifacts if isinstance(a, BackendFailed) or cells & set(a.integer_nodes)]


def build_lifted(
    base: Artifact, floats: AbstractSet[str], kind: str, ignored: Ignored
) -> Artifact:
    """The same placement as `base`, but for the nodes `floats`, which compute in float.

    Args:
        base: an artifact of `build_integer` with ranges.
        floats: names of nodes of `base.integer_nodes`.
        kind: its name.
        ignored: nodes the user wants in float.

    Raises:
        BackendFailed: the runtime refuses the graph.
    """
    assert base.dialect is not None

    def stays(name: str, op_type: str) -> bool:
        return name in floats or ignored(name, op_type)

    lowered, plan = lower(base.source, base.dialect, stays)
    reasons = {
        name: "lifted to float: its integers harm the outputs" if name in floats else reason
        for name, reason in plan.reasons.items()
    }
    files, nodes = BUILD[base.runtime](lowered), plan.integer_nodes
    return Artifact(
        base.runtime,
        kind,
        files,
        lowered,
        nodes,
        reasons,
        settings=base.settings,
        dialect=base.dialect,
        pruned=base.pruned,
        decided=base.decided,
        precision=base.precision,
    )


def build_weight_only(
    model: Model, runtime: str, grids: Sequence[Grid], ignored: Ignored, build: Builders = BUILD
) -> list[Artifact | BackendFailed]:
    """Artifacts for decisions that are about weights alone: no range of an activation is known.

    Integers are unpacked to float when the model is loaded, or while it multiplies; on ONNX
    Runtime there is one of each, and one whose products take the range of their input at each
    call where the weights are such that integer kernels take them. On OpenVINO there is one
    whose products read their inputs as they are, and where the CPU adds products of 8 bits
    without overflow one that rounds them.

    Args:
        model: annotated, without ranges.
        runtime: "onnxruntime" or "openvino".
        grids: those that do not overflow on the target.
        ignored: nodes the user wants in float.
        build: how the files are made.
    """
    stored = store_weights(model, ignored)
    if not stored.bits:
        return []
    plain = Artifact(
        runtime,
        f"w{min(stored.bits.values())}",
        {},
        stored.model,
        tuple(stored.bits),
        stored.reasons,
        stored.bits,
    )
    wide = EXACT in grids
    if runtime == "openvino":
        share = _products(stored.model) / len(stored.bits)
        return _weights_on_openvino(plain, build, rounded=wide and share >= _WORTH)
    plain = replace(plain, settings=onnxruntime_backend.UNPACK)
    built = [replace(plain, files=onnxruntime_backend.build_plain(stored.model))]
    files, count = onnxruntime_backend.build_packed(stored.model, wide=wide)
    if count >= _WORTH * len(stored.bits):
        built.append(replace(plain, kind=f"{plain.kind}-packed", files=files))
    dynamic = _dynamic_without_ranges(model, grids, ignored)
    return [*built, *(a for a in dynamic if len(a.integer_nodes) >= _WORTH * len(stored.bits))]


def build_promises(
    model: Model, runtime: str, grids: Sequence[Grid], ignored: Ignored, build: Builders = BUILD
) -> list[Artifact]:
    """Integer artifacts of made-up ranges, to be timed and never taken; see `build_integer`."""
    built = build_integer(model, runtime, grids, ignored, build)
    artifacts = [artifact for artifact in built if isinstance(artifact, Artifact)]
    return [replace(a, promise=True) for a in artifacts if a.kind not in AT_RUN_TIME]


def _weights_on_openvino(
    plain: Artifact, build: Builders, *, rounded: bool
) -> list[Artifact | BackendFailed]:
    try:
        plain = replace(
            plain,
            files=build["openvino"](plain.lowered),
            settings=openvino_backend.EXACT_INPUTS,
        )
    except BackendFailed as error:
        return [error]
    if not rounded:
        return [plain]
    settings = openvino_backend.ROUNDED_INPUTS
    return [plain, replace(plain, kind=f"{plain.kind}-rounded", settings=settings)]


def _products(stored: Model) -> int:
    """How many products read integers of their own."""
    return sum(
        (before := node.inputs[1].producer()) is not None  # type: ignore[union-attr]
        and before.op_type == "DequantizeLinear"
        for node in stored.nodes("MatMul", "Gemm")
    )


def _dynamic_without_ranges(
    model: Model, grids: Sequence[Grid], ignored: Ignored
) -> list[Artifact]:
    """The same as `_dynamic` from weights alone, if all that it would quantize are products."""
    out = model.clone()
    for node in out.nodes(*MATMULS - {"MatMul", "Gemm"}):
        clear_quant(node.inputs[1])  # type: ignore[arg-type]
    dialect = replace(cpu_dialects("onnxruntime")[0], joins=frozenset(), carries=frozenset())
    for value in place(out, dialect, ignored, decided=False).points.values():
        set_quant(value, Range(-1.0, 1.0))  # any will do: each call takes its own
    return _dynamic(out, grids, ignored, dialect, share=1.0)


def _artifact(
    kind: str,
    lowered: Model,
    plan: Placement,
    build: Callable[[Model], dict[str, bytes]],
    dialect: Dialect,
) -> Artifact | BackendFailed:
    try:
        files = build(lowered)
    except BackendFailed as error:
        return error
    made = Artifact(dialect.runtime, kind, files, lowered, plan.integer_nodes, plan.reasons)
    made = replace(made, dialect=dialect, precision="f16" if is_gpu(made.runtime) else "")
    return replace(made, settings=_asked(made))


def _dynamic(
    model: Model, grids: Sequence[Grid], ignored: Ignored, dialect: Dialect, share: float
) -> list[Artifact]:
    """Products and cells that take their range at run time, with all 8 bits of an activation.

    `share` is how many of the quantized nodes must be such products. Where there are GRU or RNN
    layers, one artifact leaves them in float and one writes them out.
    """
    grid = next((g for g in grids if g.activation_bits == 8), None)
    if grid is None:
        return []
    lowered, plan = lower(model, replace(dialect, grid=grid), ignored)
    built: list[Artifact] = []
    for kind, written_out in ((DYNAMIC, False), (CELLS, True)):
        made = onnxruntime_backend.build_cells(lowered, grid, written_out=written_out)
        files, found, count = made
        nodes = (*plan.integer_nodes, *found.cells)
        integers = count + len(found.cells)
        twice = any(earlier.integer_nodes == nodes for earlier in built)
        if not integers or integers < share * len(nodes) or twice:
            continue
        reasons = {**plan.reasons, **found.reasons}
        left = {name: why for name, why in reasons.items() if name not in found.cells}
        built.append(Artifact("onnxruntime", kind, files, lowered, nodes, left, decided=model))
    return built
