"""One-op and few-op graphs: what each engine must run in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Case:
    """A graph, its random weights, and how many layers each engine must run in int8 at least.

    On OpenVINO joins are fused into their neighbours, so fewer are counted.
    """

    text: str
    shapes: Mapping[str, tuple[int, ...]]
    int8: Mapping[str, int]
    attention: bool = False


def case(
    text: str, int8: tuple[int, int], *, attention: bool = False, **shapes: tuple[int, ...]
) -> Case:
    return Case(f"g {text}", shapes, dict(zip(RUNTIMES, int8, strict=True)), attention)


# Behind a convolution that is the model's output ONNX Runtime has no int8 kernel: a Relu and a
# mean follow, as in a classifier.
def conv(
    dims: str, layer: str, int8: tuple[int, int], *, before: str = "", **shapes: tuple[int, ...]
) -> Case:
    rank = dims.count(",") - 1
    axes = ", ".join(str(2 + k) for k in range(rank))
    return case(
        f"(float[{dims}] x) => (float[1,C] y) <int64[{rank}] axes = {{{axes}}}> {{\n"
        f"{before}\n h = {layer}\n r = Relu(h)\n y = ReduceMean<keepdims=0>(r, axes) }}",
        int8,
        **shapes,
    )


CASES = {
    "conv 1d": conv("1,8,20", "Conv<pads=[1,1]>(x, w, b)", (1, 1), w=(16, 8, 3), b=(16,)),
    "conv 2d": conv("1,8,9,9", "Conv<pads=[1,1,1,1]>(x, w, b)", (1, 1), w=(16, 8, 3, 3), b=(16,)),
    "conv 3d": conv("1,8,5,6,7", "Conv(x, w, b)", (1, 1), w=(16, 8, 3, 3, 3), b=(16,)),
    "conv without bias": conv("1,8,9,9", "Conv(x, w)", (1, 1), w=(16, 8, 3, 3)),
    "conv strided, dilated": conv(
        "1,8,16,16", "Conv<strides=[2,2], dilations=[2,2]>(x, w)", (1, 1), w=(16, 8, 3, 3)
    ),
    "conv 1x1": conv("1,16,9,9", "Conv(x, w, b)", (1, 1), w=(32, 16, 1, 1), b=(32,)),
    "grouped": conv("1,16,9,9", "Conv<group=4>(x, w, b)", (1, 1), w=(32, 4, 3, 3), b=(32,)),
    "depthwise": conv("1,16,9,9", "Conv<group=16>(x, w, b)", (1, 1), w=(16, 1, 3, 3), b=(16,)),
    "transposed": conv(
        "1,8,5,5",
        "ConvTranspose<strides=[2,2]>(a, w, b)",
        (0, 1),
        before="a = Relu(x)",
        w=(8, 16, 3, 3),
        b=(16,),
    ),
    # In float on either runtime; the plan says why.
    "transposed, of negative values": conv(
        "1,8,5,5", "ConvTranspose<strides=[2,2]>(x, w, b)", (0, 0), w=(8, 16, 3, 3), b=(16,)
    ),
    "transposed, grouped": conv(
        "1,8,5,5", "ConvTranspose<group=2>(a, w)", (0, 0), before="a = Relu(x)", w=(8, 8, 3, 3)
    ),
    "gemm": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm(x, w, b) }", (1, 1), w=(32, 16), b=(16,)
    ),
    "gemm transB": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm<transB=1>(x, w, b) }",
        (1, 1),
        w=(16, 32),
        b=(16,),
    ),
    "gemm without bias": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm<transB=1>(x, w) }", (1, 1), w=(16, 32)
    ),
    "gemm with a row bias": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm(x, w, b) }", (1, 1), w=(32, 16), b=(1, 16)
    ),
    "gemm with one bias for all": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm(x, w, b) }", (0, 0), w=(32, 16), b=(1,)
    ),
    "gemm with another bias in each row": case(
        "(float[2,32] x) => (float[2,16] y) { y = Gemm(x, w, b) }", (0, 0), w=(32, 16), b=(2, 16)
    ),
    "gemm with a computed bias": case(
        "(float[2,32] x, float[16] z) => (float[2,16] y) { b = Exp(z)\n y = Gemm(x, w, b) }",
        (0, 0),
        w=(32, 16),
    ),
    "two gemms": case(
        "(float[2,32] x) => (float[2,16] y) { h = Gemm(x, w, b)\n r = Relu(h)\n"
        "y = Gemm<transB=1>(r, u, c) }",
        (2, 2),
        w=(32, 24),
        b=(24,),
        u=(16, 24),
        c=(16,),
    ),
    "matmul 2d": case(
        "(float[4,32] x) => (float[4,16] y) { y = MatMul(x, w) }", (1, 1), w=(32, 16)
    ),
    "matmul 3d": case(
        "(float[1,6,32] x) => (float[1,6,16] y) { h = MatMul(x, w)\n y = Add(h, b) }",
        (1, 1),
        w=(32, 16),
        b=(16,),
    ),
    "matmul and a bias of more axes": case(
        "(float[1,6,32] x) => (float[1,1,6,16] y) { h = MatMul(x, w)\n y = Add(h, b) }",
        (1, 1),
        w=(32, 16),
        b=(1, 1, 1, 16),
    ),
    "matmul and a bias for each row": case(
        "(float[1,16,32] x) => (float[1,16,16] y) { h = MatMul(x, w)\n y = Add(h, b) }",
        (1, 1),
        w=(32, 16),
        b=(16, 1),
    ),
    "matmul 4d": case(
        "(float[1,3,6,32] x) => (float[1,3,6,16] y) { y = MatMul(x, w) }", (1, 1), w=(32, 16)
    ),
    "matmul by a stack": case(
        "(float[3,6,32] x) => (float[3,6,16] y) { y = MatMul(x, w) }", (0, 1), w=(3, 32, 16)
    ),
    "matmul by a 4d stack": case(
        "(float[1,3,6,32] x) => (float[1,3,6,16] y) { y = MatMul(x, w) }",
        (0, 1),
        w=(1, 3, 32, 16),
    ),
    "attention": case(
        """(float[1,8,16] x) => (float[1,8,16] y) {
          q = MatMul(x, wq)
          k = MatMul(x, wk)
          v = MatMul(x, wv)
          t = Transpose<perm=[0,2,1]>(k)
          s = MatMul(q, t)
          p = Softmax<axis=-1>(s)
          a = MatMul(p, v)
          y = MatMul(a, wo)
        }""",
        (6, 4),
        attention=True,
        wq=(16, 16),
        wk=(16, 16),
        wv=(16, 16),
        wo=(16, 16),
    ),
    "attention in heads": case(
        """(float[1,8,16] x) => (float[1,8,16] y)
        <int64[4] heads = {1, 8, 4, 4}, int64[3] flat = {1, 8, 16}, float root = {0.5}> {
          q = MatMul(x, wq)
          qh = Reshape(q, heads)
          qt = Transpose<perm=[0,2,1,3]>(qh)
          k = MatMul(x, wk)
          kh = Reshape(k, heads)
          kt = Transpose<perm=[0,2,3,1]>(kh)
          v = MatMul(x, wv)
          vh = Reshape(v, heads)
          vt = Transpose<perm=[0,2,1,3]>(vh)
          s = MatMul(qt, kt)
          d = Mul(s, root)
          p = Softmax<axis=-1>(d)
          a = MatMul(p, vt)
          at = Transpose<perm=[0,2,1,3]>(a)
          af = Reshape(at, flat)
          y = MatMul(af, wo)
        }""",
        (6, 4),
        attention=True,
        wq=(16, 16),
        wk=(16, 16),
        wv=(16, 16),
        wo=(16, 16),
    ),
    "embedding": case(
        "(int64[1,8] x) => (float[1,8,16] y) { e = Gather(table, x)\n y = MatMul(e, w) }",
        (1, 1),
        table=(300, 32),
        w=(32, 16),
    ),
    "embedding alone": case(
        "(int64[1,8] x) => (float[1,8,32] y) { y = Gather(table, x) }", (0, 0), table=(300, 32)
    ),
    "average pool": case(
        """(float[1,8,8,8] x) => (float[1,10] y) <int64[2] flat = {1, 256}> {
          h = Conv<pads=[1,1,1,1]>(x, w)
          r = Relu(h)
          p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r)
          f = Reshape(p, flat)
          y = MatMul(f, u)
        }""",
        (3, 2),
        w=(16, 8, 3, 3),
        u=(256, 10),
    ),
    "global average pool": case(
        """(float[1,8,8,8] x) => (float[1,10] y) {
          h = Conv<pads=[1,1,1,1]>(x, w)
          r = Relu(h)
          p = GlobalAveragePool(r)
          f = Flatten(p)
          y = Gemm<transB=1>(f, u, c)
        }""",
        (3, 2),
        w=(16, 8, 3, 3),
        u=(10, 16),
        c=(10,),
    ),
    "concat": case(
        """(float[1,8,8,8] x) => (float[1,16] y) <int64[2] axes = {2, 3}> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          b = Conv(x, w2)
          j = Concat<axis=1>(a, b)
          k = Conv(j, w3)
          y = ReduceMean<keepdims=0>(k, axes)
        }""",
        (4, 3),
        w1=(16, 8, 3, 3),
        w2=(8, 8, 1, 1),
        w3=(16, 24, 1, 1),
    ),
    # OpenVINO dies of an illegal instruction when this Add runs in int8 on a CPU with AVX2 only.
    "residual behind a grouped convolution": case(
        """(float[1,16,8,8] x) => (float[1,8] y) <int64[2] axes = {2, 3}> {
          a = Conv(x, w1)
          b = Relu(a)
          c = Conv<group=2>(b, w2)
          s = Add(c, b)
          r = Relu(s)
          k = Conv(r, w3)
          y = ReduceMean<keepdims=0>(k, axes)
        }""",
        (4, 3),
        w1=(16, 16, 1, 1),
        w2=(16, 8, 1, 1),
        w3=(8, 16, 1, 1),
    ),
    "residual": case(
        """(float[1,8,8,8] x) => (float[1,16] y) <int64[2] axes = {2, 3}> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          b = Relu(a)
          c = Conv<pads=[1,1,1,1]>(b, w2)
          s = Add(c, b)
          r = Relu(s)
          k = Conv(r, w3)
          y = ReduceMean<keepdims=0>(k, axes)
        }""",
        (4, 3),
        w1=(16, 8, 3, 3),
        w2=(16, 16, 3, 3),
        w3=(16, 16, 1, 1),
    ),
    "max pool": case(
        """(float[1,8,8,8] x) => (float[1,10] y) <int64[2] flat = {1, 256}> {
          h = Conv<pads=[1,1,1,1]>(x, w)
          r = Relu(h)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
          f = Reshape(p, flat)
          y = MatMul(f, u)
        }""",
        (2, 2),
        w=(16, 8, 3, 3),
        u=(256, 10),
    ),
    "padded max pool of negative values": case(
        """(float[1,8,8,8] x) => (float[1,10] y) <int64[2] flat = {1, 400}> {
          h = Conv<pads=[1,1,1,1]>(x, w, b)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]>(h)
          f = Reshape(p, flat)
          y = MatMul(f, u)
        }""",
        (2, 2),
        w=(16, 8, 3, 3),
        b=(16,),
        u=(400, 10),
    ),
    "moves": case(
        """(float[1,8,32] x) => (float[4,6,10] y)
        <int64[3] shape = {1, 12, 16}, int64[1] zero = {0}, int64[1] six = {6}> {
          h = MatMul(x, w)
          a = Reshape(h, shape)
          t = Transpose<perm=[0,2,1]>(a)
          s = Squeeze(t, zero)
          c = Slice(s, zero, six, zero)
          u = Unsqueeze(c, zero)
          l, m, n = Split<axis=2, num_outputs=3>(u)
          y1 = MatMul(l, u1)
          y2 = MatMul(m, u1)
          y3 = MatMul(n, u1)
          y = Concat<axis=0>(y1, y2, y3, y3)
        }""",
        (4, 4),
        w=(32, 24),
        u1=(4, 10),
    ),
}
RECURRENT = {
    op: case(
        f"(float[6,1,8] x) => (float[6,1,10] y) <int64[1] dir = {{1}}> {{\n"
        f"h = {op}<hidden_size=12>(x, w, r, b)\n s = Squeeze(h, dir)\n y = MatMul(s, u) }}",
        (1, 1),
        w=(1, 12 * gates, 8),
        r=(1, 12 * gates, 12),
        b=(1, 24 * gates),
        u=(12, 10),
    )
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
}
