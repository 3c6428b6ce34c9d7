"""Trains a small MobileNet on German traffic signs and writes it as an ONNX file with samples.

    pip install "edgebm[train]"
    python examples/driving_signs/train.py --data PATH --out signs --bf16

`--data` (or EDGEBM_DATA) is the folder that holds `gtsrb/gtsrb_train13k.tar.xz` and
`gtsrb_test.tar.xz`. Written are

- `signs.onnx`: `image` float32 [1, 3, 48, 48], normalized, to `scores` float32 [1, 43];
- `calibration.npz`: `image` uint8 [300, 32, 32, 3], frames as a camera has them, without labels;
- `test.npz`: the same of the whole test set, with `labels`;
- `camera.npz`: the tracks that were held out, frame after frame, for `device.py`.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

CLASSES, SOURCE, SIZE = 43, 32, 48
# Of all training pixels; recipe.yaml has the same numbers.
MEAN, STD = (0.339, 0.311, 0.320), (0.275, 0.264, 0.270)
SEED, BATCH, PEAK_RATE = 7, 128, 0.15
CALIBRATION = 300
HELD_OUT = 20  # one track of so many validates


@dataclass(frozen=True)
class Frames:
    """Images uint8 [n, 32, 32, 3], classes int64 [n] and the track of each image, int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_] | slice) -> Frames:
        return Frames(self.images[chosen], self.labels[chosen], self.tracks[chosen])


