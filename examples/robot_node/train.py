"""For a quick look: trains a small CNN on scikit-learn's digits, shown as pictures of a camera.

    pip install "edgebm[train]" scikit-learn
    python examples/robot_node/train.py --out robot

Ten seconds on one core. Written are `digits.onnx` (`image` float32 [1, 3, 32, 32], normalized, to
`scores` float32 [1, 10]), `calibration.npz` and `test.npz` (frames uint8 [n, 32, 32, 3], the
second with `labels`), and `camera.npz`, the frames of the test for `camera.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED, SIDE, TRAIN, CALIBRATION = 7, 32, 1200, 200
# recipe.yaml has the same numbers.
MEAN, STD = (0.35, 0.35, 0.35), (0.3, 0.3, 0.3)


def pictures(digits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Digits [n, 8, 8] from 0 to 16 as frames uint8 [n, 32, 32, 3], each in its own colours."""
    random = np.random.default_rng(SEED)
    large = digits.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)[..., None] / 16
    count = len(digits)
    paper, ink = random.uniform(0, 0.3, (count, 1, 1, 3)), random.uniform(0.6, 1, (count, 1, 1, 3))
    noise = random.normal(0, 0.02, (count, SIDE, SIDE, 3))
    return (255 * np.clip(paper + (ink - paper) * large + noise, 0, 1)).astype(np.uint8)


def network() -> nn.Sequential:
    """Three strided convolutions and a mean: [n, 3, 32, 32] to [n, 10]."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def normalized(frames: NDArray[np.uint8]) -> Tensor:
    """Bytes as the model takes them, as recipe.yaml says it."""
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (MEAN, STD))
    return (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std


def fit(net: nn.Module, x: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW, one cycle."""
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    steps = -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs * steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(64):
            loss = functional.cross_entropy(net(x[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("robot"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    torch.manual_seed(SEED)
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    frames, labels = pictures(digits.images[order]), digits.target[order]
    net = network()
    fit(net, normalized(frames[:TRAIN]), torch.tensor(labels[:TRAIN]), options.epochs)
    with torch.inference_mode():
        found = net(normalized(frames[TRAIN:])).argmax(1).numpy()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(options.out / "digits.onnx"),
        input_names=["image"],
        output_names=["scores"],
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
    )
    np.savez_compressed(options.out / "calibration.npz", image=frames[:CALIBRATION])
    np.savez_compressed(options.out / "test.npz", image=frames[TRAIN:], labels=labels[TRAIN:])
    np.savez_compressed(options.out / "camera.npz", image=frames[TRAIN:])
    print(f"{100 * float((found == labels[TRAIN:]).mean()):.2f} % of {len(found)} test pictures")


if __name__ == "__main__":
    main()
