"""Checks of the exercises on adversarial training."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bowerbird.reading.learn.checks import Observation, checks, seen


def _players() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.Optimizer]:
    G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6), nn.Tanh())
    D = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    return G, D, torch.optim.SGD(G.parameters(), lr=0.05), torch.optim.SGD(D.parameters(), lr=0.05)


def _moved(before: nn.Module, after: nn.Module) -> float:
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return sum((a - b).abs().sum().item() for a, b in pairs)


@checks("mend-the-generator-step")
def generator_step(answer: Any) -> Iterator[Observation]:
    G, D, opt_G, opt_D = _players()
    real, z = torch.rand(32, 6) * 0.5 + 0.4, torch.randn(32, 4)
    G_before, D_before = copy.deepcopy(G), copy.deepcopy(D)
    answer.train_step(G, D, opt_G, opt_D, real, z)
    moved = _moved(G_before, G)
    yield seen(moved > 1e-6, "moves", moved=moved)
    with torch.no_grad():
        gap = ((D(real).mean() - D(G_before(z)).mean()) - (D_before(real).mean() - D_before(G_before(z)).mean())).item()
        gain = (D(G(z)).mean() - D(G_before(z)).mean()).item()
    yield seen(gap > 1e-6, "gap", gap=gap)
    yield seen(gain > 1e-7, "gain", gain=gain)
    yield from _steps_depend_on_nothing_old(answer, real, z)


def _steps_depend_on_nothing_old(answer: Any, real: Tensor, z: Tensor) -> Iterator[Observation]:
    """Gradients left over from before must not change the step."""
    torch.manual_seed(1)
    G, D, opt_G, opt_D = _players()
    other_G, other_D = copy.deepcopy(G), copy.deepcopy(D)
    for player in (other_G, other_D):
        for parameter in player.parameters():
            parameter.grad = torch.ones_like(parameter)
    answer.train_step(G, D, opt_G, opt_D, real, z)
    others = (torch.optim.SGD(player.parameters(), lr=0.05) for player in (other_G, other_D))
    answer.train_step(other_G, other_D, *others, real, z)
    apart = _moved(G, other_G) + _moved(D, other_D)
    yield seen(apart < 1e-5, "leftover", apart=apart)


@checks("critic-signs")
def critic_signs(answer: Any) -> Iterator[Observation]:
    real, fake = torch.zeros(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    answer.critic_loss(real, fake).backward()
    for scores, wish, whose in ((real, 1, "real"), (fake, -1, "fake")):
        step = -scores.grad.mean().item() if scores.grad is not None else 0.0
        yield seen(step * wish > 0, whose, step=step)
    fake = torch.zeros(8, requires_grad=True)
    answer.generator_loss(fake).backward()
    step = -fake.grad.mean().item() if fake.grad is not None else 0.0
    yield seen(step > 0, "generator", step=step)


class _Linear(nn.Module):
    """D(x) = <w, x>, whose gradient is w everywhere; remembers where it was asked."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        w = torch.randn(3, 4, 4)
        self.w = nn.Parameter(w * norm / w.norm())
        self.asked = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.asked = x.detach()
        return (x * self.w).flatten(1).sum(1)


@checks("gradient-penalty")
def gradient_penalty(answer: Any) -> Iterator[Observation]:
    real, fake = torch.ones(6, 3, 4, 4), torch.zeros(6, 3, 4, 4)
    for norm in (1.0, 3.0):
        D = _Linear(norm)
        value = answer.gradient_penalty(D, real, fake, 10.0)
        expected = 10 * (norm - 1) ** 2
        yield seen(abs(float(value) - expected) < 1e-3, "value", norm=norm, value=float(value), expected=expected)
    eps = D.asked.flatten(1)
    within, between = eps.std(1).max().item(), eps.mean(1).std().item()
    yield seen(within < 1e-6 and between > 1e-3, "epsilon", within=within, between=between)
    yield seen(
        bool(getattr(value, "requires_grad", False)), "gradient", has=bool(getattr(value, "requires_grad", False))
    )
