"""NICE: an invertible network, hence exact likelihoods (Dinh, Krueger and Bengio 2015, arXiv:1410.8516).

Couplings c_1 … c_k turn an image x into independent codes z, and run backwards to draw one.  Each shifts every second
number by a function m of the others and of what is given (a label, a caption): its inverse subtracts what it added, and
no volume changes.  Only the scaling at the end changes the volume (sections 3.2 to 3.4 of the paper; log_prob in nats):

    z = exp(log_scale) ∘ c_k(… c_1(x)),     log p(x) = Σ_j log logistic(z_j) + Σ_j log_scale_j
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bowerbird.config import ModelConfig
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options
from bowerbird.nets.conditioning import Given, for_decoder
from bowerbird.registry import families
from bowerbird.samplers.density import of_bytes
from bowerbird.spec import Spec, Tensors


@dataclass(frozen=True)
class NICEOptions(Options):
    """Each field is a flag of `bowerbird sample` and `bowerbird measure`, such as --spread."""

    spread: float | None = None
    """Spread of the codes that are sampled: 1 is the model itself, less gives cleaner, less varied images."""

    def __post_init__(self) -> None:
        if self.spread is not None and self.spread <= 0:
            raise ValueError(f"spread = {self.spread} must be above 0.")


@families.register("nice")
@dataclass(frozen=True)
class NICEConfig(ModelConfig):
    """Each field is a key of [model] and a flag, such as --model.n-hidden."""

    n_couplings: int = 4
    n_hidden: int = 512
    spread: float = 0.6
    """Spread of the codes unless a call says otherwise."""

    def build(self, spec: Spec) -> "NICE":
        return NICE(self, spec)


class Bijection(nn.Module):
    """(z, given) → x, the direction whose calls are the cost of sampling; ``codes`` is its inverse."""

    UNIT = 10  # of log_scale: its optimum is near log 255, which Adam would need thousands of steps to reach

    def __init__(self, config: NICEConfig, spec: Spec, n: int):
        super().__init__()
        hidden = config.n_hidden
        self.scale = nn.Parameter(torch.zeros(n))
        self.given = for_decoder(spec.given, hidden, config)
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

    def coupling(self, h: Tensor, k: int, given: Given | None, sign: int) -> Tensor:
        """c_k for sign = 1, its inverse for sign = -1."""
        hidden = self.read[k](h[:, k % 2 :: 2])
        if self.given:
            hidden = hidden + self.given(given, len(h))
        h = h.clone()
        h[:, (k + 1) % 2 :: 2] += sign * self.write[k](hidden)
        return h

    def codes(self, x: Tensor, given: Given | None) -> Tensor:
        for k in range(len(self.read)):
            x = self.coupling(x, k, given, 1)
        return x * self.log_scale.exp()

    def forward(self, z: Tensor, given: Given | None) -> Tensor:
        x = z * (-self.log_scale).exp()
        for k in reversed(range(len(self.read))):
            x = self.coupling(x, k, given, -1)
        return x


class NICE(GenerativeModel):
    """One player, one loss.  Its other members make it an ``Encodes`` and a ``Scores`` too."""

    Options = NICEOptions

    def __init__(self, config: NICEConfig, spec: Spec):
        super().__init__()
        self.config, self.spec, self.target = config, spec, spec.needs(Tensors, "nice")
        self.f = Bijection(config, spec, self.target.dims)

    @property
    def sampling_network(self) -> nn.Module:
        return self.f

    def losses(self, batch: Batch) -> Iterator[Loss]:
        nll = -self.log_prob(batch).mean() / self.target.dims
        yield Loss("model", nll, {"bits_per_dim": nll.detach() / math.log(2)})

    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: Given | None = None,
        options: NICEOptions | None = None,
        generator: Draws | None = None,
    ) -> Tensor:
        o, draws = options or NICEOptions(), generator or fresh()
        asked = self.requested(n, given, draws)
        u = draws.rand(n, self.target.dims).clamp(1e-6, 1 - 1e-6)
        spread = self.config.spread if o.spread is None else o.spread
        return self.decode(spread * u.logit().to(self.device), asked)  # logit of uniform is logistic

    def encode(self, x: Tensor, given: Given | None = None) -> Tensor:
        return self.f.codes(x.flatten(1), given)

    def decode(self, z: Tensor, given: Given | None = None) -> Tensor:
        return self.f(z, given).unflatten(1, self.target.shape).clamp(-1, 1)

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator("change of variables, uniform dequantisation", self.log_prob)}

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """A stochastic lower bound for 8-bit images: each value is spread evenly over its bin of width 2/255."""
        return of_bytes(partial(self.log_density, given=batch.given), batch.x, generator)

    def log_density(self, x: Tensor, given: Given | None = None) -> Tensor:
        """log p(x), exact."""
        z = self.encode(x, given).float()
        return (logsigmoid(z) + logsigmoid(-z) + self.f.log_scale).sum(1)
