"""What a network can be asked to be.

Networks have no objective.  A family asks a ``NetConfig`` for a role, and the config answers with a module or says
in one sentence that this architecture cannot play it:

    denoiser(spec, channels_out)   (x_t, t, label) → (n, channels_out, h, w);  t is float (n,), label int64 (n,) or None
    encoder(spec, n_out)           (x, label)      → (n, n_out)
    decoder(spec, n_in, channels_out)  (z, label)  → (n, channels_out, h, w), no final non-linearity

``spec.n_classes`` labels are embedded in every role; the embedding has one row more, number ``n_classes``, that
means "no label" and is used for label None (classifier-free guidance trains it).  With ``n_classes == 0`` there is
no embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bowerbird import config
from bowerbird.errors import BowerbirdError


@dataclass(frozen=True)
class NetConfig(config.NetConfig):
    """Base of all networks' hyperparameters."""

    channels_last = False
    """Whether convolutions run faster with this layout in this architecture (a class attribute, measured)."""

    def denoiser(self, spec: Any, channels_out: int) -> nn.Module:
        raise self._cannot("a denoiser", "unet, dit or mlp")

    def encoder(self, spec: Any, n_out: int) -> nn.Module:
        raise self._cannot("an encoder or discriminator", "convnet or mlp")

    def decoder(self, spec: Any, n_in: int, channels_out: int) -> nn.Module:
        raise self._cannot("a decoder or generator", "convnet or mlp")

    def _cannot(self, role: str, instead: str) -> BowerbirdError:
        name = type(self).__name__.removesuffix("Config").lower()
        return BowerbirdError(f"The net {name} cannot be {role}; use {instead}.")


class LabelEmbedding(nn.Module):
    """Class number → vector, with one more row for "no label"."""

    def __init__(self, n_classes: int, n_out: int):
        super().__init__()
        self.n_classes = n_classes
        self.table = nn.Embedding(n_classes + 1, n_out)

    def forward(self, label: Tensor | None, n: int) -> Tensor:
        if label is None:
            label = torch.full((n,), self.n_classes, device=self.table.weight.device)
        return self.table(label)
