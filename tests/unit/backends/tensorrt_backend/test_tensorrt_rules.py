"""Every rule: the table, a graph that breaks it and one that keeps it, and its versions."""

from __future__ import annotations

import lint_graphs
import pytest
from lint_graphs import CASES, attention, conv, graph, plain, product, residual

from edgebm.backends.tensorrt.lint import CHECKS, counts, lint
from edgebm.backends.tensorrt.operators import newest_opset
from edgebm.backends.tensorrt.rule import SOURCES, Rule
from edgebm.backends.tensorrt.rules import RULES
from edgebm.backends.tensorrt.versions import KNOWN, NEWEST, OLDEST, Version, parse_version
from edgebm.errors import ModelError, UsageError
from edgebm.ir.model import Model

CODES = [f"E{n:02}" for n in range(1, 19) if n != 11] + [f"W{n:02}" for n in range(1, 16)]


def found(model: Model, version: Version = OLDEST) -> dict[str, list[tuple[str, str]]]:
    """By rule: the nodes and the sentences."""
    by_rule: dict[str, list[tuple[str, str]]] = {}
    for each in lint(model, version):
        by_rule.setdefault(each.rule.code, []).append((each.node, each.text))
    return by_rule


def test_each_code_is_in_the_table_once_with_its_check() -> None:
    assert list(RULES) == CODES
    assert sorted(CHECKS) == sorted(RULES)
    for rule in RULES.values():
        assert rule.what.endswith(".")
        assert rule.do.endswith(".")
        assert set(rule.source.split()) <= set(SOURCES)
        assert rule.source


@pytest.mark.parametrize("code", CASES)
def test_a_graph_that_breaks_a_rule_and_one_that_keeps_it(code: str) -> None:
    broken, kept = CASES[code]
    assert found(graph(broken)).get(code)
    assert code not in found(graph(kept))


def test_every_rule_has_its_two_graphs() -> None:
    assert set(CASES) == set(RULES) - {"E10"}  # of which the opset is all


def test_a_good_graph_has_no_finding_for_any_version() -> None:
    for version in KNOWN:
        assert found(graph(conv()), version) == {}
        assert found(graph(product()), version) == {}


@pytest.mark.parametrize("code", CASES)
def test_what_the_oldest_version_takes_all_do(code: str) -> None:
    model = graph(CASES[code][0])
    strict = {(f.rule.code, f.node) for f in lint(model, OLDEST)}
    for version in KNOWN:
        assert {(f.rule.code, f.node) for f in lint(model, version)} <= strict


@pytest.mark.parametrize(
    ("version", "opset"),
    [
        ((10, 3), 20),
        ((10, 5), 20),
        ((10, 6), 22),
        ((10, 11), 23),
        ((10, 14), 23),
        ((10, 15), 24),
        ((11, 0), 25),
    ],
)
def test_the_opset_that_a_version_reads(version: Version, opset: int) -> None:
    text = plain("float[4] x", "float[4] y", "y = Relu(x)")
    assert newest_opset(version) == opset
    assert found(graph(text, opset=opset), version) == {}
    too_new = found(graph(text, opset=opset + 1), version)["E10"]
    assert too_new[0][0] == ""
    assert f"opset {opset + 1}" in too_new[0][1]
    assert "E10" in found(graph(text, opset=8), version)


def test_rules_that_end_with_a_version() -> None:
    no_kernel = graph(conv(layer="y = Conv<pads=[1,1,1,1]>(d, v)"))
    assert "E12" in found(no_kernel, (10, 3))
    assert "E12" not in found(no_kernel, (10, 4))
    mixed = graph(CASES["E13"][0])
    assert "E13" in found(mixed, (11, 0))
    assert "E13" not in found(mixed, (11, 1))
    norm = graph(
        plain("float16[1,16,8,8] x", "float16[1,16,8,8] y",
              "y = BatchNormalization(x, one, b, b, one)")
    )  # fmt: skip
    assert "E14" in found(norm, (10, 6))
    assert "E14" not in found(norm, (10, 7))
    rule = Rule("E99", "What.", "Do.", "P", since=(10, 5), until=(10, 7))
    applies = [rule.applies(version) for version in ((10, 4), (10, 5), (10, 6), (10, 7))]
    assert applies == [False, True, True, False]
    assert rule.versions == "10.5 to before 10.7"
    assert RULES["E01"].versions == "10.3 and later"


