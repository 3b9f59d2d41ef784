"""U-Net: a convolutional network that sees an image at several resolutions and returns one of the same size.

Level i works at side h / (patch · 2^i) with channels · multipliers[i] feature maps.  On the way down each block's
result is kept; on the way up the block at the same place receives it again (Ronneberger et al. 2015).  Three choices
differ from the U-Net of Ho et al. (2020), all to spend the time in 3×3 convolutions of one width, which run close to
the machine's peak:

- resolution and width change in a 1×1 convolution at the *smaller* resolution, around average pooling or
  nearest-neighbour enlargement (as in EDM2, Karras et al. 2024);
- a skip is merged by a 1×1 convolution of the concatenation, so that every residual block has an identity shortcut;
- ``patch`` folds patch × patch pixels into channels before the network and unfolds them after it.

Any height and width will do: pixels are padded only up to a multiple of ``patch``, and a side that is odd at some
level is rounded up on the way down and cut back on the way up.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.attention import SelfAttention, n_heads
from bowerbird.nets.conditioning import Conditioning, Given, picture_channels
from bowerbird.nets.normalization import group_norm
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, Decay
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture


@nets.register("unet")
@dataclass(frozen=True)
class UNetConfig(NetConfig):
    """A U-Net's hyperparameters."""

    channels_last = True

    channels: Count = 64
    """Feature maps at the finest level, before its multiplier."""
    multipliers: tuple[Count, ...] = (1, 2, 2)
    """Feature maps of each level as multiples of ``channels``, the finest first; their number is that of the levels."""
    coarsest_side: Count | None = None
    """Levels as wide as the last are added until the coarsest has at most this side, so that one recipe fits images
    of any size (None: the levels of ``multipliers`` and no more)."""
    blocks: Count = 2
    """Residual blocks per level on the way down, and as many on the way up."""
    attention: tuple[int, ...] = (-1,)
    """Levels whose last block, on either way, is followed by self-attention: 0 is the finest, -1 the coarsest."""
    head_channels: Count = 64
    """Channels per attention head."""
    patch: Count = 1
    """Pixels per side folded into channels; 2 makes 28 × 28 images cost what 14 × 14 would."""
    dropout: Decay = 0.0
    """Probability of zeroing a feature before the last convolution of a residual block."""

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.multipliers)
        if not levels:
            raise ValueError("unet.multipliers needs at least one level, such as [1, 2, 2].")
        if any(not -levels <= level < levels for level in self.attention):
            raise ValueError(
                f"unet.attention = {list(self.attention)} names a level that does not exist (0 to {levels - 1})."
            )

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        return UNet(self.for_side(max(shape_of_picture(spec)[1:])), spec, channels_out)

    def for_side(self, side: int) -> "UNetConfig":
        """The configuration with the levels that ``coarsest_side`` adds for images of this many pixels a side."""
        multipliers, limit = self.multipliers, self.coarsest_side or side
        while -(-side // (self.patch * 2 ** (len(multipliers) - 1))) > limit:
            multipliers = (*multipliers, multipliers[-1])
        return replace(self, multipliers=multipliers)


class UNet(nn.Module):
    """(x_t, t, given) → an image of the same size with ``channels_out`` channels.  All zero before training."""

    def __init__(
        self, config: UNetConfig, spec: Spec, channels_out: int, block: "Callable[..., UNetBlock] | None" = None
    ):
        """``block``: what makes a residual block of (channels, n_embd, n_head, dropout)."""
        super().__init__()
        block = block or UNetBlock
        self.patch = config.patch
        channels_in = shape_of_picture(spec)[0] + picture_channels(spec.given)
        widths = [config.channels * m for m in config.multipliers]
        levels = len(widths)
        attends = {level % levels for level in config.attention}
        n_embd = 4 * config.channels

        def blocks(level: int) -> nn.ModuleList:
            n_head = n_heads(widths[level], config.head_channels) if level in attends else 0
            last = config.blocks - 1
            return nn.ModuleList(
                block(widths[level], n_embd, n_head if i == last else 0, config.dropout) for i in range(config.blocks)
            )

        self.conditioning = Conditioning(spec.given, n_embd)
        self.first = nn.Conv2d(channels_in * config.patch**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(level) for level in range(levels))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.widen = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.merge = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(config.blocks)) for width in widths
        )
        self.up = nn.ModuleList(blocks(level) for level in range(levels))
        self.last_norm = group_norm(widths[0])
        self.last = nn.Conv2d(widths[0], channels_out * config.patch**2, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Weights of variance 1 / fan-in; zero where a residual branch, or the network, ends."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, UNetBlock):
                nn.init.zeros_(module.conv2.weight)
            if isinstance(module, ImageAttention):
                nn.init.zeros_(module.attention.out.weight)
                nn.init.zeros_(module.attention.out.bias)
        nn.init.zeros_(self.last.weight)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n channels_out h w"]:
        return self.through(self.conditioning.given.over(x_t, given), self.conditioning(t, given))

    def through(
        self, x: Float[Tensor, "n channels_in h w"], embedding: Float[Tensor, "n n_embd"]
    ) -> Float[Tensor, "n channels_out h w"]:
        """The output for an input with all its channels, and the vector that scales and shifts come from."""
        return from_patches(self.features(x, embedding), self.patch, *x.shape[-2:])

    def features(self, x: Float[Tensor, "n channels_in h w"], embedding: Float[Tensor, "n n_embd"]) -> Tensor:
        """The same with the pixels of each patch as channels."""
        return self.body(self.first(to_patches(x, self.patch)), embedding)

    def body(self, h: Float[Tensor, "n channels rows columns"], embedding: Float[Tensor, "n n_embd"]) -> Tensor:
        """All layers but the first."""
        kept = []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.narrow[level - 1](F.avg_pool2d(h, 2, ceil_mode=True))
            for block in blocks.children():
                h = block(h, embedding)
                kept.append(h)
        for level in reversed(range(len(self.up))):
            for merge, block in zip(self.merge[level].children(), self.up[level].children(), strict=True):
                h = block(merge(torch.cat([h, kept.pop()], dim=1)), embedding)
            if level:
                # Asking for the finer level's own size cuts the row or column that rounding up had added.
                h = F.interpolate(self.widen[level - 1](h), kept[-1].shape[-2:], mode="nearest")
        return self.last(F.silu(self.last_norm(h)))


class UNetBlock(nn.Module):
    """x + conv(silu(scale · norm(conv(silu(norm(x)))) + shift)), scale and shift taken from the embedding.

    Adaptive normalisation as in Dhariwal & Nichol (2021), section 3.  The last convolution starts at zero, so that a
    block starts as the identity.
    """

    def __init__(self, channels: int, n_embd: int, n_head: int, dropout: float):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale_shift = nn.Linear(n_embd, 2 * channels)
        self.norm2 = group_norm(channels, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = ImageAttention(channels, n_head) if n_head else None

    def forward(self, x: Float[Tensor, "n c h w"], embedding: Float[Tensor, "n n_embd"]) -> Float[Tensor, "n c h w"]:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.scale_shift(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale))
        x = x + self.conv2(self.dropout(h))
        return x if self.attention is None else self.attention(x)


class ImageAttention(nn.Module):
    """x + self-attention among all positions of norm(x).  Starts as the identity."""

    def __init__(self, channels: int, n_head: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = SelfAttention(channels, n_head)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # a view where x is channels_last
        return x + self.attention(tokens).transpose(1, 2).unflatten(2, x.shape[-2:])
