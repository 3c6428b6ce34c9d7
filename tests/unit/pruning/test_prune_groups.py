"""What stays whole and why, what is ignored, and what a group says of its places."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import random_model
from pruning_checks import described
from stateful_models import decoder_step, lstm_step
from tiny_models import cnn, recurrent, transformer

from edgebm.ir.model import Model
from edgebm.pruning.groups import find_groups


def test_places_of_a_convolution() -> None:
    (group,) = find_groups(cnn()).groups
    writes = {(place.name, place.axis) for place in group.writes}
    assert writes == {(name, 0) for name in ("w1", "b1", "g1", "b2", "m1", "v1", "w2")}
    assert {(place.name, place.axis) for place in group.reads} == {("w2", 1), ("w3", 1)}
    # Behind the activation, before the sum; and what the layers that take them in read.
    assert {(place.name, place.axis) for place in group.values} == {("r1", 1), ("r2", 1)}
    assert {(place.name, place.axis) for place in group.inputs} == {("p1", 1), ("f", 1)}
    assert group.layers == ("Conv_0", "BatchNormalization_0", "Conv_1", "Gemm_0")


def test_rows_of_recurrent_weights_are_stacked_gate_by_gate() -> None:
    gru, lstm = find_groups(recurrent()).groups
    places = {place.name: place.index for place in (*gru.writes, *lstm.writes, *lstm.reads)}
    np.testing.assert_array_equal(places["wg"][3], [3, 11, 19])
    np.testing.assert_array_equal(places["bg"][3], [3, 11, 19, 27, 35, 43])
    np.testing.assert_array_equal(places["wl"][5], [5, 13, 21, 29])
    np.testing.assert_array_equal(places["u"][5], [5, 13])  # both directions
    assert (gru.kind, lstm.kind) == ("hidden", "hidden")


def frozen(model: Model) -> dict[str, str]:
    return dict(find_groups(model).frozen)


def test_the_face_stays_whole() -> None:
    assert frozen(cnn()) == {"Gemm_0": "they are part of the model output 'logits'"}
    why = frozen(transformer())
    assert why["Gather_0"] == "at 'Add_1': they are part of the model output 'states'"
    assert set(why) == {"Gather_0", "MatMul_5", "MatMul_7"}


def test_a_state_that_is_given_stays_whole() -> None:
    found = find_groups(lstm_step())
    assert not found.groups
    why = dict(found.frozen)
    assert why["lower"] == why["upper"] == "they come with the model input 'h'"
    assert not any(group.kind == "hidden" for group in find_groups(decoder_step()).groups)


def test_a_state_that_is_an_input_is_named() -> None:
    model = random_model(
        """g (float[5,1,6] x, float[1,1,8] h) => (float[5,1,4] y) <int64[1] one = {1}> {
          [gru] s = GRU<hidden_size=8>(x, w, r, , , h)
          t = Squeeze(s, one)
          [head] y = MatMul(t, u)
        }""",
        w=(1, 24, 6), r=(1, 24, 8), u=(8, 4),
    )  # fmt: skip
    assert frozen(model)["gru"] == "they come with the model input 'h'"


NO_RULE = {
    "an op without a rule": (
        "k, i = TopK<axis=-1>(h, sixteen)\n z = Mul(k, k)",
        "at 'TopK_0': it is not known how to narrow TopK",
    ),
    "positions that are numbered": (
        "z = CumSum(h, last)",
        "at 'CumSum_0': CumSum looks along it",
    ),
    "sizes that are not known": (
        "c = Compress<axis=-1>(h, flags)\n z = Mul(h, h)",
        "at 'Compress_0': it is not known how to narrow Compress",
    ),
    "a shape that depends on numbers": (
        "p = ReduceMax<keepdims=0>(ids)\n q = Unsqueeze(p, zero)\n"
        " t = Concat<axis=0>(one, q, sixteen)\n z = Reshape(h, t)",
        "at 'Reshape_0': how large it makes them is computed",
    ),
}


@pytest.mark.parametrize("case", sorted(NO_RULE))
def test_what_has_no_rule_freezes_what_it_reads(case: str) -> None:
    steps, why = NO_RULE[case]
    model = random_model(
        f"""g (float[1,5,6] x, int64[3] ids) => (float[1,5,4] y)
          <int64[1] sixteen = {{16}}, int64 last = {{-1}}, int64[1] one = {{1}},
           int64[1] zero = {{0}}, bool[16] flags = {{1,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}> {{
          [a] h = MatMul(x, w)
          {steps}
          [head] y = MatMul(z, u)
        }}""".replace("y = MatMul(z, u)", "v = MatMul(z, u)\n y = Softplus(v)"),
        w=(6, 16),
        u=(16, 4),
    )
    found = find_groups(model)
    if case.startswith("sizes"):
        # Nobody reads what Compress makes, so it is gone and no obstacle.
        assert described(found) == ["a neurons 16"]
    else:
        assert not found.groups
        assert dict(found.frozen)["a"] == why


def test_units_that_hang_together() -> None:
    # 6 channels in 3 groups after a shuffle that 2 per group do not divide.
    model = random_model(
        """g (float[1,3,4,4] x) => (float[1,4,4,4] y)
          <int64[5] five = {1, 3, 10, 4, 4}, int64[4] four = {1, 30, 4, 4}> {
          [a] h = Conv(x, w)
          [b] i = Conv<group=3>(h, w1)
          s = Reshape(i, five)
          t = Transpose<perm=[0,2,1,3,4]>(s)
          f = Reshape(t, four)
          [c] g = Conv<group=3>(f, w2)
          [head] y = Conv(g, u)
        }""",
        w=(30, 3, 1, 1), w1=(30, 10, 1, 1), w2=(30, 10, 1, 1), u=(4, 30, 1, 1),
    )  # fmt: skip
    found = find_groups(model)
    assert described(found) == ["a channels 10", "c channels 10"]
    why = "its units hang together with those of other layers: none can go alone"
    assert dict(found.frozen)["b"] == why


def test_an_ignored_layer_keeps_its_group() -> None:
    model = cnn()
    found = find_groups(model, lambda name, op_type: name == "Conv_1")
    assert not found.groups
    assert ("Conv_0", "'Conv_1' is ignored") in found.frozen
    found = find_groups(model, lambda name, op_type: op_type == "Gemm")
    assert [group.name for group in found.groups] == ["Conv_0"]  # it only reads them
    assert ("Conv_0", "it is ignored") in find_groups(model, lambda n, t: n == "Conv_0").frozen
    assert "Gemm_0" in dict(find_groups(model, lambda n, t: True).frozen)


def test_a_model_with_nothing_to_cut() -> None:
    model = random_model("g (float[1,8] x) => (float[1,4] y) { [a] y = MatMul(x, u) }", u=(8, 4))
    found = find_groups(model)
    assert found.groups == ()
    assert dict(found.frozen) == {"a": "they are part of the model output 'y'"}
