"""Checks of operators: which are imported at all, and in which form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from edgebm.backends.tensorrt.reading import Fault, Reading, dequantizer, sizes
from edgebm.backends.tensorrt.versions import version_text
from edgebm.ir.edit import const, input_at
from edgebm.ir.recurrent import STANDARD
from edgebm.ir.traits import RECURRENT

# Its parser reads `trt` as its own: there are Q and DQ of types that old opsets do not have.
_DOMAINS = frozenset({"", "ai.onnx", "trt"})
_OLDEST_OPSET = 9
# The newest opset from a version on. That of 11.0 is in NVIDIA's list of opsets, that of 10.15 in
# the parser's own list of operators, and the others are those of the ONNX versions that
# changelogs name.
_NEWEST_OPSETS = (((11, 0), 25), ((10, 15), 24), ((10, 11), 23), ((10, 6), 22), ((10, 0), 20))
_NOT_IMPORTED = frozenset(
    {
        "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
        "BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger",
        "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool",
        "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional",
        "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul",
        "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
        "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
        "Unique",
    }
)  # fmt: skip
_TOO_MANY_K = 3840
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_NO_FACE_TYPES = frozenset(
    {ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)
_CELL_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def imported(reading: Reading) -> Iterator[Fault]:
    """E09."""
    for node in reading.nodes:
        if node.domain not in _DOMAINS:
            yield node, f"{node.op_type} of the domain {node.domain} needs a plugin"
        elif node.op_type in _NOT_IMPORTED:
            yield node, f"{node.op_type} is not imported"


def newest_opset(version: tuple[int, int]) -> int:
    """The newest opset that the parser of this version reads."""
    return next(opset for since, opset in _NEWEST_OPSETS if version >= since)


def opsets(reading: Reading) -> Iterator[Fault]:
    """E10."""
    newest = newest_opset(reading.version)
    if not _OLDEST_OPSET <= reading.opset <= newest:
        yield (
            None,
            (
                f"the model is of opset {reading.opset}; TensorRT {version_text(reading.version)} "
                f"reads {_OLDEST_OPSET} to {newest}"
            ),
        )


def kernel_shapes(reading: Reading) -> Iterator[Fault]:
    """E12."""
    for node in reading.of("Conv", "ConvTranspose"):
        if "kernel_shape" not in node.attributes and dequantizer(input_at(node, 1)) is not None:
            yield node, "it has a dequantized weight and no kernel_shape"


def half_layers(reading: Reading) -> Iterator[Fault]:
    """E14."""
    half = ir.DataType.FLOAT16
    for node in reading.of("Gemm"):
        operand, bias = input_at(node, 0), input_at(node, 2)
        if operand is None or operand.dtype != half:
            continue
        for key in ("alpha", "beta") if bias is not None else ("alpha",):
            if (factor := node.attributes.get_float(key, 1.0)) != 1.0:
                yield node, f"its {key} is {factor:g}: the parser multiplies by an FP32 constant"
        for value in node.inputs[:2]:
            if value is not None and value.shape is not None and len(value.shape) != 2:
                yield node, f"'{value.name}' has {len(value.shape)} axes"
    for node in reading.of("BatchNormalization"):
        operand, scale = input_at(node, 0), input_at(node, 1)
        mixed = operand is not None and operand.dtype == half and _is_f32(scale)
        if mixed and reading.version < (10, 7):
            yield node, "its input is FP16 and its constants are FP32"


def _is_f32(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def forms(reading: Reading) -> Iterator[Fault]:
    """E15."""
    for op_type, why_not in _FORMS.items():
        for node in reading.of(op_type):
            yield from ((node, why) for why in why_not(node))


def face_types(reading: Reading) -> Iterator[Fault]:
    """E18."""
    graph = reading.graph
    for what, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.dtype in _NO_FACE_TYPES:
                yield None, f"the {what} '{value.name}' is {value.dtype.name.lower()}"
    for value in graph.inputs:
        if value.dtype == ir.DataType.UINT8:
            for node, _ in value.uses():
                if node.op_type != "Cast":
                    yield node, f"it reads '{value.name}', which is uint8"


def _cell(node: ir.Node) -> Iterator[str]:
    for key in ("input_forget", "layout"):
        if number := node.attributes.get_int(key, 0):
            yield f"its {key} is {number}, not 0"
    operand = input_at(node, 0)
    if operand is not None and operand.dtype and operand.dtype not in _CELL_TYPES:
        yield f"it computes in {operand.dtype.name.lower()}"
    named = node.attributes.get_strings("activations", [])
    count = len(STANDARD[node.op_type])
    if node.attributes.get_string("direction", "forward") == "bidirectional" and (
        named[:count] != named[count:]
    ):
        yield f"its two directions have other activations: {', '.join(named)}"


def _resize(node: ir.Node) -> Iterator[str]:
    if node.attributes.get_int("antialias", 0):
        yield "it has antialias"
    if node.attributes.get_string("mode", "nearest") == "cubic":
        yield "its mode is cubic"
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        yield f"its keep_aspect_ratio_policy is {policy}"


def _max_pool(node: ir.Node) -> Iterator[str]:
    if len(node.outputs) > 1 and node.outputs[1].name:
        yield "it gives out indices"
    yield from _pool(node)


def _pool(node: ir.Node) -> Iterator[str]:
    if any(step != 1 for step in node.attributes.get_ints("dilations", [])):
        yield "it is dilated"


def _top_k(node: ir.Node) -> Iterator[str]:
    count = const(input_at(node, 1))
    if count is not None and count.size == 1 and int(count.reshape(-1)[0]) >= _TOO_MANY_K:
        yield f"its K is {int(count.reshape(-1)[0])}, not below {_TOO_MANY_K}"


def _first_output(node: ir.Node) -> Iterator[str]:
    if any(out.is_graph_output() or tuple(out.uses()) for out in node.outputs[1:]):
        yield "its mean or deviation is read"


def _constant_at(index: int, what: str) -> Callable[[ir.Node], Iterator[str]]:
    def check(node: ir.Node) -> Iterator[str]:
        value = input_at(node, index)
        if value is not None and const(value) is None:
            yield f"its {what} are computed"

    return check


def _loop(node: ir.Node) -> Iterator[str]:
    body = node.attributes["body"].as_graph()
    carried = node.inputs[2:]
    for before, after in zip(carried, body.outputs[1 : 1 + len(carried)], strict=False):
        first, next_ = sizes(before), sizes(after)
        if first is not None and next_ is not None and first != next_:
            yield f"'{after.name}', which it carries, goes from {list(first)} to {list(next_)}"


_FORMS: dict[str, Callable[[ir.Node], Iterator[str]]] = {
    **dict.fromkeys(sorted(RECURRENT), _cell),
    "Resize": _resize,
    "MaxPool": _max_pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "LayerNormalization": _first_output,
    "CumSum": _constant_at(1, "axes"),
    **dict.fromkeys(_REDUCTIONS, _constant_at(1, "axes")),
    "TopK": _top_k,
    "Loop": _loop,
}
