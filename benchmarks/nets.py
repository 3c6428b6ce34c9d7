"""The convolutional networks of the benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int, groups: int
) -> nn.Sequential:
    """Convolution without bias, then BatchNorm."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016, section 3.3)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(channels_in, channels_out, 3, stride, 1)
        self.second = conv_bn(channels_out, channels_out, 3, 1, 1)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else conv_bn(channels_in, channels_out, 1, stride, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(self.relu(self.first(x)))
        return self.relu(inner + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for CIFAR (He et al., 2016, section 4.2): 3 stages of 16, 32 and 64 channels.

    `blocks` of each stage: 3 for ResNet-20, 9 for ResNet-56.
    """

    def __init__(self, classes: int, blocks: int) -> None:
        super().__init__()
        layers = [conv_bn(3, 16, 3, 1, 1), nn.ReLU()]
        channels = 16
        for width in (16, 32, 64):
            for index in range(blocks):
                stride = 2 if index == 0 and width > 16 else 1
                layers.append(BasicBlock(channels, width, stride))
                channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(image)).flatten(1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al., 2018, table 1)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [conv_bn(channels_in, inner, 1, 1, 1), nn.ReLU6()]
        layers += [conv_bn(inner, inner, 3, stride, inner), nn.ReLU6()]
        layers += [conv_bn(inner, channels_out, 1, 1, 1)]
        self.body = nn.Sequential(*layers)
        self.keeps_shape = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.keeps_shape else y


class MobileNetV2Small(nn.Module):
    """MobileNetV2 cut to 32x32 inputs: 10 inverted residuals, 16 to 96 channels, ReLU6."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Expansion, channels, repeats, stride of the first.
        stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 3, 2), (6, 96, 1, 1))
        blocks: list[nn.Module] = [conv_bn(3, 16, 3, 1, 1), nn.ReLU6()]
        channels = 16
        for expansion, width, repeats, stride in stages:
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(channels, width, stride if index == 0 else 1, expansion)
                )
                channels = width
        blocks += [conv_bn(channels, 256, 1, 1, 1), nn.ReLU6()]
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(256, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(image)).flatten(1))


class ExposureNet(nn.Module):
    """A CNN for linear sensor counts: two convolutions, then the gain is divided out.

    Without biases before the division the answer does not depend on the exposure.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.second = nn.Conv2d(16, 32, 3, 2, 1, bias=False)
        self.features = nn.Sequential(
            nn.BatchNorm2d(32),
            nn.ReLU(),
            BasicBlock(32, 48, 2),
            BasicBlock(48, 96, 2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(96, classes)

    def forward(self, image: Tensor) -> Tensor:
        light = self.second(torch.relu(self.first(image)))
        gain = light.abs().mean((1, 2, 3), keepdim=True) + 1e-3
        return self.classifier(self.pool(self.features(light / gain)).flatten(1))


class CellGauge(nn.Module):
    """A CNN that measures the cell in the middle of a 56x56 picture: [n, 3, 56, 56] to [n, 5]."""

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 16, 3, 2, 1),
            nn.ReLU(),
            conv_bn(16, 32, 3, 2, 1),
            nn.ReLU(),
            conv_bn(32, 64, 3, 2, 1),
            nn.ReLU(),
            conv_bn(64, 32, 3, 1, 1),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(32 * 49, 96)
        self.answer = nn.Linear(96, quantities)

    def forward(self, image: Tensor) -> Tensor:
        return self.answer(torch.relu(self.hidden(self.features(image).flatten(1))))


class CellDetector(nn.Module):
    """A single-shot detector on two grids, of strides 8 and 16, with MobileNet-like blocks.

    An image [n, 3, h, w] gives logits [n, cells, classes] and distances [n, cells, 4] in pixels.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            conv_bn(3, 16, 3, 2, 1),
            nn.Hardswish(),
            InvertedResidual(16, 24, 2, 4),
            InvertedResidual(24, 24, 1, 4),
            InvertedResidual(24, 40, 2, 4),
            InvertedResidual(40, 40, 1, 4),
        )
        self.coarse = nn.Sequential(InvertedResidual(40, 64, 2, 4), InvertedResidual(64, 64, 1, 4))
        self.heads = nn.ModuleList(DetectorHead(width, classes) for width in (40, 64))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(image)
        answers = [self.heads[0](fine), self.heads[1](self.coarse(fine))]
        scores = torch.cat([a[0].flatten(2) for a in answers], 2)
        # The nets think in strides.
        sides = torch.cat(
            [a[1].flatten(2) * s for a, s in zip(answers, (8.0, 16.0), strict=True)], 2
        )
        return scores.transpose(1, 2), sides.transpose(1, 2)


class DetectorHead(nn.Module):
    """A depthwise and a pointwise convolution each for classes and for boxes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.scores, self.boxes = (
            nn.Sequential(
                conv_bn(channels, channels, 3, 1, channels),
                nn.Hardswish(),
                conv_bn(channels, channels, 1, 1, 1),
                nn.Hardswish(),
                nn.Conv2d(channels, width, 1),
            )
            for width in (classes, 4)
        )
        nn.init.constant_(self.scores[-1].bias, -4.0)
        nn.init.constant_(self.boxes[-1].bias, 2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scores(x), self.boxes(x)
