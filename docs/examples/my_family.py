"""NICE: an invertible network with an exact likelihood (Dinh, Krueger and Bengio 2015, arXiv:1410.8516).

Coupling layers turn an image x into codes z that are independent of each other, and run backwards to draw one.  Each
moves one half of the numbers by a function m of the other half and of the label, so its inverse subtracts instead of
adding and its volume change is 1; only the last scaling changes the volume (equations 10, 12 and 13):

    z = exp(log_scale) ∘ c_k(… c_1(x)),     log p(x) = Σ_j log logistic(z_j) + Σ_j log_scale_j      in nats
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from bowerbird.config import ModelConfig
from bowerbird.models.base import Batch, GenerativeModel, Loss
from bowerbird.models.conditioning import labels_for
from bowerbird.nets.base import LabelEmbedding
from bowerbird.registry import families

BIN = 2 / 255  # pixel values lie this far apart


@families.register("nice")
@dataclass(frozen=True)
class NICEConfig(ModelConfig):
    """Hyperparameters of NICE: fields become keys of [model] and flags such as --model.n-hidden."""

    n_couplings: int = 4
    n_hidden: int = 512
    temperature: float = 0.7
    """Width of the codes that samples are drawn from: 1 is the model itself, less gives cleaner images."""

    def build(self, spec: Any) -> "NICE":
        return NICE(self, spec)


class Bijection(nn.Module):
    """f: x → z, and (as the module's call) its inverse."""

    def __init__(self, config: NICEConfig, spec: Any):
        super().__init__()
        n, hidden = spec.dims, config.n_hidden
        self.label = LabelEmbedding(spec.n_classes, 32) if spec.n_classes else None
        self.log_scale = nn.Parameter(torch.zeros(n))
        self.couplings = nn.ModuleList()
        for k in range(config.n_couplings):
            moved = (n + k) // 2 
            ...
