"""Sizes computed once per shape, on the host, whatever is given, tapped or copied."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from graphs import outputs, parse

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.grad.sizes import NUMBERS, Brought, Remembered  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402

TEXT = """g (float[n,t,6] x) => (float[n,m,3] y, float[t,6] p) <
    int64 zero = {0}, int64 one = {1}, int64[1] two = {2}, int64[1] axis = {0},
    int64[1] three = {3}, int64[1] minus = {-1}, float low = {-2.0}, float high = {2.0}> {
  rows = Shape<start=0, end=1>(x)
  steps = Shape<start=1, end=2>(x)
  double = Mul(steps, two)
  size = Concat<axis=0>(rows, double, three)
  c = Clip(x, low, high)
  z = Reshape(c, size)
  y = Add(z, bias)
  count = Squeeze(steps, axis)
  ids = Range(zero, count, one)
  p = Gather(table, ids)
}"""


def made(trainable=None) -> tuple[Model, GraphModule]:
    rng = np.random.default_rng(0)
    model = parse(
        TEXT,
        bias=rng.normal(size=3).astype("f4"),
        table=rng.normal(size=(9, 6)).astype("f4"),
    )
    return model, GraphModule(model, trainable)


def x_of(n: int, t: int) -> torch.Tensor:
    return 3 * torch.randn(n, t, 6, generator=torch.Generator().manual_seed(n * t))


def test_answers_follow_the_shapes() -> None:
    model, module = made()
    for n, t in ((2, 3), (1, 5), (2, 3), (4, 1)):
        x = x_of(n, t)
        want = outputs(model, {"x": x.numpy()})
        for label, got in module({"x": x}).items():
            np.testing.assert_allclose(got.detach().numpy(), want[label], rtol=1e-6)


def test_sizes_are_computed_once_for_each_shape() -> None:
    _, module = made()
    for steps, again in ((3, False), (3, True), (4, False), (3, True)):
        x = x_of(2, steps)
        with torch.profiler.profile() as seen:
            found = module({"x": x}, ["ids"])["ids"]
        assert found.tolist() == list(range(steps))
        assert again != any(event.key == "aten::arange" for event in seen.key_averages())
        found.fill_(7)  # what is handed out is not what is kept


def test_sizes_that_are_given_or_tapped_are_taken() -> None:
    _, module = made()
    x = x_of(2, 3)
    plain = module({"x": x})
    ids = torch.tensor([4, 4, 0])
    given = module({"x": x, "ids": ids}, ["p"])["p"]
    torch.testing.assert_close(given, module.weights["table"][ids])
    ids.fill_(1)  # the same object with other numbers
    again = module({"x": x, "ids": ids}, ["p"])["p"]
    torch.testing.assert_close(again, module.weights["table"][ids])
    module.taps["count"] = lambda v: v - 1
    assert module({"x": x})["p"].shape == (2, 6)
    module.taps.clear()
    module.taps["low"] = lambda v: v * 0
    assert float(module({"x": x}, ["c"])["c"].min()) == 0.0
    module.taps.clear()
    torch.testing.assert_close(module({"x": x})["p"], plain["p"])
    torch.testing.assert_close(module({"x": x})["y"], plain["y"])


def test_what_inference_mode_computed_can_be_trained_with() -> None:
    _, module = made()
    with torch.inference_mode():
        module({"x": x_of(2, 3)})
    torch.stack([v.sum() for v in module({"x": x_of(2, 3)}).values()]).sum().backward()
    assert module.trained["table"].grad is not None


def test_a_copy_is_a_module_of_its_own() -> None:
    _, module = made()
    x = x_of(2, 3)
    module({"x": x})
    other = copy.deepcopy(module)
    del module
    with torch.no_grad():
        other.trained["table"].zero_()
        assert float(other({"x": x})["p"].abs().max()) == 0.0
        assert other({"x": x_of(3, 2)})["p"].shape == (2, 6)
    assert other.to_model().to_bytes()


def test_a_limit_that_is_trained_has_a_gradient() -> None:
    _, module = made(trainable=lambda label: label in ("low", "high"))
    module({"x": x_of(4, 4)}, ["c"])["c"].sum().backward()
    assert module.trained["low"].grad is not None
    assert float(module.trained["low"].grad) > 0


def test_memory_is_bounded_and_right() -> None:
    calls = []
    double = Remembered("Mul", lambda v: calls.append(1) or 2 * v)
    given = [torch.tensor([k]) for k in range(70)]
    for _ in range(2):
        assert [int(double(v)) for v in given] == [2 * k for k in range(70)]
    assert 70 < len(calls) <= 140
    before = len(calls)
    assert double(given[-1]) is double(given[-1])
    assert len(calls) == before
    large = Remembered("Shape", lambda v: torch.zeros(2**20))
    assert large(given[0]) is large(given[1])  # told apart by shape
    assert large(torch.zeros(2)) is large(torch.zeros(2))


def test_arguments_on_the_host_are_brought_to_the_others() -> None:
    meta = torch.device("meta")
    seen = []
    brought = Brought(lambda a, b, c: seen.append((a, b, c)) or b, (0, 2))
    ids = torch.tensor([1, 2])
    for _ in range(2):
        brought(ids, torch.empty(3, device=meta), None)
    assert seen[0][0].device == meta
    assert seen[0][0] is seen[1][0]
    brought(ids, torch.empty(3), None)
    assert seen[2][0] is ids


def test_number_inputs_are_those_of_known_ops() -> None:
    from edgebm.grad.ops import OPS

    assert set(NUMBERS) <= set(OPS)
