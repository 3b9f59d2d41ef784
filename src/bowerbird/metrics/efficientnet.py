"""EfficientNet-Lite0: a small classifier of photographs, for features that are cheap to compute.

Tan & Le 2019 (arXiv:1905.11946) without squeeze-and-excitation and with ReLU6.  Sixteen inverted residual blocks

    x → expand 1×1 → depthwise k×k, stride s → project 1×1 → (+ x where the shape allows)

between a stem (3×3, stride 2) and a head (1×1 to 1,280 channels, mean over positions, one affine map to 1,000 classes).
Strided convolutions pad as TensorFlow does: what is missing goes to the right and bottom.  Pixels enter as
(x - 127) / 128.  Batch normalisation (ε = 0.001) is folded into the convolutions, as in ``inception``.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.weights import fill, read_weights, to_photograph

INPUT_SIZE = 224
FEATURES = 1280
N_CLASSES = 1000
BATCH_NORM_EPSILON = 0.001
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
"""Blocks, channels, kernel, stride of the first block, expansion."""


CONVOLUTIONS = ("_conv.weight", "_conv_stem.weight", "_conv_head.weight")
"""How the published names of their weights end."""


class ConvNorm(nn.Module):
    """Convolution with folded batch normalisation, and ReLU6 unless ``linear``."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False):
        super().__init__()
        self.stride, self.groups, self.linear = stride, groups, linear
        missing = kernel - stride  # inputs have an even side, so this many pixels are missing for "same" padding
        self.pad = (missing // 2, missing - missing // 2) * 2
        self.weight = nn.Parameter(torch.empty(n_out, n_in // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x = F.conv2d(x, self.weight, self.bias, padding=self.pad[0], groups=self.groups)
        else:
            x = F.conv2d(F.pad(x, self.pad), self.weight, self.bias, self.stride, groups=self.groups)
        return x if self.linear else x.clamp_(0, 6)


class InvertedResidual(nn.Module):
    """Inverted residual."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = n_in * expansion
        self.residual = stride == 1 and n_in == n_out
        self.expand_conv = ConvNorm(n_in, wide) if expansion > 1 else nn.Identity()
        self.depthwise_conv = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project_conv = ConvNorm(wide, n_out, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project_conv(self.depthwise_conv(self.expand_conv(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """uint8 images of any size → 1,280 pooled features, float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = ConvNorm(3, 32, 3, 2)
        blocks, n_in = [], 32
        for n_blocks, n_out, kernel, stride, expansion in STAGES:
            for i in range(n_blocks):
                blocks.append(InvertedResidual(n_in, n_out, kernel, 1 if i else stride, expansion))
                n_in = n_out
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = ConvNorm(n_in, FEATURES)
        self.classify = nn.Linear(FEATURES, N_CLASSES)

    @classmethod
    def load(cls, path: Path) -> "EfficientNetLite0":
        """Reads the published file (keys ``_blocks.3._expand_conv.weight``, ``_blocks.3._bn0.weight`` …)."""
        stored = {name.replace("_fc", "_classify"): value for name, value in read_weights(path).items()}
        weights = {name.removeprefix("_"): value for name, value in stored.items() if name.startswith("_classify")}
        convolutions = [name.removesuffix(".weight") for name in stored if name.endswith(CONVOLUTIONS)]
        if "_conv_stem" not in convolutions:
            raise BowerbirdError(f"{path} does not hold EfficientNet-Lite0: it has no _conv_stem.")
        for convolution in convolutions:
            weight, bias = _folded(stored, convolution, _normalisation(convolution))
            plain = ".".join(part.removeprefix("_") for part in convolution.split("."))
            weights |= {f"{plain}.weight": weight, f"{plain}.bias": bias}
        network = cls()
        fill(network, weights, path)
        network.eval().requires_grad_(False)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n 1280"]:
        *_, last = self.maps(to_photograph(images, INPUT_SIZE))
        return self.conv_head(last).mean((2, 3))

    def maps(self, x: Float[Tensor, "n 3 h w"]) -> Iterator[Float[Tensor, "n c rows columns"]]:
        """The outputs of the stem and of each block, for pictures in [0, 1] of even sides."""
        x = (x * 255 - 127) / 128
        x = self.conv_stem(x.contiguous(memory_format=torch.channels_last))
        yield x
        for block in self.blocks:
            x = block(x)
            yield x


def _normalisation(convolution: str) -> str:
    """The name of the batch normalisation that follows a convolution."""
    prefix, _, name = convolution.rpartition(".")
    last = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1"}
    return f"{prefix}.{last.get(name, '_bn2')}".removeprefix(".")


def _folded(stored: dict[str, Tensor], convolution: str, normalisation: str) -> tuple[Tensor, Tensor]:
    mean, variance, gain, shift = (
        stored[f"{normalisation}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = gain * (variance + BATCH_NORM_EPSILON).rsqrt()
    weight = stored[f"{convolution}.weight"].double() * scale[:, None, None, None]
    return weight.float(), (shift - mean * scale).float()
