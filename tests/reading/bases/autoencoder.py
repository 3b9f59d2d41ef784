"""Building blocks of small convolutional generators and an autoregressive prior (no training code here)."""
import math
from typing import Optional

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class ChannelNorm(nn.Module):
    """Normalises each position over its channels, with one gain and one shift per channel."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        var = x.var(dim=1, unbiased=False, keepdim=True)
        return (x - mean) * torch.rsqrt(var + self.eps) * self.gain + self.shift


class NoiseInjection(nn.Module):
    """Adds noise of one plane, scaled by a learned strength per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, noise: Optional[Tensor] = None) -> Tensor:
        if noise is None:
            noise = torch.randn(x.shape[0], 1, x.shape[2], x.shape[3], device=x.device)
        return x + self.strength * noise


class UpBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.noise = NoiseInjection(c_out)
        self.norm1 = ChannelNorm(c_out)
        self.norm2 = ChannelNorm(c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        h = F.leaky_relu(self.norm1(self.noise(self.conv1(x))), 0.2)
        h = self.norm2(self.conv2(h))
        return F.leaky_relu(h + self.skip(x), 0.2)


class ConvGenerator(nn.Module):
    def __init__(self, z_dim: int = 64, width: int = 64, out_channels: int = 3, n_up: int = 3):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.style = nn.Linear(z_dim, width)
        widths = [max(width // 2**i, 16) for i in range(n_up + 1)]
        self.blocks = nn.ModuleList([UpBlock(a, b) for a, b in zip(widths[:-1], widths[1:])])
        self.to_rgb = nn.Conv2d(widths[-1], out_channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.start + self.style(z)[:, :, None, None]
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.to_rgb(x))


class MaskedConv2d(nn.Conv2d):
    """Convolution that sees only what was drawn before: rows above, and the left of the same row."""

    def __init__(self, kind: str, *args, **kwargs):
        super().__init__(*args, **kwargs)
        assert kind in ("A", "B")
        kh, kw = self.kernel_size
        mask = torch.ones(kh, kw)
        mask[kh // 2, kw // 2 + (kind == "B"):] = 0
        mask[kh // 2 + 1:] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)


class PixelCNN(nn.Module):
    def __init__(self, levels: int = 4, width: int = 32, depth: int = 4):
        super().__init__()
        self.levels = levels
        layers = [MaskedConv2d("A", 1, width, 7, padding=3), nn.ReLU()]
        for _ in range(depth):
            layers += [MaskedConv2d("B", width, width, 3, padding=1), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(width, levels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: integers (B, 1, H, W) -> logits (B, levels, H, W)"""
        return self.net(x.float() / (self.levels - 1) * 2 - 1)

    def nll(self, x: Tensor) -> Tensor:
        """bits per pixel"""
        return F.cross_entropy(self(x), x[:, 0]) / math.log(2)
