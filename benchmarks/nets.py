"""The two convolutional networks of the benchmarks, for 32x32 colour images."""

from __future__ import annotations

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


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR: 3 stages of 3 blocks with 16, 32 and 64 channels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks = [conv_bn(3, 16, 3, 1, 1), nn.ReLU()]
        channels = 16
        for width in (16, 32, 64):
            for index in range(3):
                stride = 2 if index == 0 and width > 16 else 1
                blocks.append(BasicBlock(channels, width, stride))
                channels = width
        self.features = nn.Sequential(*blocks)
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
