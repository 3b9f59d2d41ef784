"""A VAE whose Gaussian likelihood is kept at scale e: blurring costs nothing, so codes are worth nothing."""

from dataclasses import dataclass
from typing import Any

import torch

from bowerbird.models.vae import VAE, VAEConfig
from bowerbird.registry import families


@families.register("vae-wide")
@dataclass(frozen=True)
class Config(VAEConfig):
    """As VAEConfig."""

    def build(self, spec: Any) -> VAE:
        model = VAE(self, spec)
        del model.log_scale
        model.register_buffer("log_scale", torch.full((1,), 1.0))
        return model
