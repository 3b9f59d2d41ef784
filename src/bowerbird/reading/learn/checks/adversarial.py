"""Checks of the exercises on adversarial training."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bowerbird.reading.learn.checks import Observation, checks


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
    yield Observation(
        moved > 1e-6,
        f"One step changed the generator's weights by {moved:.3g} in all; they should move.",
        f"一步之后生成器权重总共变了 {moved:.3g}；它们应当移动。",
    )
    with torch.no_grad():
        gap = ((D(real).mean() - D(G_before(z)).mean()) - (D_before(real).mean() - D_before(G_before(z)).mean())).item()
        gain = (D(G(z)).mean() - D(G_before(z)).mean()).item()
    yield Observation(
        gap > 1e-6,
        f"The critic's step changed D(real) − D(fake) by {gap:+.3g}; it should grow.",
        f"判别器这一步使 D(真) − D(假) 变化 {gap:+.3g}；它应当变大。",
    )
    yield Observation(
        gain > 1e-7,
        f"On the updated, frozen D, the generator's step changed the mean of D(G(z)) by {gain:+.3g}; it should rise.",
        f"在更新后并冻结的 D 上，生成器这一步使 D(G(z)) 的均值变化 {gain:+.3g}；它应当上升。",
    )
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
    yield Observation(
        apart < 1e-5,
        f"Gradients that were left over from before changed the step by {apart:.3g}; they should change nothing.",
        f"之前残留的梯度使这一步变化了 {apart:.3g}；它们不应有任何影响。",
    )


@checks("critic-signs")
def critic_signs(answer: Any) -> Iterator[Observation]:
    real, fake = torch.zeros(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    answer.critic_loss(real, fake).backward()
    for scores, wish, en, zh in ((real, 1, "real images", "真图"), (fake, -1, "generated images", "生成图")):
        step = -scores.grad.mean().item() if scores.grad is not None else 0.0
        yield Observation(
            step * wish > 0,
            f"A step down the critic's loss moves the scores of {en} by {step:+.3g}; "
            f"they should {'rise' if wish > 0 else 'fall'}.",
            f"沿 critic 损失下降一步，{zh}的分数变化 {step:+.3g}；应当{'上升' if wish > 0 else '下降'}。",
        )
    fake = torch.zeros(8, requires_grad=True)
    answer.generator_loss(fake).backward()
    step = -fake.grad.mean().item() if fake.grad is not None else 0.0
    yield Observation(
        step > 0,
        f"A step down the generator's loss moves the scores of generated images by {step:+.3g}; they should rise.",
        f"沿生成器损失下降一步，生成图的分数变化 {step:+.3g}；应当上升。",
    )


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
        yield Observation(
            abs(float(value) - expected) < 1e-3,
            f"For a critic whose gradient has length {norm:g} everywhere the penalty is {float(value):.4g}; "
            f"it should be {expected:g}.",
            f"critic 的梯度长度处处为 {norm:g} 时，惩罚是 {float(value):.4g}；应为 {expected:g}。",
        )
    eps = D.asked.flatten(1)
    within, between = eps.std(1).max().item(), eps.mean(1).std().item()
    yield Observation(
        within < 1e-6 and between > 1e-3,
        f"ε spreads by {within:.2g} within an image and by {between:.2g} between images; "
        "it should be one number per image, and another for each.",
        f"ε 在一张图内的标准差是 {within:.2g}，在图与图之间是 {between:.2g}；应当每张图一个数，各不相同。",
    )
    yield Observation(
        bool(getattr(value, "requires_grad", False)),
        "The penalty has a gradient with respect to D's weights: "
        f"{bool(getattr(value, 'requires_grad', False))}; it should.",
        f"惩罚项对 D 的权重有梯度：{bool(getattr(value, 'requires_grad', False))}；应当有。",
    )