@pytest.mark.parametrize("text", ["10.3", "10.3.0", "10.3.0.26", " 10.3"])
def test_patch_and_build_numbers_decide_nothing(text: str) -> None:
    assert parse_version(text) == (10, 3)


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("8.6", "JetPack 6.1", "ONNX Runtime"),
        ("8", "JetPack 6.1", "ONNX Runtime"),
        ("8.5.2.2", "8.x", "ONNX Runtime"),
        ("10.2", "older than 10.3", "11.4"),
        ("10.17", "not among the releases", "10.16"),
        ("12.0", "newer than 11.4", "10.3"),
        ("10", "no version", "10.3"),
        ("latest", "no version", "10.3"),
        ("", "no version", "10.3"),
        ("10.3.0.26.1", "no version", "10.3"),
    ],
)
def test_versions_that_are_refused(text: str, words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        parse_version(text)
    assert hint in raised.value.hint
    assert KNOWN[-1] == NEWEST


def test_a_pair_is_named_once_and_a_lone_dequantizer_too() -> None:
    assert found(graph(conv(pair="s, z3")))["E01"] == [("q", "its zero point is 3")]
    assert [n for n, _ in found(graph(conv(pair="s, u")))["E02"]] == ["q"]
    missing = conv(pair="s")
    assert "no zero point" in found(graph(missing))["E02"][0][1]
    weight = found(graph(conv(weight="v = DequantizeLinear(w, bad, z)")))["E04"]
    assert weight == [("v", "1 of its 1 scales are not finite and above 0")]


def test_computed_scales_and_zero_points() -> None:
    computed = conv(before="n = ReduceMax<keepdims=0>(x)", pair="n, z")
    assert found(graph(computed))["E04"] == [("q", "its scale is computed by ReduceMax")]
    given = plain("float[4] x, int8 zero", "float[4] y",
                  "q = QuantizeLinear(x, s, zero)\n y = DequantizeLinear(q, s, zero)")  # fmt: skip
    assert found(graph(given))["E01"] == [("q", "its zero point is computed")]
    lifted = conv(before="n = Constant<value_float=0.5>()", pair="n, z")
    assert found(graph(lifted)) == {}


def test_scales_that_do_not_fit_a_weight() -> None:
    few = found(graph(conv(weight="v = DequantizeLinear<axis=0>(w, ws8, wz8)")))
    assert few["E06"] == [("v", "it has 8 scales, and axis 0 has 16 channels")]
    axis = found(graph(product(weight="v = DequantizeLinear<axis=0>(m, ws, wz)")))
    assert axis["E06"] == [("c", "its weight has scales along axis 0, not 1")]
    outside = found(graph(product(weight="v = DequantizeLinear<axis=5>(m, ws, wz)")))
    assert ("v", "its scales lie along axis 5 of 2") in outside["E06"]
    blocks = product(weight="v = DequantizeLinear<axis=0, block_size=8>(m, checks)")
    assert found(graph(blocks))["E07"] == [("v", "its blocks run along 2 axes")]
    wrong = product(weight="v = DequantizeLinear<axis=0, block_size=8>(odd, checks)")
    assert "do not divide a tensor 16x15" in found(graph(wrong))["E07"][0][1]


def test_int4_is_for_weights_in_blocks() -> None:
    whole = product(weight="v = DequantizeLinear(even, s)")
    assert "not blocks along one axis" in found(graph(whole))["E16"][0][1]
    # Weights alone are quantized: with int4 that is how it is meant.
    weight = "v = DequantizeLinear<axis=0, block_size=8>(even, blocks)"
    assert "W01" not in found(graph(product(weight=weight, layer="y = MatMul(x, v)")))
    assert found(graph(product(read="x").replace("s, z", "s, nibble")))["E16"] == [
        ("q", "an activation is int4")
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[n] y = QLinearMatMul(x, s, u, x, s, u, s, u)", "QLinearMatMul is not imported"),
        ("[n] y, a, o = DynamicQuantizeLinear(x)", "DynamicQuantizeLinear is not imported"),
        ("[n] y = com.microsoft.Attention(x)", "com.microsoft needs a plugin"),
    ],
)
def test_operators_that_are_not_imported(body: str, words: str) -> None:
    ((node, text),) = found(graph(plain("uint8[4,4] x", "uint8[4,4] y", body)))["E09"]
    assert node == "n"
    assert words in text


