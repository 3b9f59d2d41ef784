"""What a denoiser is told beside x_t: the noise level t and the label, as one vector per example.

``t`` is a real number per example, whatever the family feeds (a time in [0, 1], or EDM's ln σ / 4).  It is expanded
into sines and cosines of geometrically spaced frequencies, so that a linear layer can see both coarse and fine
differences of t.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bowerbird.nets.base import LabelEmbedding

N_FREQUENCIES = 32
HIGHEST_FREQUENCY = 100.0
"""In radians per unit of t: two of 1000 steps in [0, 1] still differ by 0.1 rad, and the network stays smooth in t."""


def fourier_features(t: Float[Tensor, " n"]) -> Float[Tensor, "n features"]:
    """(cos ω_k t, sin ω_k t) for ω_k = 100^(k/31), k = 0…31 (Vaswani et al. 2017, section 3.5, with other ω)."""
    exponent = torch.linspace(0, math.log(HIGHEST_FREQUENCY), N_FREQUENCIES, device=t.device)
    angle = t.float()[:, None] * exponent.exp()
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Conditioning(nn.Module):
    """(t, label) → vector of ``n_embd`` numbers, after a non-linearity, from which layers take scales and shifts."""

    def __init__(self, n_classes: int, n_embd: int):
        super().__init__()
        self.time = nn.Linear(2 * N_FREQUENCIES, n_embd)
        self.label = LabelEmbedding(n_classes, n_embd) if n_classes else None
        self.mix = nn.Linear(n_embd, n_embd)

    def forward(self, t: Float[Tensor, " n"], label: Int64[Tensor, " n"] | None) -> Float[Tensor, "n n_embd"]:
        h = self.time(fourier_features(t))
        if self.label is not None:
            h = h + self.label(label, len(t))
        return F.silu(self.mix(F.silu(h)))


class Head(nn.Module):
    """Features of an image, and its label, → ``n_out`` numbers: the end of every encoder.

    With one output it is the projection discriminator of Miyato & Koyama (2018), eq. 3, φ being the hidden layer:

        logit = w·φ + b + ⟨embedding(label), φ⟩ / √n_hidden        (the root, which they lack, keeps both terms alike)

    With several, the embedding is added to the hidden layer before its non-linearity.
    """

    def __init__(self, n_in: int, n_hidden: int, n_out: int, n_classes: int):
        super().__init__()
        self.hidden = nn.Linear(n_in, n_hidden)
        self.label = LabelEmbedding(n_classes, n_hidden) if n_classes else None
        self.out = nn.Linear(n_hidden, n_out)

    def forward(self, h: Float[Tensor, "n n_in"], label: Int64[Tensor, " n"] | None) -> Float[Tensor, "n n_out"]:
        h = self.hidden(h)
        if self.label is None:
            return self.out(F.leaky_relu(h, 0.2))
        embedding = self.label(label, len(h))
        if self.out.out_features > 1:
            return self.out(F.leaky_relu(h + embedding, 0.2))
        phi = F.leaky_relu(h, 0.2)
        return self.out(phi) + (embedding * phi).sum(1, keepdim=True) * phi.shape[1] ** -0.5
