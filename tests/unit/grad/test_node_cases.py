"""Every op of the table against the ONNX standard's own node tests."""

from __future__ import annotations

import functools
import importlib
import warnings
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
from edgebm.grad.tensors import TORCH_DTYPES, to_tensor  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402

# How many cases of each op the table passes; the standard may add to them.
LEAST = {
    "Abs": 1, "Add": 4, "And": 8, "Cast": 7, "Clip": 11, "Concat": 12, "ConstantOfShape": 3,
    "Div": 6, "Equal": 5, "Exp": 2, "Expand": 2, "Flatten": 9, "GRU": 6, "Gather": 4,
    "Gemm": 11, "Greater": 4, "GreaterOrEqual": 4, "Identity": 1, "LSTM": 4, "Less": 4,
    "LessOrEqual": 4, "Log": 2, "LogSoftmax": 7, "MatMul": 7, "Max": 11, "Min": 11, "Mul": 5,
    "Neg": 2, "Not": 3, "Or": 8, "Pow": 8, "RNN": 6, "ReduceMax": 9, "ReduceMean": 8,
    "ReduceMin": 9, "ReduceSum": 12, "Relu": 1, "Reshape": 10, "Shape": 10, "Sigmoid": 2,
    "Slice": 8, "Softmax": 7, "Split": 13, "Sqrt": 2, "Squeeze": 2, "Sub": 5, "Tanh": 2,
    "Transpose": 7, "Unsqueeze": 7, "Where": 2,
}  # fmt: skip

# The standard's modules that are not named after their op in lower case.
MODULES = {
    "And": "and_", "GreaterOrEqual": "greater_or_equal", "LessOrEqual": "less_or_equal",
    "Not": "not_", "Or": "or_",
}  # fmt: skip

_UNSIGNED = "torch has no arithmetic on unsigned integers of more than 8 bits"
_NOTHING = "torch refuses the extreme of no elements"
_NOT_A_TENSOR = "the value is a sequence or an optional, which canonical graphs do not hold"
# Cases of the standard that are not run, each with the reason.
SKIPPED = {
    "lstm_with_peepholes": "refused: torch's kernel has no peepholes",
    "reduce_max_empty_set": _NOTHING,
    "reduce_max_empty_set_bool": _NOTHING,
    "reduce_min_empty_set": _NOTHING,
    "identity_opt": _NOT_A_TENSOR,
    "identity_sequence": _NOT_A_TENSOR,
    "equal_string": "canonical graphs hold no strings",
    "equal_string_broadcast": "canonical graphs hold no strings",
    **{
        f"{op}_uint{bits}": _UNSIGNED
        for op in ("add", "div", "equal", "greater", "greater_equal", "less", "less_equal", "max",
                   "min", "mul", "sub")
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
        for op in OPS:
            importlib.import_module(f"{standard.__name__}.{MODULES.get(op, op.lower())}")
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


def is_foreign(case: Any) -> bool:
    """Whether a tensor of the case has a dtype that the graphs here never hold."""
    values = [*case.model.graph.input, *case.model.graph.output]
    kinds = [ir.DataType(value.type.tensor_type.elem_type) for value in values]
    return any(kind not in TORCH_DTYPES for kind in kinds)


def applied(op: str) -> list[str]:
    """The cases of an op that are run. Casts among 2, 4 and 8 bit floats are of no use here."""
    return [
        label
        for label, case in cases(op).items()
        if label not in SKIPPED and not (op == "Cast" and is_foreign(case))
    ]


def test_the_list_names_every_op_of_the_table() -> None:
    assert set(LEAST) == set(OPS)


def test_what_is_skipped_exists() -> None:
    names = {label for op in OPS for label in cases(op)}
    assert set(SKIPPED) <= names


@pytest.mark.parametrize("op", sorted(OPS))
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
                kind = TORCH_DTYPES[ir.DataType(value.type.tensor_type.elem_type)]
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
