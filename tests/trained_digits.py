"""A small convolutional network that reads sklearn's digits, trained in a second or two."""

from __future__ import annotations

import functools

import numpy as np
from graphs import Array, Listed, nothing, parse

from edgebm.backends.dialects import OPENVINO_CPU, Dialect
from edgebm.backends.placement import place
from edgebm.backends.qdq import lower
from edgebm.ir.model import Model
from edgebm.passes.base import Context
from edgebm.passes.driver import run_passes
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_weights import QuantizeWeights

# A residual block between two layers; the second convolution is a grouped one.
TEXT = """g (float[N,1,8,8] x) => (float[N,10] y) {
  [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  [inner] b = Conv<pads=[1,1,1,1], group=2>(r, w2, b2)
  s = Relu(b)
  [outer] c = Conv<pads=[1,1,1,1]>(s, w3, b3)
  d = Add(c, r)
  t = Relu(d)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(t)
  f = Flatten(p)
  [head] y = Gemm<transB=1>(f, w4, b4)
}"""
SHAPES = {
    "w1": (8, 1, 3, 3), "b1": (8,), "w2": (8, 4, 3, 3), "b2": (8,), "w3": (8, 8, 3, 3),
    "b3": (8,), "w4": (10, 128), "b4": (10,),
}  # fmt: skip


@functools.cache
def digits() -> tuple[Array, Array]:
    """Images [1797, 1, 8, 8] from 0 to 1 and their classes, in chance order."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32), y[order]


def rows(start: int, stop: int) -> Listed:
    """Images as samples, one each; the network has learned from the first 1,000."""
    return Listed([{"x": each[None]} for each in digits()[0][start:stop]])


@functools.cache
def digits_model() -> Model:
    """About 97 % of the images that it has not seen."""
    import torch

    from edgebm.grad.module import GraphModule

    generator = np.random.default_rng(1)
    weights = {
        label: (generator.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        if len(shape) > 1
        else np.zeros(shape, np.float32)
        for label, shape in SHAPES.items()
    }
    module = GraphModule(parse(TEXT, **weights))
    x, y = (torch.from_numpy(each) for each in digits())
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    chance = torch.Generator().manual_seed(0)
    for _ in range(250):
        picked = torch.randint(1000, (64,), generator=chance)
        loss = torch.nn.functional.cross_entropy(module({"x": x[picked]})["y"], y[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.to_model()


def context(samples: Listed, dialect: Dialect = OPENVINO_CPU, seed: int = 0) -> Context:
    """As the search makes it for one placement."""

    def observe(model: Model) -> frozenset[str]:
        plan = place(model, dialect, nothing, decided=False)
        return frozenset(v.name for v in plan.points.values() if v.name)

    def lowered(model: Model) -> Model:
        return lower(model, dialect, nothing)[0]

    return Context(samples=samples, observe=observe, lower=lowered, seed=seed)


def decided(model: Model, ctx: Context, bits: int = 4) -> Model:
    """Weights of so many bits rounded to the nearest, values of 8."""
    steps = [QuantizeWeights(bits=bits), QuantizeActivations(observer="mse")]
    return run_passes(model, steps, ctx)[0]
