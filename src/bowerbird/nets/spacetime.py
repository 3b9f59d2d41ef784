"""A U-Net for clips: every frame through a U-Net of pictures, whose blocks also attend from frame to frame.

    x ← block(x)                                 each frame alone: convolutions, and attention among its positions
    x ← x + attention over frames of norm(x)     each position alone: what stands there at all times

Attention in space and attention in time take turns (the factorised space-time U-Net of Ho et al. 2022, Video Diffusion
Models, arXiv:2204.03458, section 3), so that a clip of f frames of p positions costs f p² + p f² instead of (f p)².  In
memory the frames are rows of a batch; only the attention over time knows which of them are one clip.

A network is told which frame it sees twice: the vector that scales and shifts come from has sines and cosines of the
frame's place added to it, and attention has a vector of each frame added to its tokens.

With ``draft = "first"`` the network adds its answer to the picture that is given, in every frame, so that before
training it answers with a clip that stands still.  That suits networks that answer with x_0: what is left to learn is
motion.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.attention import n_heads
from bowerbird.nets.conditioning import N_FREQUENCIES, Given, fourier_features, picture_channels
from bowerbird.nets.unet import ImageAttention, UNet, UNetBlock, UNetConfig
from bowerbird.registry import nets
from bowerbird.spec import Spec, Tensors, shape_of_clip

FRAME_STD = 0.1
"""Of the vectors of frames before training; tokens have a variance of 1."""


@nets.register("spacetime")
@dataclass(frozen=True)
class SpaceTimeConfig(UNetConfig):
    """A space-time U-Net's hyperparameters: those of the U-Net, whose ``attention`` is the one in space."""

    attention: tuple[int, ...] = ()
    """Levels whose last block, on either way, is followed by attention among the positions of a frame: 0 is the finest,
    -1 the coarsest.  Every block is followed by attention among the frames."""
    draft: Literal["none", "first"] = "none"
    """first: the picture that is given, repeated, to which the network adds its answer; for networks that answer with
    x_0."""

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        return SpaceTimeUNet(self.for_side(max(shape_of_clip(spec)[2:])), spec, channels_out)

    def for_side(self, side: int) -> "SpaceTimeConfig":
        return replace(self, multipliers=super().for_side(side).multipliers)


class SpaceTimeUNet(UNet):
    """(x_t, t, given) → a clip of the same size with ``channels_out`` channels.  All zero before training."""

    def __init__(self, config: "SpaceTimeConfig", spec: Spec, channels_out: int):
        channels, n_frames, height, width = shape_of_clip(spec)
        frame = replace(spec, target=Tensors((channels, height, width)))
        block = partial(SpaceTimeBlock, n_frames=n_frames, head_channels=config.head_channels)
        super().__init__(config, frame, channels_out, block)
        if config.draft == "first" and not picture_channels(spec.given):
            raise BowerbirdError(
                'draft = "first" needs clips that are made from a picture, as with --data.given first.'
            )
        self.draft = range(channels, 2 * channels) if config.draft == "first" else range(0)
        self.place = nn.Linear(2 * N_FREQUENCIES, 4 * config.channels)

    def forward(
        self, x_t: Float[Tensor, "n c f h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n channels_out f h w"]:
        n_frames = x_t.shape[2]
        seen = self.conditioning.given.over(x_t, given)
        frames = seen.transpose(1, 2).flatten(0, 1)
        places = self.place(fourier_features(torch.linspace(0, 1, n_frames, device=x_t.device)))
        embedding = (self.conditioning(t, given)[:, None] + places).flatten(0, 1)
        clip = self.through(frames, embedding).unflatten(0, (-1, n_frames)).transpose(1, 2)
        if not self.draft:
            return clip
        drafted = len(self.draft)  # of further channels, such as a learned variance, there is no draft
        return torch.cat([clip[:, :drafted] + seen[:, self.draft.start : self.draft.stop], clip[:, drafted:]], 1)


class SpaceTimeBlock(UNetBlock):
    """A block of the U-Net for every frame, then attention among the frames."""

    def __init__(self, channels: int, n_embd: int, n_head: int, dropout: float, *, n_frames: int, head_channels: int):
        super().__init__(channels, n_embd, n_head, dropout)
        self.in_time = FrameAttention(channels, n_heads(channels, head_channels), n_frames)

    def forward(self, x: Float[Tensor, "rows c h w"], embedding: Float[Tensor, "rows n_embd"]) -> Tensor:
        return self.in_time(super().forward(x, embedding))


class FrameAttention(ImageAttention):
    """x + self-attention, at every position, among the frames of norm(x).  Starts as the identity."""

    def __init__(self, channels: int, n_head: int, n_frames: int):
        super().__init__(channels, n_head)
        self.frame = nn.Parameter(FRAME_STD * torch.randn(n_frames, channels))

    def forward(self, x: Float[Tensor, "rows c h w"]) -> Float[Tensor, "rows c h w"]:
        n_frames, channels = self.frame.shape
        rows, _, height, width = x.shape
        grid = self.norm(x).permute(0, 2, 3, 1).reshape(-1, n_frames, height * width, channels)
        tokens = grid.transpose(1, 2).flatten(0, 1) + self.frame.to(grid.dtype)
        seen = self.attention(tokens).unflatten(0, (-1, height * width)).transpose(1, 2)
        return x + seen.reshape(rows, height, width, channels).permute(0, 3, 1, 2)
