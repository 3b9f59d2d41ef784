"""DiT: a Transformer over the patches of an image (Peebles & Xie 2023).

    x = x + gate₁ ∘ attention(modulate(norm(x), shift₁, scale₁))
    x = x + gate₂ ∘ mlp(modulate(norm(x), shift₂, scale₂)),      modulate(x, shift, scale) = x ∘ (1 + scale) + shift

The six vectors come from the embedding of t and of what is given, by a layer that starts at zero (adaLN-Zero), so
every block starts as the identity.  Each block has such a layer, or, with fewer weights, all share one, and each adds
six vectors of its own (``modulation = "shared"``: Chen et al. 2023, arXiv:2310.00426, adaLN-single).  Positions are
fixed sines and cosines of row and column, so any size will do; images are padded to a multiple of ``patch`` inside.

With ``draft = "linear"`` a linear layer draws a first picture from what is given alone, which has nothing to do with
noise and is learnt like a regression; the blocks see it beside x_t, and what they answer is added to it.  That suits
networks that answer with x_0, and data where what is given says most of the picture.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.attention import SelfAttention
from bowerbird.nets.conditioning import Conditioning, Given, picture_channels
from bowerbird.nets.patches import from_patches, to_patches
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture


@nets.register("dit")
@dataclass(frozen=True)
class DiTConfig(NetConfig):
    """A diffusion Transformer's hyperparameters."""

    n_layer: Count = 6
    """Blocks."""
    n_head: Count = 4
    """Attention heads per block."""
    n_embd: Count = 192
    """Features per patch; a multiple of 4 and of ``n_head``."""
    patch: Count = 4
    """Pixels per side of a patch."""
    mlp_ratio: Count = 4
    """Width of each block's hidden layer as a multiple of ``n_embd``."""
    modulation: Literal["own", "shared"] = "own"
    """Scales and shifts from a layer of each block's own, or from one for all blocks, which saves weights."""
    draft: Literal["none", "linear"] = "none"
    """linear: a first picture from what is given alone, to which the blocks add theirs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_embd % 4 or self.n_embd % self.n_head:
            raise ValueError(f"dit.n_embd = {self.n_embd} must be a multiple of 4 and of n_head = {self.n_head}.")

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        return DiT(self, spec, channels_out)


class DiT(nn.Module):
    """(x_t, t, given) → an image of the same size with ``channels_out`` channels.  All zero before training."""

    def __init__(self, config: DiTConfig, spec: Spec, channels_out: int):
        super().__init__()
        self.patch = config.patch
        channels_in = shape_of_picture(spec)[0] + picture_channels(spec.given)
        self.conditioning = Conditioning(spec.given, config.n_embd)
        self.draft = Draft(config, spec, channels_out) if config.draft != "none" and self.conditioning.given else None
        channels_in += channels_out if self.draft else 0
        self.first = nn.Linear(channels_in * config.patch**2, config.n_embd)
        shared = config.modulation == "shared"
        self.modulation = nn.Linear(config.n_embd, 6 * config.n_embd) if shared else nn.Identity()
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.n_layer))
        self.last_norm = nn.LayerNorm(config.n_embd, elementwise_affine=False)
        self.last_modulation = nn.Linear(config.n_embd, 2 * config.n_embd)
        self.last = nn.Linear(config.n_embd, channels_out * config.patch**2)
        self._initialise()

    def _initialise(self) -> None:
        """Glorot & Bengio (2010); zero for what scales, shifts and gates, and for the output."""
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        zeroed = [self.last, self.last_modulation, *([self.draft.layer] if self.draft else [])]
        modulations = [module.modulation for module in self.modules() if isinstance(module, DiTBlock | DiT)]
        zeroed += [layer for layer in modulations if isinstance(layer, nn.Linear)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in zeroed:
            nn.init.zeros_(layer.weight)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n channels_out h w"]:
        height, width = x_t.shape[-2:]
        told = self.conditioning.given(given, t.shape[0]) if self.conditioning.given else None
        grid = to_patches(self.conditioning.given.over(x_t, given), self.patch)
        rows, columns = grid.shape[-2:]
        draft = self.draft(told) if self.draft and told is not None else None
        if draft is not None:
            grid = torch.cat([grid, draft.to(grid.dtype)], dim=1)
        embedding = self.conditioning.mixed(t, told)
        for_blocks = self.modulation(embedding)
        h = self.first(grid.flatten(2).transpose(1, 2))
        h = h + positions(rows, columns, h.shape[-1], h.device).to(h.dtype)
        for block in self.blocks:
            h = block(h, for_blocks)
        shift, scale = self.last_modulation(embedding)[:, None].chunk(2, dim=-1)
        h = self.last(modulate(self.last_norm(h), shift, scale))
        grid = h.transpose(1, 2).unflatten(2, (rows, columns))
        return from_patches(grid if draft is None else grid + draft, self.patch, height, width)


class Draft(nn.Module):
    """The vector of what is given → the patches of a picture of the data's size."""

    def __init__(self, config: DiTConfig, spec: Spec, channels_out: int):
        super().__init__()
        _, height, width = shape_of_picture(spec)
        self.shape = (channels_out * config.patch**2, -(-height // config.patch), -(-width // config.patch))
        self.layer = nn.Linear(config.n_embd, math.prod(self.shape))

    def forward(self, told: Float[Tensor, "n n_embd"]) -> Float[Tensor, "n c_patch rows columns"]:
        return self.layer(F.silu(told)).unflatten(1, self.shape)


class DiTBlock(nn.Module):
    """Attention, then a two-layer perceptron, each normalised, scaled and gated by the embedding."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        width = config.mlp_ratio * config.n_embd
        six = 6 * config.n_embd
        self.modulation = nn.Linear(config.n_embd, six) if config.modulation == "own" else Offset(six)
        self.norm = nn.LayerNorm(config.n_embd, elementwise_affine=False)
        self.attention = SelfAttention(config.n_embd, config.n_head)
        self.mlp = nn.Sequential(nn.Linear(config.n_embd, width), nn.GELU("tanh"), nn.Linear(width, config.n_embd))

    def forward(
        self, x: Float[Tensor, "n token n_embd"], embedding: Float[Tensor, "n features"]
    ) -> Float[Tensor, "n token n_embd"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        x = torch.addcmul(x, gate1, self.attention(modulate(self.norm(x), shift1, scale1)))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm(x), shift2, scale2)))


class Offset(nn.Module):
    """The vectors that all blocks share, plus those of one block."""

    def __init__(self, n_features: int):
        super().__init__()
        self.own = nn.Parameter(torch.zeros(n_features))

    def forward(self, shared: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        return shared + self.own


def modulate(
    x: Float[Tensor, "n token n_embd"], shift: Float[Tensor, "n 1 n_embd"], scale: Float[Tensor, "n 1 n_embd"]
) -> Float[Tensor, "n token n_embd"]:
    """x ∘ (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)


def positions(rows: int, columns: int, n_embd: int, device: torch.device) -> Float[Tensor, "token n_embd"]:
    """Sines and cosines of each patch's row, then of its column, for ω_k = 10000^(-k / (n_embd/4)), row by row."""
    omega = torch.exp(torch.arange(n_embd // 4, device=device) * (-4 / n_embd * math.log(10_000)))
    row, column = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    angles = [place.flatten()[:, None] * omega for place in (row, column)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
