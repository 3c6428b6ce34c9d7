from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.ir import check
from edgebm.ir.canonical import canonicalize
from edgebm.ir.check import verify
from edgebm.ir.model import Model

FACE = "(float[B,3,8] x) => (float[B,3,8] y)"


def parse(body: str, face: str = FACE, imports: str = '"" : 20', **weights: Any) -> Model:
    text = f"<ir_version: 10, opset_import: [{imports}]>\ng {face} {{\n {body}\n}}"
    return Model.parse(text, **{k: np.asarray(v) for k, v in weights.items()})


def faults(model: Model) -> list[str]:
    with pytest.raises(UnsupportedModel) as caught:
        canonicalize(model)
    assert all(fault in str(caught.value) for fault in caught.value.details["faults"])
    return list(caught.value.details["faults"])


@pytest.mark.row(19)
def test_every_unknown_operator_is_listed() -> None:
    body = "[a] b = my.Op(x)\n [c] d = other.Op(b)\n [e] y = NoSuchOp(d)"
    assert faults(parse(body, imports='"" : 20, "my" : 1, "other" : 2')) == [
        "Op 'a': custom operator of domain 'my'",
        "Op 'c': custom operator of domain 'other'",
        "NoSuchOp 'e': no such standard operator",
    ]


@pytest.mark.row(17, partly=True)
def test_loops_and_open_ifs_are_listed() -> None:
    loop = """[loop] y = Loop (n, flag, x) < body = b (int64 i, bool c, float[B,3,8] s)
        => (bool d, float[B,3,8] t) { d = Identity(c) t = Relu(s) } >"""
    assert faults(parse(loop, n=np.asarray(3), flag=np.asarray(True))) == [
        "Loop 'loop': control flow is not supported: "
        "a step of 'x' has 3 axes, not [batch, channels]"
    ]
    face = "(float[B,3,8] x, bool flag) => (float[B,3,8] y)"
    open_if = """[if] y = If (flag) <
      then_branch = t () => (float[B,3,8] a) { a = Relu(x) },
      else_branch = e () => (float[B,3,8] b) { b = Neg(x) } >"""
    assert faults(parse(open_if, face)) == [
        "If 'if': the condition of this If depends on the inputs"
    ]


def test_sequences_and_strings_are_no_tensors() -> None:
    body = "[s] q = SequenceConstruct(x, x)\n [c] y = ConcatFromSequence<axis=0>(q)"
    assert any("'q' is Sequence" in fault for fault in faults(parse(body)))
    face = "(string[2] x) => (string[2] y)"
    listed = faults(parse("y = Identity(x)", face))
    assert "input 'x' holds strings" in listed
    assert "output 'y' holds strings" in listed


def test_dtypes_the_operator_does_not_take_are_named() -> None:
    face = "(int32[B,3,8] x) => (int32[B,3,8] y)"
    (first, *_) = faults(parse("[conv] y = Selu(x)", face))
    assert first.startswith(
        "Selu 'conv': input 0 ('x') is int32, which the operator does not take"
    )


@pytest.mark.row(21)
@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.asarray([1, np.nan, np.nan], np.float32), "weight 'w' has 2 NaN of 3 values"),
        (np.asarray([1, np.inf, 0], np.float16), None),
        (np.asarray(np.nan, np.float32), "weight 'w' has 1 NaN of 1 values"),
    ],
)
def test_weights_that_are_not_numbers(array: Any, reason: str | None) -> None:
    dtype = "float16" if array.dtype == np.float16 else "float"
    face = f"({dtype}[B,3] x) => ({dtype}[B,3] y)"
    model = parse("y = Add(x, w)", face, w=array)
    if reason is None:
        canonicalize(model)
    else:
        assert faults(model) == [reason]


@pytest.mark.row(21)
def test_infinity_in_a_layer_is_a_fault_but_not_in_a_mask() -> None:
    weight = np.full((8, 8), -np.inf, np.float32)
    assert faults(parse("y = MatMul(x, w)", w=weight)) == [
        "weight 'w' has 64 infinite of 64 values"
    ]
    canonicalize(parse("y = Add(x, w)", w=weight[:3]))


def test_training_batchnorm_is_refused() -> None:
    ones = {k: np.ones(3, np.float32) for k in "sbmv"}
    body = "[bn] y, m2, v2 = BatchNormalization<training_mode=1>(x, s, b, m, v)"
    (fault,) = faults(parse(body, **ones))
    assert fault.startswith("BatchNormalization 'bn': it is in training mode")


def test_an_input_without_rank_is_refused() -> None:
    model = parse("y = Relu(x)")
    model.graph.graph.inputs[0].shape = None
    assert any("does not say how many dimensions" in fault for fault in faults(model))


@pytest.mark.row(16)
def test_a_value_of_many_gigabytes_is_refused() -> None:
    body = "e = Expand(x, s)\n y = ReduceMax<keepdims=1>(e)"
    face = "(float[1,3,8] x) => (float[a,b,c] y)"
    model = parse(body, face, s=np.asarray([2**31, 3, 8]))
    assert any("would take 192 GiB" in fault for fault in faults(model))


@pytest.mark.row(18, partly=True)
def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_NODES", 1)
    assert faults(parse("a = Relu(x)\n y = Neg(a)")) == ["2 nodes; at most 1 are handled"]


@pytest.mark.row(19)
def test_a_missing_value_and_a_ring_are_invalid() -> None:
    with pytest.raises(ModelError, match="reads 'nowhere', which no node, input or weight"):
        canonicalize(parse("y = Add(x, nowhere)"))
    with pytest.raises(ModelError, match="in a ring"):
        canonicalize(parse("a = Add(x, b)\n b = Relu(a)\n y = Neg(b)"))


def test_a_pass_that_breaks_the_form_is_found() -> None:
    model = canonicalize(parse("y = Relu(x)"))
    verify(model)
    (relu,) = model.nodes()
    relu.replace_input_with(0, ir.val("loose", dtype=ir.DataType.FLOAT, shape=[1]))
    with pytest.raises(UnsupportedModel, match="reads 'loose', which nothing provides"):
        verify(model)