@pytest.mark.parametrize(
    ("x", "y", "body", "words"),
    [
        ("float[5,1,4] x", "float[5,1,1,4] y",
         "y = LSTM<hidden_size=4, layout=1>(x, cells, cells)", "layout is 1"),
        ("double[5,1,4] x", "double[5,1,1,4] y", "y = RNN<hidden_size=4>(x, cells, cells)",
         "computes in double"),
        ("float[5,1,4] x", "float[5,2,1,4] y",
         'y = RNN<hidden_size=4, direction="bidirectional", activations=["Tanh","Relu"]>'
         "(x, cells2, cells2)", "other activations: Tanh, Relu"),
        (lint_graphs.IMAGE, "float[1,16,16,16] y",
         'y = Resize<mode="cubic", antialias=1>(x, , twice)', "antialias"),
        (lint_graphs.IMAGE, "float[1,16,4,4] y",
         "y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", "indices"),
        (lint_graphs.IMAGE, "float[1,16,6,6] y",
         "y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x)", "dilated"),
        ("float[5000] x", "float[4000] y", "y, i = TopK(x, k4000)", "K is 4000"),
        (lint_graphs.IMAGE, "float[1,16,6,6] y",
         "y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x)", "dilated"),
        (lint_graphs.IMAGE, "float[1,16,16,16] y",
         'y = Resize<mode="linear", keep_aspect_ratio_policy="not_larger">(x, , twice)',
         "policy is not_larger"),
        ("float[2,16] x, int64[1] a", "float[N] y", "y = ReduceSum(x, a)", "axes are computed"),
        ("float[2,16] x, int64 a", "float[2,16] y", "y = CumSum(x, a)", "axes are computed"),
        ("float[2,16] x", "float[2,1] y", "h, mean, y = LayerNormalization(x, one)",
         "mean or deviation"),
    ],
)  # fmt: skip
def test_forms_of_operators(x: str, y: str, body: str, words: str) -> None:
    sentences = [text for _, text in found(graph(plain(x, y, f"[n] {body}")))["E15"]]
    assert any(words in text for text in sentences)


def test_forms_that_are_taken() -> None:
    bodies = [
        ("float[5000] x", "float[5] y", "y, i = TopK(x, k5)"),
        ("float[2,16] x", "float[2,1] y", "y = ReduceSum(x, along)"),
        ("float[2,16] x", "float[2,16] y", "y = LayerNormalization(x, one)"),
        (lint_graphs.IMAGE, "float[1,16,16,16] y", 'y = Resize<mode="linear">(x, , twice)'),
        (lint_graphs.IMAGE, "float[1,16,4,4] y",
         "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)"),
        ("float[5,1,4] x", "float[5,2,1,4] y",
         'y = RNN<hidden_size=4, direction="bidirectional", activations=["Relu","Relu"]>'
         "(x, cells2, cells2)"),
    ]  # fmt: skip
    for body in bodies:
        assert found(graph(plain(*body))) == {}


LOOP = """g (float[1] x, int64 trips) => (float[N] y) <bool go = {1}> {
  [n] y = Loop(trips, go, x) <body = step (int64 i, bool c, float[1] s0) => (bool c1, SHAPE s1) {
    c1 = Identity(c)
    s1 = BODY
  }>
}"""


def test_what_a_loop_carries_keeps_its_shape() -> None:
    grows = LOOP.replace("SHAPE", "float[2]").replace("BODY", "Concat<axis=0>(s0, s0)")
    assert found(graph(grows))["E15"] == [("n", "'s1', which it carries, goes from [1] to [2]")]
    stays = LOOP.replace("SHAPE", "float[1]").replace("BODY", "Relu(s0)")
    assert found(graph(stays)) == {}
    inside = LOOP.replace("SHAPE", "float[1]").replace("BODY", "Det(s0)")
    assert found(graph(inside))["E09"] == [("s1", "Det is not imported")]


