"""Attention in one kernel: the same answers and gradients, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import outputs, parse

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.fused import FUSED, fused  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.plan import Node  # noqa: E402

torch.set_num_threads(1)
HEAD = "g (float[2,3,5,4] q, float[2,3,7,4] k, float[2,3,7,6] v, float[2,1,1,7] mask)"
NUMBERS = "<float root = {2.0}, float[1] half = {0.5}, float zero = {0.0}, float far = {-1e9}>"
FORMS = {
    "as it is written by hand": """
      kt = Transpose<perm=[0,1,3,2]>(k)
      s = MatMul(q, kt)
      d = Div(s, root)
      m = Add(d, mask)
      p = Softmax<axis=-1>(m)
      y = MatMul(p, v)""",
    "scaled in front, without a mask, axis from the front": """
      qs = Mul(q, half)
      kt = Transpose<perm=[0,1,3,2]>(k)
      ks = Mul(half, kt)
      s = MatMul(qs, ks)
      p = Softmax<axis=3>(s)
      y = MatMul(p, v)""",
    "the mask first, and a guard": """
      kt = Transpose<perm=[0,1,3,2]>(k)
      s = MatMul(q, kt)
      m = Add(mask, s)
      sm = Softmax<axis=-1>(m)
      n = IsNaN(sm)
      p = Where(n, zero, sm)
      y = MatMul(p, v)""",
}


def model_of(form: str, head: str = HEAD):
    return parse(f"{head} => (float[2,3,5,6] y) {NUMBERS} {{ {FORMS[form]} }}")


def feeds_of(*, masked: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (2, 3, 5, 4), "k": (2, 3, 7, 4), "v": (2, 3, 7, 6)}
    feeds = {k: torch.randn(*s, generator=generator) for k, s in shapes.items()}
    hidden = torch.zeros(2, 1, 1, 7)
    hidden[0, ..., 4:] = -torch.inf
    if masked:
        hidden[1] = -torch.inf  # no key at all
    return {**feeds, "mask": hidden}


def kernels(module: GraphModule, feeds: dict[str, torch.Tensor], *fetch: str) -> bool:
    """Whether attention ran as one kernel."""
    with torch.profiler.profile() as seen:
        module(feeds, list(fetch) or None)
    return any("scaled_dot_product" in event.key for event in seen.key_averages())


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_is_that_of_onnx_runtime(form: str) -> None:
    model = model_of(form)
    module, feeds = GraphModule(model), feeds_of(masked="guard" in form)
    feeds = {k: v for k, v in feeds.items() if k in module.inputs}
    (want,) = outputs(model, {k: v.numpy() for k, v in feeds.items()}).values()
    assert np.isfinite(want).all()
    (got,) = module(feeds).values()
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-6)
    assert kernels(module, feeds)


@pytest.mark.parametrize("form", list(FORMS)[:2])
def test_gradients_are_those_of_the_single_ops(form: str) -> None:
    module, found = GraphModule(model_of(form)), []
    for fetch in (["y"], ["y", "p"]):  # with the probabilities wanted nothing is fused
        feeds = {k: v.requires_grad_(k != "mask") for k, v in feeds_of().items()}
        assert kernels(module, feeds, *fetch) == (len(fetch) == 1)
        module(feeds, fetch)["y"].square().sum().backward()
        found.append([feeds[k].grad for k in "qkv"])
    for one, other in zip(*found, strict=True):
        assert float(one.abs().max()) > 0.1
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inner", ["kt", "s", "d", "m", "p"])
def test_values_between_can_be_fetched_given_and_tapped(inner: str) -> None:
    module, feeds = GraphModule(model_of("as it is written by hand")), feeds_of()
    plain = module(feeds)["y"]
    got = module(feeds, ["y", inner])
    torch.testing.assert_close(got["y"], plain, rtol=1e-4, atol=1e-6)
    given = module({**feeds, inner: got[inner]}, ["y"])["y"]
    torch.testing.assert_close(given, plain, rtol=1e-4, atol=1e-6)
    seen = []
    module.taps[inner] = lambda value: seen.append(value) or value * 0.5
    tapped = module(feeds)["y"]
    assert torch.equal(seen[0], got[inner])
    assert not torch.allclose(tapped, plain)
    module.taps.clear()
    assert torch.equal(module(feeds)["y"], plain)


def node(op: str, reads: str, writes: str, axis: int = -1) -> Node:
    return Node(op, lambda *_: None, tuple(reads.split()), tuple(writes.split()), axis)


CHAIN = [
    node("MatMul", "q k", "s"), node("Mul", "s c", "d"), node("Softmax", "d", "p"),
    node("MatMul", "p v", "y"),
]  # fmt: skip


def test_what_is_matched_and_what_is_not() -> None:
    (one,) = fused(CHAIN, {"y"}, {"c": 0.5})
    assert (one.op, one.reads, one.writes) == (FUSED, ("q", "k", "v", None, "c"), ("y",))
    apart = {
        "a factor that is no constant": (CHAIN, {"y"}, {}),
        "a value that is wanted": (CHAIN, {"y", "d"}, {"c": 0.5}),
        "another axis": ([*CHAIN[:2], node("Softmax", "d", "p", -2), CHAIN[3]], {"y"}, {"c": 0.5}),
        "two readers": ([*CHAIN, node("Relu", "s", "r")], {"y"}, {"c": 0.5}),
        "a guard that puts in ones": (
            [*CHAIN[:2], node("Softmax", "d", "m"), node("IsNaN", "m", "n"),
             node("Where", "n c m", "p"), CHAIN[3]], {"y"}, {"c": 0.5},
        ),
    }  # fmt: skip
    for reason, (nodes, kept, scalars) in apart.items():
        found = fused(nodes, kept, scalars)
        softmaxes = [n for n in found if n.op == "Softmax"]
        assert softmaxes, reason
    # A factor that is no constant stays in front of what is one kernel.
    assert [n.op for n in fused(CHAIN, {"y"}, {})] == [n.op for n in CHAIN]


@pytest.mark.parametrize(
    "shapes",
    [
        ((6, 5, 4), (6, 4, 7), (6, 7, 3), (6, 1, 7)),
        ((2, 3, 5, 4), (2, 1, 4, 7), (2, 3, 7, 3), (5, 7)),
        ((2, 3, 2, 5, 4), (2, 3, 2, 4, 7), (2, 3, 2, 7, 3), (7,)),
    ],
)
def test_ranks_that_the_kernel_lacks(shapes: tuple[tuple[int, ...], ...]) -> None:
    (one,) = fused(
        [CHAIN[0], CHAIN[1], node("Add", "d mask", "m"), node("Softmax", "m", "p"), CHAIN[3]],
        {"y"}, {"c": 0.5},
    )  # fmt: skip
    q, k, v, mask = (torch.randn(*s, generator=torch.Generator().manual_seed(1)) for s in shapes)
    want = torch.softmax(q @ k * 0.5 + mask, -1) @ v
    torch.testing.assert_close(one.bound(q, k, v, mask, torch.tensor(0.5)), want)