def read(archive: Path, every: int) -> Frames:
    """One picture of `every` from an archive of `part/class/track_frame.jpg`, in that order."""
    if not archive.is_file():
        raise SystemExit(f"{archive} is missing: name the folder that holds gtsrb/ with --data")
    names, images = [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                names.append(member.name)
                images.append(file.read())
    order = sorted(range(len(names)), key=names.__getitem__)[::every]
    paths = [PurePosixPath(names[index]) for index in order]
    return Frames(
        np.stack([np.asarray(Image.open(io.BytesIO(images[i])).convert("RGB")) for i in order]),
        np.array([int(path.parent.name) for path in paths]),
        # Tracks are counted anew in each class.
        np.array([int(p.parent.name) * 100_000 + int(p.stem.split("_")[0]) for p in paths]),
    )


def conv(inside: int, outside: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, and its normalization."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outside)]


class InvertedResidual(nn.Module):
    """Expand, filter, project, with ReLU6 (MobileNetV2: Sandler et al., 2018, table 1).

    With `fused` one dense 3x3 convolution expands and filters, as in MobileNetEdgeTPU: where
    there are few channels, integer units like that better than a depthwise convolution.
    """

    def __init__(
        self, inside: int, outside: int, stride: int, *, expand: int, fused: bool
    ) -> None:
        super().__init__()
        wide = inside * expand
        if fused:
            layers = [*conv(inside, wide, 3, stride), nn.ReLU6()]
        else:
            layers = [*conv(inside, wide, 1, 1), nn.ReLU6()]
            layers += [*conv(wide, wide, 3, stride, wide), nn.ReLU6()]
        self.body = nn.Sequential(*layers, *conv(wide, outside, 1, 1))
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class SignNet(nn.Module):
    """Three stages of fused inverted residuals and a depthwise one: [n, 3, h, w] to [n, 43]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv(3, 24, 3, 2), nn.ReLU6()]
        inside = 24
        for outside, stride, expand, fused in (
            (24, 1, 4, True),
            (40, 2, 4, True),
            (40, 1, 4, True),
            (64, 2, 4, True),
            (64, 1, 4, True),
            (96, 1, 6, False),
        ):
            layers.append(InvertedResidual(inside, outside, stride, expand=expand, fused=fused))
            inside = outside
        self.features = nn.Sequential(*layers, *conv(inside, 256, 1, 1), nn.ReLU6())
        self.classifier = nn.Linear(256, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.features(image).mean((2, 3)))


def normalized(images: NDArray[np.uint8], size: int) -> Tensor:
    """Bytes [n, 32, 32, 3] as the model takes them, [n, 3, size, size], as recipe.yaml says it."""
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (MEAN, STD))
    planes = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    sized = planes
    if size != SOURCE:
        sized = functional.interpolate(planes, (size, size), mode="bilinear")
    return ((sized - mean) / std).contiguous(memory_format=torch.channels_last)


def shifted(images: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Each image moved by up to 3 pixels along both axes. Never mirrored: left is not right."""
    count = len(images)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    rows, columns = random.integers(0, 7, (2, count, 1)) + np.arange(SOURCE)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.inference_mode()
def top1(net: nn.Module, frames: Frames, size: int = SIZE) -> float:
    """Percent of the frames whose class has the highest score."""
    net.eval()
    hits = 0
    for at in range(0, len(frames.labels), 500):
        some = frames[slice(at, at + 500)]
        hits += int((net(normalized(some.images, size)).argmax(1).numpy() == some.labels).sum())
    return 100 * hits / len(frames.labels)


def fit(frames: Frames, held: Frames, epochs: int, *, bf16: bool) -> nn.Module:
    """One-cycle SGD. The last third of the epochs sees images of 48 x 48, those before 32 x 32."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    net = SignNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), PEAK_RATE, 0.9, weight_decay=5e-4, nesterov=True)
    steps = max(1, len(frames.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, epochs * steps)
    for epoch in range(epochs):
        begin, total = time.perf_counter(), 0.0
        size = SIZE if 3 * (epoch + 1) > 2 * epochs else SOURCE
        net.train()
        for chosen in np.array_split(random.permutation(len(frames.labels)), steps):
            x = normalized(shifted(frames.images[chosen], random), size)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                scores = net(x)
            labels = torch.from_numpy(frames.labels[chosen])
            loss = functional.cross_entropy(scores.float(), labels, label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"epoch {epoch + 1}/{epochs} at {size}x{size}: loss {total / steps:.3f}, held-out "
            f"tracks {top1(net, held, size):.2f} %, {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    return net


def export(net: nn.Module, path: Path) -> None:
    """The float model: one normalized image in NCHW, without anything of the camera."""
    torch.onnx.export(
        net.eval().to(memory_format=torch.contiguous_format),
        (torch.zeros(1, 3, SIZE, SIZE),),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamo=True,
        optimize=False,
        external_data=False,
        verbose=False,
    )


def main() -> None:
    """Read, train, test and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEBM_DATA"))
    parser.add_argument("--out", type=Path, default=Path("signs"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="use one picture of so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="faster where the CPU has bf16")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of the data: --data PATH or EDGEBM_DATA=PATH")
    torch.set_num_threads(options.threads)
    folder = options.data / "gtsrb"
    everything = read(folder / "gtsrb_train13k.tar.xz", options.every)
    test = read(folder / "gtsrb_test.tar.xz", options.every)
    random = np.random.default_rng(SEED)
    tracks = random.permutation(np.unique(everything.tracks))
    aside = np.isin(everything.tracks, tracks[: -(-len(tracks) // HELD_OUT)])
    frames, held = everything[~aside], everything[aside]
    net = fit(frames, held, options.epochs, bf16=options.bf16)

    options.out.mkdir(parents=True, exist_ok=True)
    export(net, options.out / "signs.onnx")
    some = random.permutation(len(frames.labels))[:CALIBRATION]
    np.savez_compressed(options.out / "calibration.npz", image=frames.images[some])
    np.savez_compressed(options.out / "test.npz", image=test.images, labels=test.labels)
    np.savez_compressed(options.out / "camera.npz", image=held.images, labels=held.labels)
    print(
        f"{len(frames.labels)} training images, {len(held.labels)} held out; "
        f"{top1(net, test):.2f} % of {len(test.labels)} test images"
    )


if __name__ == "__main__":
    main()
