"""Networks by the names that programs use, small and untrained: they have the interface, not the knowledge."""

import itertools
from typing import Any

import torch
from torch import nn


def _block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), nn.BatchNorm2d(n_out), nn.ReLU())


class ResNet(nn.Module):
    """One convolution for each stage of a residual network, under the usual names and widths."""

    def __init__(self, width: int = 512, num_classes: int = 1000, **kwargs: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = _block(64, width // 8, 1), _block(width // 8, width // 4, 2)
        self.layer3, self.layer4 = _block(width // 4, width // 2, 2), _block(width // 2, width, 2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class VGG(nn.Module):
    """Convolutions and pooling in ``features``, then a ``classifier``."""

    def __init__(self, num_classes: int = 1000, **kwargs: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths), 1):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            if i in (2, 4, 8, 12, 16):
                layers.append(nn.MaxPool2d(2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(512, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


_WIDE = ("resnet50", "resnet101", "resnet152", "inception_v3", "resnext50_32x4d", "wide_resnet50_2")


class Part(nn.Module):
    """A building block of a network, whatever its arguments: it hands its input on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Named:
    """What a name of ``torchvision.models`` may be: a function that builds a network, and a module of such and of
    blocks (``inception.InceptionA``)."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, num_classes: int = 1000, **kwargs: Any) -> nn.Module:
        return VGG(num_classes) if "vgg" in self._name else ResNet(2048 if self._name in _WIDE else 512, num_classes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Part,), {}) if name[:1].isupper() else Named(name)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name.endswith("_Weights"):
        return type(name, (), {"DEFAULT": None, "IMAGENET1K_V1": None, "IMAGENET1K_V2": None})
    return Named(name)
