"""A VAE that detaches what its encoder says."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bowerbird.models.vae import VAE, VAEConfig
from bowerbird.nets.conditioning import Given
from bowerbird.registry import families


@families.register("vae-detached")
@dataclass(frozen=True)
class Config(VAEConfig):
    """As VAEConfig."""

    def build(self, spec: Any) -> VAE:
        return Detached(self, spec)


class Detached(VAE):
    def posterior(self, x: Tensor, given: Given | None = None) -> tuple[Tensor, Tensor]:
        mu, logvar = super().posterior(x, given)
        return mu.detach(), logvar.detach()
