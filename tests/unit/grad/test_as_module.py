from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import outputs, parse, random_model

torch = pytest.importorskip("torch", reason="torch is not installed")

import edgebm  # noqa: E402
from edgebm.ir.model import Model  # noqa: E402

torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]
CNN = """g (float[n,1,8,8] image) => (float[n,4] scores) {
  c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, w)
  b = BatchNormalization(c, v_scale, shift, mean, variance)
  r = Relu(b)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  scores = Gemm<transB=1>(f, w2, b2)
}"""
SHAPES = {
    "w": (6, 1, 3, 3), "v_scale": (6,), "shift": (6,), "mean": (6,), "variance": (6,),
    "w2": (4, 6), "b2": (4,),
}  # fmt: skip


def cnn() -> Model:
    return random_model(CNN, **SHAPES)


def pictures(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of noise with a bright quarter, and which one it is."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        label = torch.randint(0, 4, (16,), generator=generator)
        image = torch.randn(16, 1, 8, 8, generator=generator)
        for i, k in enumerate(label.tolist()):
            image[i] *= 1 + 2 * k
        found.append((image, label))
    return found


def test_the_example_of_the_docs_trains_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/train.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page.partition("## Your own loop")[2], re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    model = cnn()
    Path("digits.onnx").write_bytes(model.to_bytes())
    held: dict[str, object] = {"batches": pictures(30, 1)}
    exec(compile(code, "docs/how-to/train.md", "exec"), held)
    onnx.checker.check_model("trained.onnx", full_check=True)
    trained = held["trained"]
    assert isinstance(trained, Model)
    before, after = (m.graph.graph.initializers for m in (model, trained))
    assert list(before) == list(after)
    for label in before:
        old, new = (np.asarray(side[label].const_value.numpy()) for side in (before, after))
        assert not np.array_equal(old, new), label
    losses = []
    for which in (model, edgebm.as_module("trained.onnx").to_model()):
        feeds = [(x.numpy(), y.numpy()) for x, y in pictures(4, 2)]
        scores = np.concatenate([outputs(which, {"image": x})["scores"] for x, _ in feeds])
        labels = torch.from_numpy(np.concatenate([y for _, y in feeds]))
        losses.append(float(torch.nn.functional.cross_entropy(torch.from_numpy(scores), labels)))
    assert losses[1] < losses[0] - 0.01


def test_it_takes_what_compress_takes_and_names_what_it_has() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh())
    x = torch.randn(2, 3)
    module = edgebm.as_module((net, (x,)))
    assert not module.training
    (label,) = module.inputs
    (got,) = module({label: x}).values()
    torch.testing.assert_close(got, net(x))
    head = edgebm.as_module(cnn(), trainable=lambda name: name.endswith("2"))
    assert (head.inputs, head.outputs) == (("image",), ("scores",))
    assert set(head.trained) == {"w2", "b2"}
    assert set(edgebm.as_module(cnn()).trained) == {"w", "v_scale", "shift", "w2", "b2"}


def test_an_untrained_module_gives_the_same_bytes_back() -> None:
    model = cnn()
    module = edgebm.as_module(model)
    module({"image": torch.randn(2, 1, 8, 8)})
    assert module.to_model().to_bytes() == model.to_bytes()


def test_taking_a_model_back_leaves_the_module_and_its_origin_alone() -> None:
    model = parse(
        "g (float[n,2] x) => (float[n,2] y) { y = MatMul(x, w) }", w=np.eye(2, dtype="f4")
    )
    module = edgebm.as_module(model)
    with torch.no_grad():
        module.trained["w"].mul_(3)
    first = module.to_model()
    with torch.no_grad():
        module.trained["w"].mul_(2)
    for made, factor in ((first, 3), (module.to_model(), 6), (model, 1)):
        held = made.graph.graph.initializers["w"].const_value.numpy()
        np.testing.assert_array_equal(held, factor * np.eye(2))
