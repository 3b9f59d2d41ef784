"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): training a small correction to frozen weights.

    y = W x + b + (alpha / rank) · B A x,       A: (rank, in),   B: (out, rank)                       equation 3

A starts random and B at zero, so that the adapted network starts as the original.  ``merged`` adds the correction
to W, which gives an ordinary network again.

Frozen weights become buffers: they move and are saved with the model, but no optimiser, gradient or average sees them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Positive, Whole, check

ADAPTERS = ("lora_A", "lora_B")


@dataclass(frozen=True)
class LoRAConfig:
    """Which layers are adapted, and how much."""

    rank: Whole = 0
    """Rank of the correction (0: none, all weights are trained)."""
    alpha: Positive = 16.0
    """The correction is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("qkv", "out", "up", "down")
    """Which linear layers: those whose dotted name has one of these as a part or as parts, such as "attention.qkv"; by
    default all that a Transformer's blocks have."""

    def __post_init__(self) -> None:
        check(self, "lora.")


class AdaptedLinear(nn.Module):
    """A linear layer with frozen weights and a trainable correction."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        self.register_buffer("weight", linear.weight.detach())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.lora_A = nn.Parameter(torch.randn(rank, linear.in_features) * linear.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Float[Tensor, "*n n_in"]) -> Float[Tensor, "*n n_out"]:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def merged(self) -> Float[Tensor, "n_out n_in"]:
        """W + (alpha / rank) B A."""
        return self.weight + (self.lora_B @ self.lora_A) * self.scale


def adapt(net: nn.Module, config: LoRAConfig) -> None:
    """Replaces the target layers of ``net`` by adapted ones and freezes everything else, in place."""
    linear = {name: module for name, module in net.named_modules() if type(module) is nn.Linear}
    chosen = [name for name in linear if any(f".{target}." in f".{name}." for target in config.targets)]
    if not chosen:
        raise BowerbirdError(
            f"model.lora.targets = {', '.join(config.targets)} names no linear layer of this net; it has "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in linear}))}."
        )
    for name in chosen:
        parent, _, own = name.rpartition(".")
        setattr(net.get_submodule(parent), own, AdaptedLinear(linear[name], config.rank, config.alpha))
    freeze(net)


def freeze(net: nn.Module) -> None:
    """Makes a buffer of every parameter that is not an adapter's, in place."""
    for module in net.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if name not in ADAPTERS:
                p.requires_grad_(False)  # for modules that keep a list of their own, as nn.LSTM does
                delattr(module, name)
                module.register_buffer(name, p.detach())


def adapters(model: nn.Module) -> dict[str, Tensor]:
    """The trained part of the model's state, by the names of ``state_dict``."""
    return {name: value for name, value in model.state_dict().items() if name.rpartition(".")[2] in ADAPTERS}


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the same model without adapters: the corrections are added to the weights that they adapt."""
    state = {name: value for name, value in model.state_dict().items() if name.rpartition(".")[2] not in ADAPTERS}
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            state[f"{name}.weight"] = module.merged()
    return state
