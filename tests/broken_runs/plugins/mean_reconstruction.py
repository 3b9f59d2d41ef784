"""A VAE with the reconstruction averaged over pixels (reduction="mean") and the KL summed over dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bowerbird.models.base import Batch, Loss
from bowerbird.models.vae import VAE, VAEConfig, kl_to_standard_normal, reparameterised
from bowerbird.registry import families


@families.register("vae-mean")
@dataclass(frozen=True)
class Config(VAEConfig):
    """As VAEConfig."""

    def build(self, spec: Any) -> VAE:
        return MeanReconstruction(self, spec)


class MeanReconstruction(VAE):
    def losses(self, batch: Batch) -> Iterator[Loss]:
        mu, logvar = self.posterior(batch.x, batch.given)
        z = reparameterised(mu, logvar, torch.randn(mu.shape))
        nll = -self.likelihood.objective(batch.x, self.decoder(z, batch.given).float(), self.log_scale).mean()
        kl = kl_to_standard_normal(mu, logvar)
        yield Loss("model", nll + kl.sum(1).mean(), self.logs(nll.detach(), kl.detach().mean(0)))
