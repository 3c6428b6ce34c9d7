from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.ir.canonical import canonicalize
from edgebm.ir.model import Model

X = np.asarray([[1.0, -2.0, 3.0]], np.float32)


def model_of(text: str) -> Model:
    return Model(ir.from_proto(onnx.parser.parse_model(text)), "functions.onnx")


def run(model: Model) -> np.ndarray:  # type: ignore[type-arg]
    session = ort.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]  # type: ignore[no-any-return]


NESTED = """<ir_version: 9, opset_import: ["" : 20, "mine" : 1]>
g (float[1,3] x) => (float[1,3] y) {
  a = mine.Twice(x)
  y = mine.Leaky <slope = 0.5> (a)
}
<domain: "mine", opset_import: ["" : 20]>
Twice (v) => (w) { w = Add(v, v) }
<domain: "mine", opset_import: ["" : 20, "mine" : 1]>
Leaky <slope> (v) => (w) { t = mine.Twice(v) w = LeakyRelu <alpha : float = @slope> (t) }
"""


def test_nested_functions_and_their_attributes_are_written_out() -> None:
    canonical = canonicalize(model_of(NESTED))
    assert [node.op_type for node in canonical.nodes()] == ["Add", "Add", "LeakyRelu"]
    np.testing.assert_allclose(run(canonical), np.where(X > 0, 4 * X, 2 * X))
    assert not canonical.graph.functions


def test_a_function_of_another_opset_is_converted_first() -> None:
    text = """<ir_version: 9, opset_import: ["" : 20, "mine" : 1]>
    g (float[1,3] x) => (float[1,3] y) { y = mine.Cut(x) }
    <domain: "mine", opset_import: ["" : 10]>
    Cut (v) => (w) { w = Clip <min = -1.0, max = 2.0> (v) }
    """
    canonical = canonicalize(model_of(text))
    assert [node.op_type for node in canonical.nodes()] == ["Clip"]
    np.testing.assert_allclose(run(canonical), np.clip(X, -1, 2))


@pytest.mark.row(16)
def test_functions_that_multiply_are_counted_before_they_are_written_out() -> None:
    calls = "".join(
        f'<domain: "m", opset_import: ["" : 20, "m" : 1]>\n'
        f"F{i} (v) => (w) {{ a = m.F{i + 1}(v) w = m.F{i + 1}(a) }}\n"
        for i in range(40)
    )
    text = f"""<ir_version: 9, opset_import: ["" : 20, "m" : 1]>
    g (float[1,3] x) => (float[1,3] y) {{ y = m.F0(x) }}
    {calls}
    <domain: "m", opset_import: ["" : 20]>
    F40 (v) => (w) {{ w = Neg(v) }}
    """
    with pytest.raises(UnsupportedModel, match=f"{2**40} nodes once its functions"):
        canonicalize(model_of(text))


@pytest.mark.row(19)
def test_a_function_that_calls_itself_is_invalid() -> None:
    text = """<ir_version: 9, opset_import: ["" : 20, "m" : 1]>
    g (float[1,3] x) => (float[1,3] y) { y = m.F(x) }
    <domain: "m", opset_import: ["" : 20, "m" : 1]>
    F (v) => (w) { w = m.F(v) }
    """
    with pytest.raises(ModelError, match="function 'F' calls itself"):
        canonicalize(model_of(text))


def test_an_operator_newer_than_the_internal_opset_is_written_out() -> None:
    text = """<ir_version: 10, opset_import: ["" : 24]>
    g (float[1,3] x, float[1] unused) => (float[1,3] y) {
      a = RMSNormalization(x, w)
      y = Swish(a)
    }"""
    model = Model.parse(text, w=np.asarray([1, 2, 3], np.float32))
    canonical = canonicalize(model)
    session = ort.InferenceSession(canonical.to_bytes(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": X, "unused": X[0, :1]})[0]
    normal = X / np.sqrt((X**2).mean() + 1e-5) * np.asarray([1, 2, 3])
    np.testing.assert_allclose(found, normal / (1 + np.exp(-normal)), rtol=1e-5)
    assert [value.name for value in canonical.graph.graph.inputs] == ["x", "unused"]


def test_a_newer_operator_without_a_body_is_refused_by_name() -> None:
    text = """<ir_version: 13, opset_import: ["" : 26]>
    g (float[1,3] x) => (float[1,3] y) { [c] y = CumProd(x, axis) }"""
    model = Model.parse(text, axis=np.asarray(1))
    with pytest.raises(UnsupportedModel, match="CumProd 'c': the operator is not in opset 20"):
        canonicalize(model)
