"""Every op of the table against the ONNX standard's own node tests."""

from __future__ import annotations

import functools
import importlib
import warnings
from pkgutil import iter_modules
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from onnx.backend.test.case import node as standard  # noqa: E402

from edgebm.errors import UnsupportedModel  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.ops import OPS  # noqa: E402
from edgebm.grad.tensors import HELD_DTYPES, TORCH_DTYPES, to_tensor  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402

# How many cases of each op the table passes; the standard may add to them.
LEAST = {
    "Abs": 1, "Acos": 2, "Acosh": 2, "Add": 5, "And": 8, "ArgMax": 16, "ArgMin": 16,
    "Asin": 2, "Asinh": 2, "Atan": 2, "Atanh": 2, "AveragePool": 20, "BatchNormalization": 4,
    "BitShift": 24, "BitwiseAnd": 3, "BitwiseNot": 2, "BitwiseOr": 3, "BitwiseXor": 3,
    "Cast": 8, "Ceil": 2, "Celu": 3, "Clip": 12, "Compress": 5, "Concat": 12,
    "ConstantOfShape": 3, "Conv": 6, "ConvTranspose": 11, "Cos": 2, "Cosh": 2, "CumSum": 9,
    "DepthToSpace": 2, "DequantizeLinear": 9, "Div": 7, "Dropout": 6,
    "DynamicQuantizeLinear": 3, "Einsum": 9, "Elu": 3, "Equal": 5, "Erf": 1, "Exp": 2,
    "Expand": 2, "EyeLike": 3, "Flatten": 9, "Floor": 2, "GRU": 6, "Gather": 4,
    "GatherElements": 3, "GatherND": 3, "Gelu": 4, "Gemm": 11, "GlobalAveragePool": 2,
    "GlobalMaxPool": 2, "Greater": 5, "GreaterOrEqual": 5, "HardSigmoid": 3, "HardSwish": 1,
    "Hardmax": 7, "Identity": 3, "InstanceNormalization": 2, "IsInf": 4, "IsNaN": 2, "LRN": 2,
    "LSTM": 5, "LayerNormalization": 19, "LeakyRelu": 3, "Less": 5, "LessOrEqual": 5,
    "Log": 2, "LogSoftmax": 7, "LpNormalization": 6, "LpPool": 8, "MatMul": 7, "Max": 11,
    "MaxPool": 17, "Mean": 3, "MeanVarianceNormalization": 1, "Min": 11, "Mish": 1, "Mod": 16,
    "Mul": 6, "Neg": 2, "NonZero": 1, "Not": 3, "OneHot": 6, "Or": 8, "PRelu": 2, "Pad": 6,
    "Pow": 10, "QuantizeLinear": 10, "RNN": 6, "Range": 4, "Reciprocal": 2, "ReduceL1": 9,
    "ReduceL2": 9, "ReduceLogSum": 5, "ReduceLogSumExp": 9, "ReduceMax": 9, "ReduceMean": 8,
    "ReduceMin": 9, "ReduceProd": 9, "ReduceSum": 12, "ReduceSumSquare": 9, "Relu": 1,
    "Reshape": 10, "Resize": 37, "ReverseSequence": 3, "Round": 1, "ScatterElements": 7,
    "ScatterND": 7, "Selu": 3, "Shape": 11, "Shrink": 2, "Sigmoid": 2, "Sign": 1, "Sin": 2,
    "Sinh": 2, "Size": 2, "Slice": 8, "Softmax": 7, "Softplus": 2, "Softsign": 2,
    "SpaceToDepth": 3, "Split": 16, "Sqrt": 2, "Squeeze": 2, "Sub": 6, "Sum": 3, "Tan": 2,
    "Tanh": 2, "ThresholdedRelu": 3, "Tile": 2, "TopK": 6, "Transpose": 7, "Trilu": 18,
    "Unsqueeze": 7, "Where": 2, "Xor": 8,
}  # fmt: skip

# The standard's module that is not named after its op; one op has no cases there.
MODULES = {"Range": "rangeop"}
WITHOUT_CASES = {"GlobalLpPool"}

