"""Whether the compressed model looks where the original looks: input gradients side by side.

    python examples/medical_xray/saliency.py xray

The folder is that of train.py and compress.sh. It writes `saliency.png` there and prints how alike
the maps are.

A map is the absolute gradient of the margin (score of pneumonia minus score of normal) by each
pixel. What runs on the device has no gradients. In its place stands the graph that it was built
from, with all its rounding, as a torch module: its gradient passes through a rounding as if there
were none, and is zero where a value is cut off at the end of its range. How far this module's
answers are from those of the bundle is printed, too.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import edgebm
from edgebm.data.scores import mean_ranks
from edgebm.errors import EdgebmError
from edgebm.report.read import read_report

SHOWN = 3  # images of each class in the picture


def chosen_graph(folder: Path) -> Path:
    """The ONNX file that the bundle's artifact was built from, which `--keep` left."""
    report = read_report(folder / "xray.edgebm")
    after = report["after"]
    if after["precision"] in ("f32", "bf16"):
        sys.exit("nothing to compare: the bundle holds the float model, which was the fastest")
    kind = after["precision"].removesuffix("+bf16")
    path = folder / "graphs" / f"{report['target']}-{after['runtime']}-{kind}.onnx"
    if not path.is_file():
        sys.exit(f"error: there is no {path}: compress with --keep {folder / 'graphs'}")
    return path


def maps(model: Path, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores [N, 2], and the map of each image [N, 28, 28]."""
    module = edgebm.as_module(model)
    scores, gradients = [], []
    # One by one: runtimes round a graph of one sample.
    for image in images:
        x = torch.tensor(image[None], requires_grad=True)
        answer = module({"image": x})["scores"]
        (answer[0, 1] - answer[0, 0]).backward()
        scores.append(answer.detach().numpy()[0])
        gradients.append(x.grad.abs().numpy()[0, 0])
    return np.stack(scores), np.stack(gradients)


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's over the pixels of two maps; 0 where one is the same everywhere."""
    ranks = [mean_ranks(each.reshape(-1)) for each in (first, second)]
    if any(each.min() == each.max() for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def answers(bundle: Path, images: NDArray[Any]) -> NDArray[Any]:
    with edgebm.load(bundle) as session:
        return np.concatenate([session.run(image=image[None])["scores"] for image in images])


def draw(path: Path, images: NDArray[Any], pair: list[NDArray[Any]], titles: list[str]) -> None:
    """One row for each image: the X-ray, and both maps, each from 0 to its own largest value."""
    figure = Figure(figsize=(5.4, 1.9 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), 3, squeeze=False)
    for row, (image, before, after, title) in enumerate(zip(images, *pair, titles, strict=True)):
        axes[row, 0].imshow(image[0], cmap="gray", vmin=0, vmax=255)
        axes[row, 1].imshow(before, cmap="magma", vmin=0)
        axes[row, 2].imshow(after, cmap="magma", vmin=0)
        axes[row, 0].set_ylabel(title, fontsize=8)
    for place, name in enumerate(("X-ray", "original", "compressed")):
        axes[0, place].set_title(name, fontsize=10)
    for each in axes.flat:
        each.set_xticks([])
        each.set_yticks([])
    figure.savefig(path, dpi=120)


def compare(folder: Path) -> None:
    with np.load(folder / "test.npz") as file:
        images, labels = file["image"], file["labels"]
    graph = chosen_graph(folder)
    _, before = maps(folder / "xray.onnx", images)
    scores, after = maps(graph, images)
    alike = np.array([rank_correlation(*pair) for pair in zip(before, after, strict=True)])
    # Lungs are in the same place on every X-ray: so alike are maps of different images.
    others = np.array([rank_correlation(*p) for p in pairwise(before)])
    ran = answers(folder / "xray.edgebm", images)
    print(f"compared: xray.onnx and {graph.name}, the graph of what the bundle runs")
    print(
        f"the module answers as the bundle: {int((scores.argmax(1) == ran.argmax(1)).sum())} of "
        f"{len(images)} alike, scores differ by up to {np.abs(scores - ran).max():.4f} "
        f"(they reach {np.abs(ran).max():.1f})"
    )
    print(
        f"rank correlation of the maps over {len(images)} images: mean {alike.mean():.3f}, "
        f"lowest twentieth below {np.quantile(alike, 0.05):.3f}, lowest {alike.min():.3f}"
    )
    print(f"original maps of two different images: mean {others.mean():.3f}")
    shown = np.concatenate([np.flatnonzero(labels == label)[:SHOWN] for label in (0, 1)])
    names = ("normal", "pneumonia")
    titles = [f"{names[labels[n]]}, {alike[n]:.2f}" for n in shown]
    draw(folder / "saliency.png", images[shown], [before[shown], after[shown]], titles)
    print(folder / "saliency.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what train.py and compress.sh wrote")
    compare(parser.parse_args().folder)


if __name__ == "__main__":
    try:
        main()
    except EdgebmError as error:
        sys.exit(f"error: {error}\nhint:  {error.hint}")