def test_one_floating_type_from_q_to_behind_dq() -> None:
    apart = conv().replace("d = DequantizeLinear(q, s, z)", "d = DequantizeLinear(q, s16, z)")
    sentences = [text for _, text in found(graph(apart))["E13"]]
    assert "its scale is float16, that of its Q float" in sentences
    assert "it reads float and float16" in sentences
    newer = conv(weight="v = DequantizeLinear<axis=0, output_dtype=10>(w, ws, wz)")
    outputs = found(graph(newer, opset=23), (11, 4))["E13"]
    assert ("v", "its scale is float and its output float16") in outputs


def test_a_half_gemm_has_matrices() -> None:
    body = "[n] y = Gemm<beta=0.5>(x, mh, half)"
    stack = plain("float16[1,4,16] x", "float16[4,16] y", body)
    sentences = [text for _, text in found(graph(stack))["E14"]]
    assert any("beta is 0.5" in text for text in sentences)
    assert "'x' has 3 axes" in sentences
    single = plain("float[4,16] x", "float[4,16] y", "[n] y = Gemm<alpha=2.0>(x, mf, b)")
    assert found(graph(single)) == {}


def test_a_bias_behind_a_product_is_part_of_it() -> None:
    cut = "q2 = QuantizeLinear(h, s, z)\n d2 = DequantizeLinear(q2, s, z)\n"
    broken = product(layer="h = MatMul(d, v)", behind=cut + "y = Add(d2, b)")
    assert found(graph(broken))["W02"] == [("c", "Q/DQ stands between it and its Add")]
    kept = product(layer="h = MatMul(d, v)", behind="a = Add(b, h)\n y = Relu(a)")
    assert found(graph(kept)) == {}


def test_layer_norm_may_be_quantized_behind_a_convolution() -> None:
    cut = "q2 = QuantizeLinear(h, s, z)\n d2 = DequantizeLinear(q2, s, z)\n"
    norm = "n = Transpose<perm=[0,2,3,1]>(d2)\n [n] y = LayerNormalization(n, one)"
    layer = "h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)"
    behind_conv = conv(y="float[1,8,8,16] y", layer=layer, behind=cut + norm)
    direct = conv(layer=layer, behind=cut + "[n] y = LayerNormalization<axis=1>(d2, wide)")
    assert "W04" not in found(graph(direct.replace("wide", "one")))
    assert "W04" not in found(graph(behind_conv))  # a Transpose in between, as in ConvNeXt
    # A class token and positions in between, as in a ViT.
    flat = "f = Reshape(h, flat)\n k = Concat<axis=1>(tokens, f)\n p = Add(k, one)\n"
    pair = "q2 = QuantizeLinear(p, s, z)\n d2 = DequantizeLinear(q2, s, z)\n"
    token = "tokens = Constant<value = float[1,1,16] {" + ", ".join("0" * 16) + "}>()\n"
    vision = token + flat + pair + "[n] y = LayerNormalization(d2, one)"
    assert "W04" not in found(graph(conv(y="float[1,65,16] y", layer=layer, behind=vision)))
    # What else is joined to it computes in float, and gains nothing.
    other = vision.replace(token, "").replace("tokens", "o")
    two = conv(x="float[1,16,8,8] x, float[1,1,16] o", y="float[1,65,16] y", layer=layer,
               behind=other)  # fmt: skip
    assert "W04" in found(graph(two))
    assert "W04" in found(graph(two.replace("Concat<axis=1>(o, f)", "Concat<axis=1>(o, o)")))


def test_a_copy_between_two_pairs() -> None:
    copy = "q2 = QuantizeLinear(n, s, z)\n d2 = DequantizeLinear(q2, s, z)\n y = MatMul(d2, v)"
    broken = product(layer="n = Reshape(d, flat)", behind=copy)
    assert found(graph(broken))["W04"] == [
        ("c", "it only moves values, and has Q/DQ on both sides")
    ]
    assert found(graph(product(layer="n = Reshape(d, flat)", behind="y = MatMul(n, v)"))) == {}