_UNSIGNED = "torch has no arithmetic on unsigned integers of more than 8 bits"
_NOTHING = "torch refuses the extreme of no elements"
_NOT_A_TENSOR = "the value is a sequence or an optional, which canonical graphs do not hold"
_PLACES = "refused: the places of the maxima have no gradient"
_DROPS = "refused: in canonical graphs nothing is dropped"
_CORNERS = "the standard counts unrounded sizes; ONNX Runtime and torch, as here, whole ones"
# Cases of the standard that are not run, each with the reason.
SKIPPED = {
    "lstm_with_peepholes": "refused: torch's kernel has no peepholes",
    "reduce_max_empty_set": _NOTHING,
    "reduce_max_empty_set_bool": _NOTHING,
    "reduce_min_empty_set": _NOTHING,
    "maxpool_with_argmax_2d_precomputed_pads": _PLACES,
    "maxpool_with_argmax_2d_precomputed_strides": _PLACES,
    **{f"training_dropout{form}": _DROPS
       for form in ("", "_mask", "_default", "_default_mask", "_zero_ratio", "_zero_ratio_mask")},
    **{f"bitshift_{way}_uint{bits}": _UNSIGNED for way in ("left", "right") for bits in (32, 64)},
    **{f"bitwise_{op}_ui64_bcast_3v1d": _UNSIGNED for op in ("and", "or", "xor")},
    "top_k_uint64": _UNSIGNED,
    "bitwise_not_3d": "16 bits without a sign lie in 32 with one, which have other bits",
    "resize_downsample_scales_linear_align_corners": _CORNERS,
    "resize_downsample_scales_cubic_align_corners": _CORNERS,
    "spacetodepth_crd_mode_example": "the mode is newer than the internal opset",
    "identity_opt": _NOT_A_TENSOR,
    "identity_sequence": _NOT_A_TENSOR,
    "equal_string": "canonical graphs hold no strings",
    "equal_string_broadcast": "canonical graphs hold no strings",
    **{
        f"{op}_uint{bits}": _UNSIGNED
        for op in ("add", "div", "equal", "greater", "greater_equal", "less", "less_equal", "max",
                   "min", "mod", "mul", "sub")
        for bits in (16, 32, 64)
    },
    **{f"pow_types_float32_uint{bits}": _UNSIGNED for bits in (32, 64)},
}  # fmt: skip


@functools.cache
def all_cases() -> dict[str, dict[str, Any]]:
    """The standard's tests of single nodes: by op, then by name without its `test_`.

    Its modules make their cases when they are imported; those of other ops stay away.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # casts that overflow on purpose
        named = {
            found.name.replace("_", ""): found.name for found in iter_modules(standard.__path__)
        }
        for op in OPS.keys() - WITHOUT_CASES:
            module = named[MODULES.get(op, op.lower())]
            importlib.import_module(f"{standard.__name__}.{module}")
    by_op: dict[str, dict[str, Any]] = {}
    for case in standard._NodeTestCases:
        ops = [node.op_type for node in case.model.graph.node]
        if len(ops) == 1:
            by_op.setdefault(ops[0], {})[case.name.removeprefix("test_")] = case
    return by_op


def cases(op: str) -> dict[str, Any]:
    return all_cases().get(op, {})


def tensor(given: Any) -> torch.Tensor:
    """An array of a case; those of dtypes that numpy lacks come as protobuf."""
    is_proto = isinstance(given, onnx.TensorProto)
    return to_tensor(onnx.numpy_helper.to_array(given) if is_proto else np.asarray(given))


# Casts among dtypes that the graphs here never hold are of no use, nor is rounding to floats.
KNOWN = {"Cast": TORCH_DTYPES, "DequantizeLinear": HELD_DTYPES, "QuantizeLinear": HELD_DTYPES}


def is_foreign(op: str, case: Any) -> bool:
    """Whether a tensor of the case has a dtype that is not there for `op`."""
    known = KNOWN.get(op)
    values = [*case.model.graph.input, *case.model.graph.output]
    kinds = [ir.DataType(value.type.tensor_type.elem_type) for value in values]
    return known is not None and any(kind not in known for kind in kinds)


def applied(op: str) -> list[str]:
    """The cases of an op that are run."""
    return [
        label
        for label, case in cases(op).items()
        if label not in SKIPPED and not is_foreign(op, case)
    ]


def test_the_list_names_every_op_of_the_table() -> None:
    assert set(LEAST) | WITHOUT_CASES == set(OPS)


def test_what_is_skipped_exists() -> None:
    names = {label for op in OPS for label in cases(op)}
    assert set(SKIPPED) <= names


@pytest.mark.parametrize("op", sorted(LEAST))
def test_the_standard_s_cases(op: str) -> None:
    labels = applied(op)
    assert len(labels) >= LEAST[op]
    for label in labels:
        case = cases(op)[label]
        graph = case.model.graph
        module = GraphModule(Model(ir.from_proto(case.model)))
        for given, expected in case.data_sets:
            names = [value.name for value in graph.input]
            feeds = {n: tensor(a) for n, a in zip(names, given, strict=True)}
            got = module(feeds)
            for value, array in zip(graph.output, expected, strict=True):
                have = got[value.name]
                kind = HELD_DTYPES[ir.DataType(value.type.tensor_type.elem_type)]
                assert have.dtype == kind, label
                want = tensor(array)
                assert have.shape == want.shape, label
                assert torch.allclose(
                    have.double(), want.double(), rtol=case.rtol, atol=1e-6, equal_nan=True
                ), label


def test_a_form_that_no_kernel_has_is_refused() -> None:
    case = cases("LSTM")["lstm_with_peepholes"]
    with pytest.raises(UnsupportedModel, match="no LSTM with peepholes"):
        GraphModule(Model(ir.from_proto(case.model)))
