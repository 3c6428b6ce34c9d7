from __future__ import annotations

import numpy as np
from graphs import Listed, outputs, random_model, samples

from edgebm.exec.frontier import Frontier, run_stage
from edgebm.ir.model import Model
from edgebm.ir.stages import Stage, stages
from edgebm.ir.traits import weight_index

RESIDUAL = """g (float[1,3,8,8] x) => (float[1,5] y) {
  c1 = Conv<pads=[1,1,1,1]>(x, w1)
  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2)
  r2 = Relu(c2)
  c3 = Conv<pads=[1,1,1,1]>(r2, w2)
  s = Add(c3, r1)
  r3 = Relu(s)
  p = GlobalAveragePool(r3)
  e = Exp(p)
  f = Flatten(e)
  y = Gemm<transB=1>(f, w3)
}"""
SHAPES = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (5, 4)}


def cut(model: Model) -> list[Stage]:
    return stages(model, lambda node: weight_index(node) == 1)


def ops(found: list[Stage]) -> list[str]:
    return [" ".join(node.op_type for node in stage.nodes) for stage in found]


def test_blocks_and_layers_of_a_chain_are_stages() -> None:
    found = cut(random_model(RESIDUAL, **SHAPES))
    assert ops(found) == [
        "Conv Relu", "Conv Relu Conv Add Relu GlobalAveragePool", "Exp Flatten", "Gemm",
    ]  # fmt: skip
    assert [stage.reads for stage in found] == [("x",), ("r1",), ("p",), ("f",)]
    assert [stage.writes for stage in found] == [("r1",), ("p",), ("f",), ("y",)]
    assert [len(stage.layers) for stage in found] == [1, 2, 0, 1]


def test_what_no_layer_made_does_not_count() -> None:
    model = random_model(
        """g (float[1,6,8] x, float[1,6,1] mask) => (float[1,6,8] y) {
          m = Neg(mask)
          a = MatMul(x, w1)
          b = Mul(a, m)
          c = MatMul(b, w2)
          y = Mul(c, m)
        }""",
        w1=(8, 8),
        w2=(8, 8),
    )
    found = cut(model)
    assert ops(found) == ["Neg", "MatMul Mul", "MatMul Mul"]
    assert found[2].reads == ("b", "m")


def test_a_long_stretch_without_a_single_value_is_cut_before_each_layer() -> None:
    lines = "\n".join(
        f"c{i} = Conv<pads=[1,1,1,1]>({'x' if i == 0 else f'c{i - 1}'}, w)" for i in range(10)
    )
    skips = "\n".join(f"s{i} = Add({'c9' if i == 0 else f's{i - 1}'}, c{i})" for i in range(5))
    model = random_model(
        f"g (float[1,3,8,8] x) => (float[1,3,8,8] y) {{ {lines}\n{skips}\ny = Relu(s4) }}",
        w=(3, 3, 3, 3),
    )
    found = cut(model)
    assert [len(stage.layers) for stage in found] == [1] * 10
    assert {"c0", "c1", "c2", "c3", "c4", "c8"} == set(found[9].reads)


def test_stages_one_after_the_other_compute_the_model() -> None:
    model = random_model(RESIDUAL, **SHAPES)
    given = samples(model, 3)
    plan = cut(model)
    frontier = Frontier(plan, given.feeds())
    made: list[dict[str, np.ndarray]] = []
    for stage in plan:
        made = run_stage(model, stage, frontier.exact, plain=False)
        frontier.move(made, made)
    for row, feeds in zip(made, given.feeds(), strict=True):
        np.testing.assert_allclose(row["y"], outputs(model, feeds)["y"], rtol=1e-5)
    assert frontier.exact == [{}] * 3


def test_values_are_held_as_long_as_they_are_read() -> None:
    model = random_model(
        """g (float[1,4] x) => (float[1,4] y) {
          a = MatMul(x, w)
          b = MatMul(a, w)
          y = MatMul(b, x2)
        }""",
        w=(4, 4),
        x2=(4, 4),
    )
    plan = cut(model)
    frontier = Frontier(plan, Listed([{"x": np.ones((1, 4), np.float32)}]).feeds())
    seen = []
    for stage in plan:
        made = run_stage(model, stage, frontier.exact, plain=False)
        frontier.move(made, made)
        seen.append(sorted(frontier.rounded[0]))
    assert seen == [["a"], ["b"], []]