def test_both_inputs_of_a_sum_are_convolutions() -> None:
    shortcut = residual("g2", "k").replace(
        "hq = Q", "[short] k = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)\n hq = Q"
    )
    # The longer way is the branch, on whichever side it stands.
    assert found(graph(shortcut))["W05"] == [("add", "the skip 'k' is not quantized")]
    turned = shortcut.replace("Add(g2, k)", "Add(k, g2)")
    assert found(graph(turned))["W05"] == [("add", "the skip 'k' is not quantized")]
    quantized = turned.replace(
        "[add]", "kq = QuantizeLinear(k, s, z)\n kd = DequantizeLinear(kq, s, z)\n [add]"
    ).replace("Add(k, g2)", "Add(kd, g2)")
    assert "W05" not in found(graph(quantized))


def test_both_faults_of_a_residual_sum() -> None:
    sentences = [text for _, text in found(graph(residual("gd", "x")))["W05"]]
    assert sentences == [
        "the branch 'g2' is quantized before the sum",
        "the skip 'x' is not quantized",
    ]


def test_weights_of_minus_128() -> None:
    low = found(graph(conv(weight="v = DequantizeLinear<axis=0>(low, ws, wz)")))
    assert low == {"W06": [("c", "2304 of its 2304 weights are -128")]}


def test_convolutions_that_stay_float() -> None:
    grouped = conv(
        weight="v = DequantizeLinear<axis=0>(tt, ws, wz)",
        y="float[1,16,16,16] y",
        layer="y = ConvTranspose<kernel_shape=[2,2], strides=[2,2], group=2>(d, v)",
    )
    assert found(graph(grouped))["W07"] == [("c", "it is transposed, with 2 groups")]
    computed = conv(
        x="float[1,16,8,8] x, float[16,16,3,3] f",
        weight="wq = QuantizeLinear(f, s, z)\n v = DequantizeLinear(wq, s, z)",
    )
    assert found(graph(computed))["W07"] == [("c", "its weight is computed")]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [("float[1,1,16] x", "float[1,1,16] y", "1 row"), ("float[N,16] x", "float[N,16] y", "")],
)
def test_rows_of_a_product(x: str, y: str, words: str) -> None:
    sentences = found(graph(product(x=x, y=y))).get("W08", [])
    assert [text for _, text in sentences] == ([f"it has {words}"] if words else [])


@pytest.mark.parametrize(
    "mask", ["f = Mul(a, s)", "f = Div(a, s)", "by = Mul(s, a)\n f = Add(bias, by)"]
)
def test_a_factor_behind_the_first_product_of_an_attention(mask: str) -> None:
    between = "a factor stands between the products of its attention 'soft'"
    broken = found(graph(attention(mask=mask, between="f")))["W13"]
    assert broken == [("qk", between), ("pv", between)]
    computed = mask.replace("s)", "a)").replace("(s", "(a")
    assert "outside" in found(graph(attention(mask=computed, between="f")))["W13"][0][1]


def test_attentions() -> None:
    add = "f = Add(a, bias)"
    assert "W13" not in found(graph(attention(mask="")))
    long = found(graph(attention(mask=add, between="f", length=600)))["W13"]
    assert [node for node, _ in long] == ["qk", "pv"]
    assert "600 steps" in long[0][1]
    cut = (
        "aq = QuantizeLinear(a, t, z)\n ad = DequantizeLinear(aq, t, z)\n [mask] f = Add(ad, bias)"
    )
    masked = found(graph(attention(mask=cut, between="f")))["W13"]
    assert masked == [("mask", "the mask of the attention 'soft' is quantized")]
    alone = plain("float[1,32,16] x", "float[1,32,32] y",
                  "q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n"
                  "e = Transpose<perm=[0,2,1]>(d)\n [n] y = MatMul(d, e)")  # fmt: skip
    assert "outside of an attention" in found(graph(alone))["W13"][0][1]


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        ("[n] y = MaxPool<kernel_shape=[1,1]>(d2)", ""),
        ("o = Sin(x)\n [n] y = Add(d2, o)", "'d2' is quantized, its other term is not"),
        ("o = Sigmoid(d2)\n [n] y = Add(d2, d)", "its terms are quantized, and its output is not"),
        ("[n] y = Resize(h, , twice)", "it reads a quantized convolution in float"),
    ],
)
def test_both_sides(behind: str, words: str) -> None:
    cut = "r = Sin(h)\n q2 = QuantizeLinear(r, s, z)\n d2 = DequantizeLinear(q2, s, z)\n"
    size = "float[1,16,16,16] y" if "Resize" in behind else "float[1,16,8,8] y"
    layer = "h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)"
    sentences = found(graph(conv(y=size, layer=layer, behind=cut + behind)))["W14"]
    assert [text for _, text in sentences] == [
        words or "its input is quantized, and no layer beside it is"
    ]


