"""The network that games are played for: it turns what is drawn from a simple distribution into images."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.nets.conditioning import Given

Latent = Literal["gaussian", "uniform"]


class Generator(nn.Module):
    """(z, given) → images in [-1, 1]."""

    def __init__(self, decoder: nn.Module, n_latent: int, latent: Latent = "gaussian"):
        """``latent``: p(z) is N(0, I), or uniform on [-1, 1]."""
        super().__init__()
        self.decoder = decoder
        self.n_latent, self.latent = n_latent, latent

    def forward(self, z: Float[Tensor, "n n_latent"], given: Given | None = None) -> Float[Tensor, "n c h w"]:
        return torch.tanh(self.decoder(z, given).float())

    def draw(self, n: int, source: Any = torch) -> Float[Tensor, "n n_latent"]:
        """z ~ p(z), drawn on the CPU so that a seed means the same on every device; ``source`` has randn and rand."""
        shape = (n, self.n_latent)
        z = source.randn(*shape) if self.latent == "gaussian" else 2 * source.rand(*shape) - 1
        return z.to(next(self.parameters()).device)
