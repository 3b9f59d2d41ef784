r"""A U-Net that begins with a draft of flat layers, drawn from what is given alone.

What is given scales and shifts a U-Net's features, alike at every position, so that from pure noise it cannot know
where anything belongs.  Here what is given first draws a picture of K layers, whose shares m and colours c are at p

    draft(p) = Σ_k m_k(p) c_k,      m(p) = softmax_k (W e)_k(p),      c = C e,      e = Σ_fields embedding(given)

and the U-Net sees the draft beside x_t; what it answers is added to it.  Shapes and colours multiply, so those that
training never showed together can be drawn together.  The draft has nothing to do with noise and is learnt like a
regression of x_0, so ``prediction = "x0"`` suits it.  A position p is a patch of the U-Net, c_k the pixels of one.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import Conditioner, Given
from bowerbird.nets.patches import from_patches
from bowerbird.nets.unet import UNet, UNetConfig
from bowerbird.ranges import Count
from bowerbird.registry import nets
from bowerbird.spec import Spec, Tensors, shape_of_picture

DRAFT = "draft"
"""The name under which the U-Net is given the draft."""


@nets.register("layered")
@dataclass(frozen=True)
class LayeredConfig(UNetConfig):
    """A U-Net's hyperparameters, and the number of layers of its draft."""

    layers: Count = 16
    """Layers of the draft."""

    def denoiser(self, spec: Spec, channels_out: int) -> nn.Module:
        config = self.for_side(max(shape_of_picture(spec)[1:]))
        assert isinstance(config, LayeredConfig)
        return LayeredUNet(config, spec, channels_out)


class LayeredUNet(nn.Module):
    """(x_t, t, given) → an image of the same size with ``channels_out`` channels.  All zero before training."""

    def __init__(self, config: LayeredConfig, spec: Spec, channels_out: int):
        super().__init__()
        self.draft = Layers(config, spec)
        shape = shape_of_picture(spec)
        self.unet = UNet(config, replace(spec, given={**spec.given, DRAFT: Tensors(shape)}), channels_out)

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"], given: Given | None = None
    ) -> Float[Tensor, "n channels_out h w"]:
        draft = self.draft(given, len(x_t)).to(x_t)
        answer = self.unet(x_t, t, {**(given or {}), DRAFT: draft})
        drafted = draft.shape[1]  # of further channels, such as a learned variance, there is no draft
        return torch.cat([answer[:, :drafted] + draft, answer[:, drafted:]], 1)


class Layers(nn.Module):
    """What is given → a picture of the data's size.  All zero before training."""

    def __init__(self, config: LayeredConfig, spec: Spec):
        super().__init__()
        self.channels, self.height, self.width = shape_of_picture(spec)
        self.patch = config.patch
        self.grid = (-(-self.height // self.patch), -(-self.width // self.patch))
        self.n_embd = 4 * config.channels
        self.given = Conditioner(spec.given, self.n_embd)
        if not self.given:
            raise BowerbirdError(
                "The net layered draws its draft from labels or attributes, and none are given; choose the net unet."
            )
        self.shares = nn.Linear(self.n_embd, config.layers * self.grid[0] * self.grid[1])
        self.colours = nn.Linear(self.n_embd, config.layers * self.channels * self.patch**2)
        nn.init.zeros_(self.colours.weight)
        nn.init.zeros_(self.colours.bias)

    def forward(self, given: Given | None, n: int) -> Float[Tensor, "n c h w"]:
        told = self.given(given, n)
        colours = self.colours(told).unflatten(1, (-1, self.patch**2 * self.channels))
        shares = self.shares(told).unflatten(1, (colours.shape[1], -1)).softmax(1)
        grid = torch.einsum("nkp,nkc->ncp", shares.to(colours), colours).unflatten(2, self.grid)
        return from_patches(grid, self.patch, self.height, self.width)
