"""ConvNeXt in one dimension (Liu et al. 2022, arXiv:2201.03545): columns of a spectrogram that see their neighbours.

    x ← x + γ ∘ W_down gelu(W_up norm(depthwise(x)))

``depthwise`` mixes 7 columns of each channel by itself, the two matrices mix the channels of each column, and γ, one
number a channel, starts small, so that a block starts near the identity.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

KERNEL = 7
WIDER = 3
"""Width of a block's hidden layer as a multiple of its channels."""


class ConvNeXtBlock(nn.Module):
    """One of ``n_blocks``."""

    def __init__(self, channels: int, n_blocks: int):
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, WIDER * channels)
        self.down = nn.Linear(WIDER * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1 / n_blocks))

    def forward(self, x: Float[Tensor, "n frames c"]) -> Float[Tensor, "n frames c"]:
        h = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.gamma * self.down(F.gelu(self.up(self.norm(h))))


class ColumnNet(nn.Module):
    """(n, n_in, frames) → (n, frames, n_out); each column sees 3 + 3 · n_blocks neighbours on either side."""

    def __init__(self, n_in: int, channels: int, n_blocks: int, n_out: int):
        super().__init__()
        self.first = nn.Conv1d(n_in, channels, KERNEL, padding=KERNEL // 2)
        self.first_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(ConvNeXtBlock(channels, n_blocks) for _ in range(n_blocks))
        self.last_norm = nn.LayerNorm(channels)
        self.last = nn.Linear(channels, n_out)

    def forward(self, x: Float[Tensor, "n n_in frames"]) -> Float[Tensor, "n frames n_out"]:
        h = self.first_norm(self.first(x).transpose(1, 2))
        for block in self.blocks:
            h = block(h)
        return self.last(self.last_norm(h))
