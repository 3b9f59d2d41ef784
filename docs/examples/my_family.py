"""NICE: an invertible network, hence exact likelihoods (Dinh, Krueger and Bengio 2015, arXiv:1410.8516).

Couplings c_1 … c_k turn an image x into independent codes z, and run backwards to draw one.  Each shifts every second
number by a function m of the others and of the label: its inverse subtracts what it added, and no volume changes.
Only the scaling at the end changes the volume (sections 3.2 to 3.4 of the paper; log_prob in nats):

    z = exp(log_scale) ∘ c_k(… c_1(x)),     log p(x) = Σ_j log logistic(z_j) + Σ_j log_scale_j
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bowerbird.config import ModelConfig
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.conditioning import labels_for
from bowerbird.nets.base import LabelEmbedding
from bowerbird.registry import families


@families.register("nice")
@dataclass(frozen=True)
class NICEConfig(ModelConfig):
    """Each field is a key of [model] and a flag, such as --model.n-hidden."""

    n_couplings: int = 4
    n_hidden: int = 512
    temperature: float = 0.6
    """Spread of the codes that are sampled: 1 is the model itself, less gives cleaner, less varied images."""

    def build(self, spec: Any) -> "NICE":
        return NICE(self, spec)


class Bijection(nn.Module):
    """(z, label) → x, the direction whose calls are the cost of sampling; ``codes`` is its inverse."""

    UNIT = 10  # of log_scale: its optimum is near log 255, which Adam would need thousands of steps to reach

    def __init__(self, config: NICEConfig, spec: Any):
        super().__init__()
        n, hidden = spec.dims, config.n_hidden
        self.scale = nn.Parameter(torch.zeros(n))
        self.label = LabelEmbedding(spec.n_classes, hidden) if spec.n_classes else None
        kept = [len(range(k % 2, n, 2)) for k in range(config.n_couplings)]
        self.read = nn.ModuleList(nn.Linear(a, hidden) for a in kept)
        self.write = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, n - a)) for a in kept
        )
        for m in self.write:
            nn.init.zeros_(m[-1].weight)  # every coupling starts as a constant shift

    @property
    def log_scale(self) -> Tensor:
        return self.UNIT * self.scale

    def coupling(self, h: Tensor, k: int, label: Tensor | None, sign: int) -> Tensor:
        """c_k for sign = 1, its inverse for sign = -1."""
        hidden = self.read[k](h[:, k % 2 :: 2])
        if self.label is not None:
            hidden = hidden + self.label(label, len(h))
        h = h.clone()
        h[:, (k + 1) % 2 :: 2] += sign * self.write[k](hidden)
        return h

    def codes(self, x: Tensor, label: Tensor | None) -> Tensor:
        for k in range(len(self.read)):
            x = self.coupling(x, k, label, 1)
        return x * self.log_scale.exp()

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        x = z * (-self.log_scale).exp()
        for k in reversed(range(len(self.read))):
            x = self.coupling(x, k, label, -1)
        return x


class NICE(GenerativeModel):
    """One player, one loss.  Its other members make it an ``Encodes`` and a ``Scores`` too."""

    estimator = "change of variables, uniform dequantisation"

    def __init__(self, config: NICEConfig, spec: Any):
        super().__init__()
        self.config, self.spec, self.n_classes = config, spec, spec.n_classes
        self.f = Bijection(config, spec)

    @property
    def sampling_network(self) -> nn.Module:
        return self.f

    def losses(self, batch: Batch) -> Iterator[Loss]:
        nll = -self.log_prob(batch.x, batch.label).mean() / self.spec.dims
        yield Loss("model", nll, {"bits_per_dim": nll.detach() / math.log(2)})

    @torch.no_grad()
    def sample(self, n: int, *, cond: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        label = labels_for(n, cond, self.spec, self.n_classes, generator)
        u = torch.rand(n, self.spec.dims, generator=generator).clamp(1e-6, 1 - 1e-6)
        z = self.config.temperature * u.logit().to(self.device)  # logit of uniform is logistic
        return self.decode(z, None if label is None else label.to(self.device))

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.f.codes(x.flatten(1), label)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.f(z, label).unflatten(1, self.spec.shape).clamp(-1, 1)

    def log_prob(self, x: Tensor, label: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """A stochastic lower bound for 8-bit images: each value is spread evenly over its bin of width 2/255."""
        u = torch.rand(x.shape, generator=generator).to(x) - 0.5
        return self.log_density(x + u * (2 / 255), label) + self.spec.dims * math.log(2 / 255)

    def log_density(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """log p(x), exact."""
        z = self.encode(x, label).float()
        return (logsigmoid(z) + logsigmoid(-z) + self.f.log_scale).sum(1)
