from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

from edgebm.errors import UsageError  # noqa: E402
from edgebm.grad.module import GraphModule, write_back  # noqa: E402

torch.set_num_threads(1)
TEXT = """g (float[n,3,4] x) => (float[n,5,4] y) {
  c = Conv<kernel_shape=[1]>(x, w, b)
  y = BatchNormalization<epsilon=0.001>(c, scale, shift, mean, variance)
}"""
SHAPES = {"w": (5, 3, 1), "b": (5,), "scale": (5,), "shift": (5,), "mean": (5,)}
# One process of two: its half of the batch, and what a step does with it.
WORKER = """
import sys
import numpy as np
import torch
import torch.distributed as dist
sys.path.insert(0, {tests!r})
from test_batch_moments import batch, made, step
rank = int(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
module = made().train()
x, weight = (part[rank * 3 : rank * 3 + 3] for part in batch())
np.savez(sys.argv[3], **step(module, x, weight))
dist.destroy_process_group()
"""


def made(seed: int = 0) -> GraphModule:
    return GraphModule(random_model(TEXT, seed, variance=(5,), **SHAPES))


def twin(module: GraphModule) -> torch.nn.Sequential:
    """torch's own layers with the same numbers."""
    net = torch.nn.Sequential(torch.nn.Conv1d(3, 5, 1), torch.nn.BatchNorm1d(5, eps=0.001))
    names = ("weight", "bias"), ("weight", "bias", "running_mean", "running_var")
    labels = ("w", "b"), ("scale", "shift", "mean", "variance")
    with torch.no_grad():
        for part, theirs, mine in zip(net, names, labels, strict=True):
            for name, label in zip(theirs, mine, strict=True):
                getattr(part, name).copy_(module.weights[label])
    return net


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(6, size, 4, generator=generator) for size in (3, 5))


def step(module: GraphModule, x: torch.Tensor, weight: torch.Tensor) -> dict[str, np.ndarray]:
    """Gradients of a weighted sum, all weights and the output."""
    x = x.clone().requires_grad_()
    y = module({"x": x})["y"]
    (y * weight).sum().backward()
    found = {f"grad {k}": p.grad for k, p in module.trained.items()}
    found |= {f"now {k}": v for k, v in module.weights.items()}
    return {k: v.detach().numpy() for k, v in {**found, "x": x.grad, "y": y}.items()}


def test_both_modes_are_those_of_torch() -> None:
    module = made()
    net, (x, weight) = twin(module), batch()
    assert not module.training
    torch.testing.assert_close(module({"x": x})["y"], net.eval()(x))
    module.train(), net.train()
    for _ in range(3):
        found = step(module, x, weight)
        net.zero_grad(), module.zero_grad()
        want = net(x)
        np.testing.assert_allclose(found["y"], want.detach().numpy(), rtol=1e-4, atol=1e-5)
    (want * weight).sum().backward()
    np.testing.assert_allclose(found["grad w"], net[0].weight.grad.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        found["grad scale"], net[1].weight.grad.numpy(), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(module.weights["mean"], net[1].running_mean)
    torch.testing.assert_close(module.weights["variance"], net[1].running_var)
    module.eval()
    torch.testing.assert_close(module({"x": x})["y"], net.eval()(x), rtol=1e-4, atol=1e-5)


def test_running_moments_are_written_back_and_untouched_ones_stay() -> None:
    model = random_model(TEXT, 0, variance=(5,), **SHAPES)
    module, copy = GraphModule(model), model.clone()
    assert write_back(module, copy) == []
    module.train()
    with torch.no_grad():
        module({"x": batch()[0]})
    assert sorted(write_back(module, copy)) == ["mean", "variance"]
    held = copy.graph.graph.initializers["mean"].const_value.numpy()
    np.testing.assert_array_equal(held, module.weights["mean"].numpy())
    assert held.dtype == np.float32


def test_one_number_per_channel_is_refused() -> None:
    module = made().train()
    with pytest.raises(UsageError, match="one number per channel") as found:
        module({"x": torch.randn(1, 3, 1)})
    assert "eval mode" in str(found.value.hint)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed part")
def test_two_processes_take_the_moments_of_both(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{held.getsockname()[1]}"
    here = Path(__file__)
    code = WORKER.format(tests=str(here.parent))
    roots = [here.parents[3], here.parents[2]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))}
    outs = [tmp_path / f"{rank}.npz" for rank in (0, 1)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), where, str(out)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    alone = step(made().train(), *batch())
    for worker in workers:
        _, said = worker.communicate(timeout=100)
        assert worker.returncode == 0, said
    parts = [dict(np.load(out)) for out in outs]
    for label, want in alone.items():
        if label in ("x", "y"):
            got = np.concatenate([part[label] for part in parts])
        elif label.startswith("grad"):
            got = parts[0][label] + parts[1][label]  # DDP takes the mean of such parts
        else:
            np.testing.assert_array_equal(parts[0][label], parts[1][label])
            got = parts[0][label]
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5, err_msg=label)
