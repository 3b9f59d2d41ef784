"""Checks of the exercises on variational autoencoders and discrete codes."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import distributions as dist

from bowerbird.reading.learn.checks import Observation, checks


@checks("gaussian-kl")
def gaussian_kl(answer: Any) -> Iterator[Observation]:
    mu, logvar = torch.meshgrid(torch.linspace(-3, 3, 13), torch.linspace(-4, 3, 15), indexing="ij")
    mu, logvar = mu.reshape(-1, 1), logvar.reshape(-1, 1)
    standard = dist.Normal(torch.zeros(()), torch.ones(()))
    wanted = dist.kl_divergence(dist.Normal(mu, (logvar / 2).exp()), standard)
    got = answer.kl(mu, logvar)
    shape = tuple(getattr(got, "shape", ()))
    yield Observation(
        shape == (len(mu),),
        f"For mu of shape {tuple(mu.shape)} the result has shape {shape}; it should be ({len(mu)},).",
        f"mu 形状为 {tuple(mu.shape)} 时结果形状是 {shape}；应为 ({len(mu)},)。",
    )
    error = (torch.as_tensor(got) - wanted.squeeze(1)).abs().max().item()
    yield Observation(
        error < 1e-4,
        f"On a grid of {len(mu)} pairs the result is off by up to {error:.3g} nats from torch.distributions.",
        f"在 {len(mu)} 个格点上，与 torch.distributions 最多相差 {error:.3g} nats。",
    )
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    wanted = dist.kl_divergence(dist.Normal(mu, (logvar / 2).exp()), standard).sum(1)
    got = torch.as_tensor(answer.kl(mu, logvar))
    off = (got - wanted).abs().max().item()
    yield Observation(
        off < 1e-4,
        f"With 7 latent dimensions the result is off by up to {off:.3g} nats.",
        f"隐变量 7 维时，结果最多相差 {off:.3g} nats。",
    )
    own = inspect.getsource(answer.kl)
    borrowed = "distributions" in own or "kl_divergence" in own
    yield Observation(
        not borrowed,
        f"Calls torch.distributions: {borrowed}; the derivation should be yours.",
        f"调用了 torch.distributions：{'是' if borrowed else '否'}；请自己推导。",
    )


@checks("reparameterise")
def reparameterise(answer: Any) -> Iterator[Observation]:
    n = 40_000
    mu, logvar = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([-1.5, 0.0, 1.2])
    leaves = [value.expand(n, 3).clone().requires_grad_() for value in (mu, logvar)]
    z = answer.reparameterise(*leaves)
    bias = (z.detach().mean(0) - mu).abs().max().item()
    ratio = z.detach().var(0) / logvar.exp()
    yield Observation(
        bias < 0.06,
        f"The mean of z is off by up to {bias:.3g}; it should be mu.",
        f"z 的均值最多偏 {bias:.3g}；应为 mu。",
    )
    worst = ratio[(ratio.log().abs()).argmax()].item()
    yield Observation(
        abs(worst - 1) < 0.06,
        f"The variance of z is {worst:.3g} times exp(logvar); it should be 1 times.",
        f"z 的方差是 exp(logvar) 的 {worst:.3g} 倍；应为 1 倍。",
    )
    gradients = torch.autograd.grad(z.square().sum(), leaves, allow_unused=True) if z.requires_grad else (None, None)
    for name, gradient in zip(("mu", "logvar"), gradients, strict=True):
        norm = 0.0 if gradient is None else gradient.norm().item()
        yield Observation(
            norm > 0,
            f"The gradient that reaches {name} has norm {norm:.3g}; it should not be 0.",
            f"到达 {name} 的梯度范数为 {norm:.3g}；不应为 0。",
        )


@checks("elbo-reductions")
def elbo_reductions(answer: Any) -> Iterator[Observation]:
    x, logits, mu, logvar = torch.rand(4, 1, 6, 6), torch.randn(4, 1, 6, 6), torch.randn(4, 3), torch.randn(4, 3)
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean().item()
    kl = ((mu**2 + logvar.exp() - logvar - 1) / 2).sum(1).mean().item()
    value = float(answer.negative_elbo(x, logits, mu, logvar))
    doubled = float(answer.negative_elbo(*(torch.cat([part, part]) for part in (x, logits, mu, logvar))))
    yield Observation(
        abs(doubled - value) < 1e-3 * abs(value),
        f"Repeating the batch changed the value from {value:.4g} to {doubled:.4g}; it should stay.",
        f"把整批重复一遍，值从 {value:.4g} 变成 {doubled:.4g}；应当不变。",
    )
    slope = float(answer.negative_elbo(x, logits, mu, logvar, 2.0)) - value
    yield Observation(
        abs(slope - kl) < 1e-3 * kl,
        f"Raising β from 1 to 2 adds {slope:.4g}; the KL of these images is {kl:.4g} nats per image.",
        f"β 从 1 增到 2，值增加 {slope:.4g}；这些图像的 KL 是每张 {kl:.4g} nats。",
    )
    rest = value - slope
    yield Observation(
        abs(rest - nll) < 1e-3 * nll,
        f"Without the KL {rest:.4g} remains; −log p(x|z) of these images is {nll:.4g} nats per image.",
        f"除去 KL 还剩 {rest:.4g}；这些图像的 −log p(x|z) 是每张 {nll:.4g} nats。",
    )


@checks("straight-through")
def straight_through(answer: Any) -> Iterator[Observation]:
    z, codebook = torch.randn(8, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    z_q, codes, commitment = answer.quantise(z, codebook)
    nearest = codebook.detach()[torch.cdist(z.detach(), codebook.detach()).argmin(1)]
    apart = (z_q.detach() - nearest).abs().max().item()
    yield Observation(
        apart < 1e-5,
        f"z_q is off the nearest codes by up to {apart:.3g}.",
        f"z_q 与最近的码最多相差 {apart:.3g}。",
    )
    direction = torch.randn(8, 4)
    (arrived,) = torch.autograd.grad((z_q * direction).sum(), z, allow_unused=True, retain_graph=True)
    error = (direction if arrived is None else direction - arrived).norm().item()
    yield Observation(
        error < 1e-5,
        f"Of a gradient of norm {direction.norm():.3g} at z_q, {error:.3g} is lost or changed on the way to z.",
        f"z_q 处范数为 {direction.norm():.3g} 的梯度，到达 z 时有 {error:.3g} 丢失或改变。",
    )
    for name, loss, moves in (("codebook_loss", codes, (False, True)), ("commitment_loss", commitment, (True, False))):
        found = torch.autograd.grad(loss, (z, codebook), allow_unused=True, retain_graph=True)
        norms = [0.0 if gradient is None else gradient.norm().item() for gradient in found]
        wish_en, wish_zh = ("the codes", "码") if moves[1] else ("z", "z")
        yield Observation(
            [norm > 0 for norm in norms] == list(moves),
            f"{name} gives z a gradient of norm {norms[0]:.3g} and the codes one of {norms[1]:.3g}; "
            f"it should move {wish_en} alone.",
            f"{name} 给 z 的梯度范数是 {norms[0]:.3g}，给码的是 {norms[1]:.3g}；它应当只移动{wish_zh}。",
        )


@checks("latent-units")
def latent_units(answer: Any) -> Iterator[Observation]:
    spread, noise = torch.tensor([1.0, 1.0, 3.0]).view(3, 1, 1), torch.tensor([0.02, 0.4, 0.4]).view(3, 1, 1)
    mu = spread * torch.randn(64, 3, 4, 4)
    logvar = 2 * noise.log() + torch.randn(64, 3, 4, 4)
    z, unit = answer.in_units(mu.clone(), logvar.clone())
    shape = tuple(unit.shape)
    yield Observation(
        shape == (3, 1, 1),
        f"For codes of 3 features the unit has shape {shape}; it should be (3, 1, 1).",
        f"编码有 3 个特征时，unit 的形状是 {shape}；应为 (3, 1, 1)。",
    )
    size = z.square().mean().item()
    yield Observation(
        abs(size - 1) < 1e-3, f"The mean of z² is {size:.3g}; it should be 1.", f"z² 的均值是 {size:.3g}；应为 1。"
    )
    error = (z * unit - mu).abs().max().item()
    yield Observation(
        error < 1e-4,
        f"z · unit is off mu by up to {error:.3g}; decoding would begin from something else.",
        f"z · unit 与 mu 最多相差 {error:.3g}；解码的起点就变了。",
    )
    ratio, wanted = (unit[1] / unit[0]).item(), ((logvar[:, 1] - logvar[:, 0]).mean() / 2).exp().item()
    yield Observation(
        abs(ratio / wanted - 1) < 1e-3,
        f"The noise of two features differs by a factor of {wanted:.4g} (geometric mean), their units by {ratio:.4g}.",
        f"两个特征的噪声相差 {wanted:.4g} 倍（几何平均），它们的单位却相差 {ratio:.4g} 倍。",
    )