@pytest.mark.parametrize(("width", "narrow"), [(8, True), (16, False)])
def test_heads_in_fp8(width: int, narrow: bool) -> None:
    text = attention(mask="").replace("32,16]", f"32,{width}]").replace("(x, s, z)", "(x, s, z8)")
    sentences = found(graph(text.replace("(q, s, z)", "(q, s, z8)"))).get("W13", [])
    assert sentences == ([("qk", "its heads are 8 wide, in FP8")] if narrow else [])


def test_pairs_of_another_domain_are_read_as_such() -> None:
    text = conv(pair="s, z16").replace("= Quant", "= com.microsoft.Quant", 1)
    by_rule = found(graph(text.replace("d = Dequant", "d = com.microsoft.Dequant")))
    assert [node for node, _ in by_rule["E09"]] == ["q", "d"]
    assert by_rule["E02"] == [("q", "its integers are uint16")]
    assert "W01" not in by_rule


def test_functions_and_branches_are_looked_into() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    g (float[2,2] x, bool c) => (float[2,2] y) {
      a = local.inner(x)
      y = If(c) <
        then_branch = yes () => (float[2,2] p) { p = Unique(a) },
        else_branch = no () => (float[2,2] o) { o = Relu(a) }
      >
    }
    <domain: "local", opset_import: ["" : 20]>
    inner (i) => (o) { o = Det(i) }"""
    sentences = [sentence for _, sentence in found(Model.parse(text))["E09"]]
    assert sentences == ["Det is not imported", "Unique is not imported"]


def test_a_graph_that_is_no_onnx_is_refused() -> None:
    with pytest.raises(ModelError, match="is not valid ONNX"):
        lint(graph(plain("float[4] x", "float[4] y", "y = Loop(x, x)")), OLDEST)


def test_an_activation_behind_a_residual_sum_is_fused() -> None:
    sums = "[add] e = Add(g2, d)\n y = Relu(e)"
    relu = residual("g2", "d").replace("[add] y = Add(g2, d)", sums)
    assert "Relu" in relu
    assert found(graph(relu)) == {}
    alone = relu.replace("Add(g2, d)", "Add(g2, g2)")
    assert "Add 'add', Relu 'y'" in found(graph(alone))["W15"][0][1]


def test_the_model_is_left_as_it_is() -> None:
    model = graph(CASES["W15"][0])
    before = model.to_bytes()
    assert counts(lint(model, OLDEST)) == (0, 1)
    assert model.to_bytes() == before


def test_what_stands_between_casts_is_in_f32_on_purpose() -> None:
    layer = "h = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(d, v)"
    lone = conv(layer=layer, behind="y = Sin(h)")
    assert "W15" in found(graph(lone))
    island = "c = Cast<to=10>(h)\n f = Cast<to=1>(c)\n o = Sin(f)\n y = Cos(o)"
    assert "W15" not in found(graph(conv(layer=layer, behind=island)))


def test_a_moved_constant_on_its_way_to_dq_is_no_finding() -> None:
    moved = "o = Transpose<perm=[1,0]>(m)\n v = DequantizeLinear<axis=1>(o, ws, wz)"
    assert "E17" not in found(graph(product(weight=moved)))
