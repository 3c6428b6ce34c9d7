"""Whole models as torch modules: answers of ONNX Runtime, gradients of torch itself."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from graphs import outputs
from light_graphs import NAMES, light_graph

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch_families import FAMILIES  # noqa: E402

from edgebm.grad.module import GraphModule  # noqa: E402
from edgebm.importers import import_model  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402

torch.set_num_threads(1)
NORMED = ("resnet", "densenet", "mobilenet", "shufflenet", "unet")


@pytest.mark.parametrize("name", NAMES)
def test_zoo_graphs_answer_as_onnx_runtime_does(name: str) -> None:
    model = light_graph(name)
    (label,) = (value.name for value in model.graph.graph.inputs)
    x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    (want,) = outputs(model, {label: x}).values()
    module = GraphModule(model, trainable=lambda _: False)
    (got,) = module({label: torch.from_numpy(x)}).values()
    assert np.abs(want).max() > 1e-3
    assert np.abs(got.numpy() - want).max() <= 1e-4 * np.abs(want).max()


@functools.cache
def exported(family: str) -> tuple[Any, tuple[Any, ...], Model]:
    torch.manual_seed(0)
    net, inputs, free = FAMILIES[family]()
    return net, inputs, import_model((net, inputs, free))


def fed(module: GraphModule, inputs: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(module.inputs, inputs, strict=True))


def other_sizes(model: Model, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs of one sample more, made of those that there are, where their number is free."""
    shapes = [value.shape for value in model.graph.graph.inputs]
    if any(shape is None or isinstance(shape[0], int) for shape in shapes):
        return inputs
    return tuple(torch.cat([x, x[:1].flip(-1)]) for x in inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_answer_as_onnx_runtime_does(family: str) -> None:
    _, inputs, model = exported(family)
    module = GraphModule(model)
    for given in (inputs, other_sizes(model, inputs), inputs):
        feeds = fed(module, given)
        got = module(feeds)
        want = outputs(model, {k: x.numpy() for k, x in feeds.items()})
        for label, array in want.items():
            have = got[label].detach().numpy()
            np.testing.assert_allclose(have, array, rtol=1e-4, atol=2e-5, err_msg=label)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_torch_module(family: str) -> None:
    net, inputs, model = exported(family)
    module = GraphModule(model)
    floats = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    again = [x.detach().clone().requires_grad_(x.requires_grad) for x in floats]
    net.zero_grad()
    (got,) = module(fed(module, tuple(floats))).values()
    got.square().sum().backward()
    net(*again).square().sum().backward()
    pairs = [(x.grad, y.grad) for x, y in zip(floats, again, strict=True) if x.requires_grad]
    theirs = dict(net.named_parameters())
    for label, mine in module.trained.items():
        assert mine.grad is not None, label
        if label in theirs and theirs[label].shape == mine.shape:
            pairs.append((mine.grad, theirs[label].grad))
    assert len(pairs) > 1
    # The bias of a key moves no softmax: its gradient is rounding error on both sides.
    scale = max(float(theirs.abs().max()) for _, theirs in pairs)
    for mine, wanted in pairs:
        assert (
            float((mine - wanted).abs().max()) <= 2e-4 * float(wanted.abs().max()) + 1e-7 * scale
        )


@pytest.mark.parametrize("family", NORMED)
def test_training_takes_the_moments_of_the_batch_as_torch_does(family: str) -> None:
    net, inputs, model = exported(family)
    module = GraphModule(model).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    try:
        (got,), want = module(fed(module, inputs)).values(), net(*inputs)
        moments = {k: v for k, v in net.state_dict().items() if "running" in k}
        assert moments
        for label, theirs in moments.items():
            assert not torch.equal(theirs, before[label])
            torch.testing.assert_close(module.weights[label], theirs, rtol=1e-4, atol=1e-5)
    finally:
        net.load_state_dict(before)
        net.eval()
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
    # What is written back answers as the module does once it is in eval mode again.
    module.eval()
    trained = module.to_model()
    feeds = fed(module, inputs)
    (new,) = outputs(trained, {k: x.numpy() for k, x in feeds.items()}).values()
    (old,) = outputs(model, {k: x.numpy() for k, x in feeds.items()}).values()
    np.testing.assert_allclose(
        module(feeds)[module.outputs[0]].detach().numpy(), new, rtol=1e-4, atol=2e-5
    )
    assert not np.allclose(new, old, rtol=1e-3)
