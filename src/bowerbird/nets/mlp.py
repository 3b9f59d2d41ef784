"""Multi-layer perceptrons: an image is a flat vector, every layer sees all of it.

The textbook GAN (Goodfellow et al. 2014, as most courses teach it) is the decoder 100 → 256 → 512 → 1024 → 784 with
LeakyReLU(0.2) against the encoder that takes the same widths backwards.  ``hidden`` is written in the decoder's order;
the denoiser uses it forwards too.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.conditioning import Conditioning, Given, Head, for_decoder, picture_channels
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, shape_of_picture

Norm = Literal["none", "batch"]


@nets.register("mlp")
@dataclass(frozen=True)
class MLPConfig(NetConfig):
    """A multi-layer perceptron's hyperparameters."""

    hidden: tuple[Count, ...] = (256, 512, 1024)
    """Widths of the hidden layers from the latent code to the image; the encoder takes them in reverse."""
    norm: Norm = "none"
    """Normalisation after each hidden linear layer of the encoder's trunk and of the decoder."""
    n_embd: Count = 128
    """Numbers in the denoiser's embedding of t and of what is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            raise ValueError("mlp.hidden needs at least one layer, such as [256].")

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        return MLPDenoiser(self, spec, channels_out)

    def encoder(self, spec: Spec, n_out: int) -> nn.Module:
        return MLPEncoder(self, spec, n_out)

    def decoder(self, spec: Spec, n_in: int, channels_out: int) -> nn.Module:
        return MLPDecoder(self, spec, n_in, channels_out)


class MLPDecoder(nn.Module):
    """(z, given) → an image, without a final non-linearity.  The vector of what is given is concatenated to z."""

    def __init__(self, config: MLPConfig, spec: Spec, n_in: int, channels_out: int):
        super().__init__()
        self.shape = (channels_out, *shape_of_picture(spec)[1:])
        self.given = for_decoder(spec.given, n_in, config)
        self.trunk = _layers([2 * n_in if self.given else n_in, *config.hidden], config.norm)
        self.last = nn.Linear(config.hidden[-1], math.prod(self.shape))

    def forward(self, z: Float[Tensor, "n n_in"], given: Given | None = None) -> Float[Tensor, "n channels_out h w"]:
        if self.given:
            z = torch.cat([z, self.given(given, z.shape[0])], dim=1)
        return self.last(self.trunk(z)).unflatten(1, self.shape)


class MLPEncoder(nn.Module):
    """(x, given) → ``n_out`` numbers: a discriminator's logit, or the parameters of q(z|x)."""

    def __init__(self, config: MLPConfig, spec: Spec, n_out: int):
        super().__init__()
        channels, height, width = shape_of_picture(spec)
        n_in = (channels + picture_channels(spec.given)) * height * width
        *trunk, n_hidden = [n_in, *reversed(config.hidden)]
        self.trunk = _layers(trunk, config.norm)
        self.head = Head(trunk[-1], n_hidden, n_out, spec.given)

    def forward(self, x: Float[Tensor, "n c h w"], given: Given | None = None) -> Float[Tensor, "n n_out"]:
        return self.head(self.trunk(self.head.given.over(x, given).flatten(1)), given)


class MLPDenoiser(nn.Module):
    """(x_t, t, given) → an image; every hidden layer adds a projection of the embedding.  All zero before training."""

    def __init__(self, config: MLPConfig, spec: Spec, channels_out: int):
        super().__init__()
        channels, height, width = shape_of_picture(spec)
        self.shape_out = (channels_out, height, width)
        widths = [(channels + picture_channels(spec.given)) * height * width, *config.hidden]
        self.conditioning = Conditioning(spec.given, config.n_embd)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.embed = nn.ModuleList(nn.Linear(config.n_embd, width, bias=False) for width in config.hidden)
        self.last = nn.Linear(widths[-1], math.prod(self.shape_out))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n channels_out h w"]:
        embedding = self.conditioning(t, given)
        h = self.conditioning.given.over(x_t, given).flatten(1)
        for layer, embed in zip(self.layers, self.embed, strict=True):
            h = F.silu(layer(h) + embed(embedding))
        return self.last(h).unflatten(1, self.shape_out)


def _layers(widths: list[int], norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers.append(nn.Linear(a, b, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(b))
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers)
