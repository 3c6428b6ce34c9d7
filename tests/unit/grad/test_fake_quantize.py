from __future__ import annotations

import numpy as np
import pytest
from graphs import parse

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.exec.collect import FloatRunner  # noqa: E402
from edgebm.grad.fake_quantize import LearnedStep, fake_quantize  # noqa: E402
from edgebm.grad.module import GraphModule  # noqa: E402

GENERATOR = np.random.default_rng(0)
X = (3 * GENERATOR.normal(size=(6, 5))).astype(np.float32)
PAIR = """g (float[6,5] x) => (float[6,5] y) {
  q = QuantizeLinear<axis=AXIS>(x, s, z)
  y = DequantizeLinear<axis=AXIS>(q, s, z)
}"""


def closed_form(x, step, low, high):
    """Esser et al. 2020, equation 3, where what rounds to the last integer lies inside."""
    exact = x / step
    rounded = np.rint(exact)
    return np.where(rounded <= low, low, np.where(rounded >= high, high, rounded - exact))


def test_the_gradient_of_the_step_is_that_of_lsq() -> None:
    step = torch.tensor(0.25, requires_grad=True)
    x = torch.tensor(X, requires_grad=True)
    upstream = torch.tensor(GENERATOR.normal(size=X.shape).astype(np.float32))
    y = fake_quantize(x, step, -7, 7, factor=0.5)
    (y * upstream).sum().backward()
    inside = np.abs(np.rint(X / 0.25)) <= 7
    assert inside.any()
    assert not inside.all()
    edge = np.abs(np.rint(X / 0.25)) == 7
    want = closed_form(X, 0.25, -7, 7)
    # At the last integer itself both sides of the formula hold; x is still inside.
    want[edge] = (np.rint(X / 0.25) - X / 0.25)[edge]
    assert step.grad is not None
    np.testing.assert_allclose(
        float(step.grad), 0.5 * float((want * upstream.numpy()).sum()), rtol=1e-5
    )
    np.testing.assert_array_equal(x.grad.numpy(), (inside * upstream.numpy()).astype("f4"))
    np.testing.assert_array_equal(
        y.detach().numpy(), np.clip(np.rint(X / np.float32(0.25)), -7, 7) * np.float32(0.25)
    )


def test_a_step_for_each_channel_gets_the_sum_over_its_channel() -> None:
    steps = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], requires_grad=True)
    fake_quantize(torch.tensor(X), steps, -7, 7).sum().backward()
    for channel in range(5):
        alone = steps[channel].detach().clone().requires_grad_()
        fake_quantize(torch.tensor(X[:, channel]), alone, -7, 7).sum().backward()
        torch.testing.assert_close(steps.grad[channel], alone.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("scale", "zero"),
    [
        (np.float32(0.02), np.uint8(120)),
        (np.float32(0.02), np.int8(3)),
        (np.array([0.01, 0.02, 0.03, 0.04, 0.05], "f4"), np.array([1, 2, 3, 4, 5], np.uint8)),
    ],
)
def test_a_pair_of_nodes_rounds_as_the_runtime_and_learns_its_scale(scale, zero) -> None:
    model = parse(PAIR.replace("AXIS", "1"), s=np.asarray(scale), z=np.asarray(zero))
    module = GraphModule(model, trainable="s".__eq__)
    x = torch.tensor(X, requires_grad=True)
    y = module({"x": x})["y"]
    want = FloatRunner(model, ["y"], plain=True).run({"x": X})["y"]
    np.testing.assert_array_equal(y.detach().numpy(), want)
    y.square().sum().backward()
    bounds = np.iinfo(zero.dtype)
    step = torch.tensor(np.asarray(scale), requires_grad=True)
    twin = torch.tensor(X, requires_grad=True)
    low, high = (
        torch.tensor(bound - np.asarray(zero, "f4")) for bound in (bounds.min, bounds.max)
    )
    fake_quantize(twin, step, low, high).square().sum().backward()
    torch.testing.assert_close(module.trained["s"].grad, step.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(x.grad, twin.grad)


def test_without_gradients_the_integers_have_their_dtype() -> None:
    model = parse(PAIR.replace("AXIS", "1"), s=np.float32(0.1), z=np.uint8(9))
    module = GraphModule(model, trainable=lambda label: False)
    assert module({"x": torch.tensor(X)}, ["q"])["q"].dtype == torch.uint8


def test_a_learned_step_starts_where_it_was_and_stays_above_zero() -> None:
    gain = torch.nn.Parameter(torch.zeros(()))
    tap = LearnedStep(torch.tensor(0.3), -8, 7, gain)
    torch.testing.assert_close(
        tap(torch.tensor(X)), fake_quantize(torch.tensor(X), torch.tensor(0.3), -8, 7),
        rtol=0, atol=0,
    )  # fmt: skip
    gain.data.fill_(-50.0)
    assert float(tap.step()) > 0


def test_the_gradient_of_a_learned_step_is_scaled_by_its_share_of_the_numbers() -> None:
    def gradient(count: int) -> float:
        gain = torch.nn.Parameter(torch.zeros(()))
        tap = LearnedStep(torch.tensor(0.3), -8, 7, gain)
        tap(torch.tensor(np.tile(X, (count, 1)))).sum().backward()
        return float(gain.grad)

    # Four times the numbers: four times the sum, and half the factor 1 / sqrt(N * 7).
    np.testing.assert_allclose(gradient(4), 2 * gradient(1), rtol=1e-5)
