"""Which blocks are found, and what a graph computes without them."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, random_model, samples

from edgebm.errors import ModelError
from edgebm.ir.check import verify
from edgebm.ir.edit import add_const, add_node, const, name
from edgebm.ir.model import Model
from edgebm.ir.shapes import infer_shapes
from edgebm.pruning.blocks import Block, find_blocks
from edgebm.pruning.drop import drop
from edgebm.pruning.output_error import OutputError


def cnn() -> Model:
    """Three blocks; the second one has a shortcut with a convolution."""
    return random_model(
        """g (float[n,3,8,8] x) => (float[n,5] y) {
          [stem] s = Conv<pads=[1,1,1,1]>(x, w0)
          r0 = Relu(s)
          [a1] a = Conv<pads=[1,1,1,1]>(r0, w1, b1)
          n1 = BatchNormalization(a, g1, b2, m1, v1)
          ra = Relu(n1)
          [a2] b = Conv<pads=[1,1,1,1]>(ra, w2)
          [first] t1 = Add(b, r0)
          r1 = Relu(t1)
          [c1] c = Conv<pads=[1,1,1,1], strides=[2,2]>(r1, w3)
          rc = Relu(c)
          [c2] d = Conv<pads=[1,1,1,1]>(rc, w4)
          [short] e = Conv<strides=[2,2]>(r1, w5)
          [second] t2 = Add(d, e)
          r2 = Relu(t2)
          [f1] f = Conv<pads=[1,1,1,1]>(r2, w6)
          [third] t3 = Add(r2, f)
          r3 = Relu(t3)
          p = GlobalAveragePool(r3)
          q = Flatten(p)
          [head] y = Gemm<transB=1>(q, w7)
        }""",
        w0=(4, 3, 3, 3), w1=(4, 4, 3, 3), b1=(4,), w2=(4, 4, 3, 3), w3=(6, 4, 3, 3),
        g1=(4,), b2=(4,), m1=(4,), v1=(4,),
        w4=(6, 6, 3, 3), w5=(6, 4, 1, 1), w6=(6, 6, 3, 3), w7=(5, 6),
    )  # fmt: skip


def transformer(*, post_norm: bool) -> Model:
    """Two layers of one head; the values of each have its number."""
    text, shapes = "x0 = MatMul(x, we)\n", {"we": (6, 8)}
    for k in (1, 2):
        read = f"x{k - 1}" if post_norm else f"na{k}"
        text += "" if post_norm else f"na{k} = LayerNormalization(x{k - 1}, ga{k}, ba{k})\n"
        text += f"""q{k} = MatMul({read}, wq{k})
          k{k} = MatMul({read}, wk{k})
          t{k} = Transpose<perm=[0,2,1]>(k{k})
          s{k} = MatMul(q{k}, t{k})
          p{k} = Softmax(s{k})
          u{k} = MatMul(p{k}, {read})
          [out{k}] o{k} = MatMul(u{k}, wo{k})
          [attend{k}] h{k} = Add(x{k - 1}, o{k})\n"""
        middle = f"h{k}"
        if post_norm:
            text += f"[norma{k}] z{k} = LayerNormalization(h{k}, ga{k}, ba{k})\n"
            middle = f"z{k}"
        else:
            text += f"nm{k} = LayerNormalization(h{k}, gm{k}, bm{k})\n"
        text += f"""[up{k}] i{k} = MatMul({middle if post_norm else f"nm{k}"}, wi{k})
          e{k} = Gelu(i{k})
          [down{k}] d{k} = MatMul(e{k}, wd{k})\n"""
        if post_norm:
            text += f"""[feed{k}] l{k} = Add(d{k}, {middle})
              [normm{k}] x{k} = LayerNormalization(l{k}, gm{k}, bm{k})\n"""
        else:
            text += f"[feed{k}] x{k} = Add(d{k}, {middle})\n"
        shapes |= {f"w{c}{k}": (8, 8) for c in "qko"} | {f"wi{k}": (8, 16), f"wd{k}": (16, 8)}
        shapes |= {f"{c}{k}": (8,) for c in ("ga", "ba", "gm", "bm")}
    text += "y = MatMul(x2, wy)\n"
    return random_model(
        f"g (float[n,t,6] x) => (float[n,t,3] y) {{ {text} }}", **shapes, wy=(8, 3)
    )


def recurrent() -> Model:
    """Three layers; the first one changes the width."""
    return random_model(
        """g (float[5,n,4] x) => (float[5,n,6] y) <int64[1] one = {1}> {
          [l1] a = LSTM<hidden_size=6>(x, w1, r1)
          sa = Squeeze(a, one)
          [l2] b = LSTM<hidden_size=6>(sa, w2, r2)
          sb = Squeeze(b, one)
          [l3] c = GRU<hidden_size=6>(sb, w3, r3)
          [last] y = Squeeze(c, one)
        }""",
        w1=(1, 24, 4), r1=(1, 24, 6), w2=(1, 24, 6), r2=(1, 24, 6), w3=(1, 18, 6), r3=(1, 18, 6),
    )  # fmt: skip


def zeroed(model: Model, *branches: str) -> Model:
    """The model with zeros in place of these values."""
    for label in branches:
        value = next(v for node in model.nodes() for v in node.outputs if v.name == label)
        for use in list(value.uses()):
            zero = add_const(model.graph.graph, f"{label}.zero", np.float32(0))
            nothing = add_node(use.node, "Mul", [value, zero], label=f"{label}.nothing")
            use.node.replace_input_with(use.idx, nothing)
    infer_shapes(model)
    return model


def same(a: Model, b: Model) -> None:
    verify(a)
    for feeds in samples(b, 2, seed=5).feeds():
        want, got = outputs(b, feeds), outputs(a, feeds)
        for label in want:
            np.testing.assert_allclose(got[label], want[label], rtol=1e-5, atol=1e-6)


def block(model: Model, name: str, start: str) -> Block:
    return next(b for b in find_blocks(model) if (b.name, b.start) == (name, start))


def names(model: Model) -> set[str]:
    return {node.name or "" for node in model.nodes()}


def test_blocks_of_a_cnn() -> None:
    found = {(b.name, b.start): set(b.nodes) for b in find_blocks(cnn())}
    assert found.keys() == {
        ("first", "r0"), ("second", "d"), ("second", "e"), ("third", "r2")
    }  # fmt: skip
    assert {"a1", "a2", "first"} < found["first", "r0"]
    assert found["second", "d"] == {"short", "second"}
    assert not {"stem", "short"} & found["second", "e"]


@pytest.mark.parametrize(
    ("start", "name", "branch"),
    [("r0", "first", "b"), ("e", "second", "d"), ("d", "second", "e"), ("r2", "third", "f")],
)
def test_a_dropped_branch_is_one_of_zeros(start: str, name: str, branch: str) -> None:
    model = cnn()
    gone = block(model, name, start)
    small = drop(model.clone(), [gone])
    same(small, zeroed(model.clone(), branch))
    assert not names(small) & set(gone.nodes)
    assert small.param_count() < model.param_count()


def test_all_blocks_go_together() -> None:
    model = cnn()
    gone = [block(model, *each) for each in (("third", "r2"), ("first", "r0"), ("second", "e"))]
    small = drop(model.clone(), gone)
    same(small, zeroed(model.clone(), "b", "d", "f"))
    # A Relu behind a Relu does nothing.
    assert [node.op_type for node in small.nodes()].count("Relu") == 2
    assert {"stem", "short", "head"} < names(small)


def test_of_two_branches_one_stays() -> None:
    model = cnn()
    both = [block(model, "second", "d"), block(model, "second", "e")]
    same(drop(model.clone(), both), drop(model.clone(), both[:1]))


def test_names_go_on_to_what_stands_in() -> None:
    model = cnn()
    small = drop(model.clone(), [block(model, "third", "r2")])
    made = {v.name: node for node in small.nodes() for v in node.outputs}
    assert made["r3"].op_type == "Relu"
    assert made["t2"] is made["r3"].inputs[0].producer()
    assert [name(v) for v in small.graph.graph.outputs] == ["y"]


@pytest.mark.parametrize("post_norm", [False, True])
def test_half_layers_of_transformers(post_norm: bool) -> None:
    model = transformer(post_norm=post_norm)
    start = {"attend2": "x1", "feed2": "z2" if post_norm else "h2"}
    for label, branch in (("attend2", "o2"), ("feed2", "d2")):
        gone = block(model, label, start[label])
        same(drop(model.clone(), [gone]), zeroed(model.clone(), branch))
    both = [block(model, label, start[label]) for label in start]
    same(drop(model.clone(), both[::-1]), zeroed(model.clone(), "o2", "d2"))


def test_a_whole_layer_is_attention_and_what_follows() -> None:
    model = transformer(post_norm=False)
    layer = block(model, "feed2", "x1")
    halves = [block(model, "attend2", "x1"), block(model, "feed2", "h2")]
    assert set(layer.nodes) == set(halves[0].nodes) | set(halves[1].nodes)
    same(drop(model.clone(), [layer]), drop(model.clone(), halves))
    same(drop(model.clone(), [halves[0], layer]), drop(model.clone(), halves))
    same(drop(model.clone(), [layer, halves[1]]), drop(model.clone(), [layer]))


def test_norms_behind_sums_stay_or_go() -> None:
    model = transformer(post_norm=True)
    stays, goes, before = (
        drop(model.clone(), [block(model, label, start)])
        for label, start in (("feed2", "z2"), ("normm2", "z2"), ("feed2", "h2"))
    )
    assert {"norma2", "normm2"} < names(stays)
    assert "norma2" in names(goes)
    assert "normm2" not in names(goes)
    assert "norma2" not in names(before)
    assert "normm2" in names(before)
    # Without the norm in front, the last one reads the sum behind attention.
    last = next(node for node in before.nodes() if node.name == "normm2")
    assert last.inputs[0].producer().name == "attend2"
    with pytest.raises(ModelError, match="'feed2' cannot go: what stays of it is gone already"):
        drop(model.clone(), [block(model, "norma2", "x1"), block(model, "feed2", "h2")])
    for small in (stays, goes, before):
        verify(small)
        assert not {"up2", "down2", "feed2"} & names(small)


def test_layers_without_a_norm_of_their_own() -> None:
    model = transformer(post_norm=True)
    small = drop(model.clone(), [block(model, "normm2", "x1"), block(model, "normm1", "x0")])
    assert [node.op_type for node in small.nodes()] == ["MatMul", "MatMul"]
    we, wy = (const(model.graph.graph.initializers[label]) for label in ("we", "wy"))
    (feeds,) = samples(model, 1).feeds()
    np.testing.assert_allclose(outputs(small, feeds)["y"], feeds["x"] @ we @ wy, rtol=1e-5)


def test_recurrent_layers_of_equal_width() -> None:
    model = recurrent()
    found = {b.start: b for b in find_blocks(model)}
    assert found.keys() == {"sa", "sb"}
    small = drop(model.clone(), [found["sa"]])
    assert names(small) >= {"l1", "l3", "last"}
    assert "l2" not in names(small)
    gone = drop(model.clone(), [found["sb"], found["sa"]])
    verify(gone)
    assert [node.op_type for node in gone.nodes()] == ["LSTM", "Squeeze"]
    assert [name(v) for v in gone.graph.graph.outputs] == ["y"]


def test_nothing_inside_is_needed_elsewhere() -> None:
    text = """g (float[n,8] x) => (float[n,8] y{more}) {{
      a = MatMul(x, w1)
      r = Relu(a)
      b = MatMul(r, w2)
      y = Add(b, x)
      {also}
    }}"""
    shapes = {"w1": (8, 8), "w2": (8, 8)}
    hidden = random_model(text.format(more=", float[n,8] r", also=""), **shapes)
    assert not find_blocks(hidden)
    read = random_model(text.format(more=", float[n,8] z", also="z = Tanh(a)"), **shapes)
    assert not find_blocks(read)


def test_an_input_is_no_output() -> None:
    text = "g (float[n,8] x) => (float[n,8] y) { a = MatMul(x, w1) y = Add(a, x) }"
    assert not find_blocks(random_model(text, w1=(8, 8)))
    two = random_model(
        """g (float[n,8] x) => (float[n,8] y) {
          a = MatMul(x, w1)
          [one] b = Add(a, x)
          c = MatMul(b, w2)
          [two] y = Add(c, b)
        }""",
        w1=(8, 8), w2=(8, 8),
    )  # fmt: skip
    one, other = find_blocks(two)
    same(drop(two.clone(), [one]), zeroed(two.clone(), "a"))
    with pytest.raises(ModelError, match="is a model input"):
        drop(two.clone(), [one, other])


def test_sums_inside_recurrent_cells_are_no_blocks() -> None:
    model = random_model(
        """g (float[2,4] x, float[2,3] h) => (float[2,3] k) {
          p = MatMul(x, w)
          q = MatMul(h, r)
          a = Add(p, q)
          z = Sigmoid(a)
          s = MatMul(x, v)
          n = Tanh(s)
          d = Mul(z, n)
          e = Mul(h, z)
          k = Add(d, e)
        }""",
        w=(4, 3), r=(3, 3), v=(4, 3),
    )  # fmt: skip
    assert not find_blocks(model)


def test_masks_and_biases_are_no_blocks() -> None:
    model = random_model(
        """g (float[1,4,8] x, float[1,4,4] mask) => (float[1,4,8] y) {
          a = MatMul(x, w1)
          t = Transpose<perm=[0,2,1]>(x)
          s = MatMul(a, t)
          m = Add(s, mask)
          p = Softmax(m)
          o = MatMul(p, x)
          y = Add(o, b)
        }""",
        w1=(8, 8), b=(1, 4, 8),
    )  # fmt: skip
    assert not find_blocks(model)


def test_blocks_side_by_side() -> None:
    model = random_model(
        """g (float[n,8] i) => (float[n,8] y) {
          x = MatMul(i, w0)
          c = LayerNormalization(x, g, b)
          f = MatMul(c, w1)
          h = MatMul(c, w2)
          [one] s = Add(x, f)
          [two] y = Add(s, h)
        }""",
        w0=(8, 8), w1=(8, 8), w2=(8, 8), g=(8,), b=(8,),
    )  # fmt: skip
    found = {b.name: b for b in find_blocks(model) if b.start in {"x", "s"}}
    assert found.keys() == {"one", "two"}
    same(drop(model.clone(), [found["two"]]), zeroed(model.clone(), "h"))
    same(drop(model.clone(), list(found.values())), zeroed(model.clone(), "h", "f"))


def test_a_block_inside_a_block() -> None:
    model = random_model(
        """g (float[n,8] i) => (float[n,8] y) {
          x = MatMul(i, w0)
          a = MatMul(x, w1)
          f = MatMul(a, w2)
          [inner] s = Add(a, f)
          h = MatMul(s, w3)
          [outer] t = Add(x, h)
          y = MatMul(t, w4)
        }""",
        w0=(8, 8), w1=(8, 8), w2=(8, 8), w3=(8, 8), w4=(8, 8),
    )  # fmt: skip
    inner, outer = find_blocks(model)
    assert set(inner.nodes) < set(outer.nodes)
    same(drop(model.clone(), [inner]), zeroed(model.clone(), "f"))
    for order in ([inner, outer], [outer, inner]):
        same(drop(model.clone(), order), zeroed(model.clone(), "h"))


def test_a_block_with_an_ignored_node_stays() -> None:
    model = cnn()
    kept = find_blocks(model, lambda name, op: name == "a1" or op == "Clip")
    assert {b.name for b in kept} == {"second", "third"}


def test_the_error_is_noise_over_signal() -> None:
    model, many = cnn(), list(samples(cnn(), 6).feeds())
    error = OutputError(model, many)
    assert error(model) == 0.0
    changed = zeroed(cnn(), "b")
    want = [outputs(model, feeds)["y"] for feeds in many]
    got = [outputs(changed, feeds)["y"] for feeds in many]
    noise = sum(((a - b) ** 2).sum() for a, b in zip(want, got, strict=True))
    assert error(changed) == pytest.approx(noise / sum((a**2).sum() for a in want), rel=1e-4)


def test_outputs_count_alike_and_what_is_not_finite_counts_as_lost() -> None:
    text = """g (float[n,4] x) => (float[n,4] large, float[n,4] small) {{
      a = MatMul(x, w)
      large = Mul(a, hundred)
      b = Abs(a)
      c = Neg(b)
      small = {last}
    }}"""
    shapes: dict[str, tuple[int, ...]] = {"w": (4, 4), "hundred": (1,)}
    model = random_model(text.format(last="Tanh(c)"), **shapes)
    error = OutputError(model, list(samples(model, 3).feeds()))
    assert error(random_model(text.format(last="Sub(a, a)"), **shapes)) == pytest.approx(0.5)
    assert error(random_model(text.format(last="Log(c)"), **shapes)) == pytest.approx(0.5)
