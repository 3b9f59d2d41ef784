"""A generator whose latent code is multiplied by a hundredth: every image is the same."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bowerbird.models.gan import GAN, GANConfig
from bowerbird.registry import families


@families.register("gan-latent-ignored")
@dataclass(frozen=True)
class Config(GANConfig):
    """As GANConfig."""

    def build(self, spec: Any) -> GAN:
        return LatentIgnored(self, spec)


class LatentIgnored(GAN):
    def draw_latents(self, *args: Any, **kwargs: Any) -> Tensor:
        return 0.01 * super().draw_latents(*args, **kwargs)
