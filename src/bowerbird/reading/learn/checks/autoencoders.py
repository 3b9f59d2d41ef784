"""Checks of the exercises on variational autoencoders and discrete codes."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import distributions as dist

from bowerbird.reading.learn.checks import Observation, checks, seen


@checks("gaussian-kl")
def gaussian_kl(answer: Any) -> Iterator[Observation]:
    mu, logvar = torch.meshgrid(torch.linspace(-3, 3, 13), torch.linspace(-4, 3, 15), indexing="ij")
    mu, logvar = mu.reshape(-1, 1), logvar.reshape(-1, 1)
    standard = dist.Normal(torch.zeros(()), torch.ones(()))
    wanted = dist.kl_divergence(dist.Normal(mu, (logvar / 2).exp()), standard)
    got = answer.kl(mu, logvar)
    shape = tuple(getattr(got, "shape", ()))
    yield seen(shape == (len(mu),), "shape", found=tuple(mu.shape), shape=shape, n=len(mu))
    error = (torch.as_tensor(got) - wanted.squeeze(1)).abs().max().item()
    yield seen(error < 1e-4, "value", n=len(mu), error=error)
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    wanted = dist.kl_divergence(dist.Normal(mu, (logvar / 2).exp()), standard).sum(1)
    got = torch.as_tensor(answer.kl(mu, logvar))
    off = (got - wanted).abs().max().item()
    yield seen(off < 1e-4, "gradient", off=off)
    own = inspect.getsource(answer.kl)
    borrowed = "distributions" in own or "kl_divergence" in own
    yield seen(not borrowed, "borrowed", borrowed=borrowed)


@checks("reparameterise")
def reparameterise(answer: Any) -> Iterator[Observation]:
    n = 40_000
    mu, logvar = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([-1.5, 0.0, 1.2])
    leaves = [value.expand(n, 3).clone().requires_grad_() for value in (mu, logvar)]
    z = answer.reparameterise(*leaves)
    bias = (z.detach().mean(0) - mu).abs().max().item()
    ratio = z.detach().var(0) / logvar.exp()
    yield seen(bias < 0.06, "mean", bias=bias)
    worst = ratio[(ratio.log().abs()).argmax()].item()
    yield seen(abs(worst - 1) < 0.06, "variance", worst=worst)
    gradients = torch.autograd.grad(z.square().sum(), leaves, allow_unused=True) if z.requires_grad else (None, None)
    for name, gradient in zip(("mu", "logvar"), gradients, strict=True):
        norm = 0.0 if gradient is None else gradient.norm().item()
        yield seen(norm > 0, "gradient", name=name, norm=norm)


@checks("elbo-reductions")
def elbo_reductions(answer: Any) -> Iterator[Observation]:
    x, logits, mu, logvar = torch.rand(4, 1, 6, 6), torch.randn(4, 1, 6, 6), torch.randn(4, 3), torch.randn(4, 3)
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean().item()
    kl = ((mu**2 + logvar.exp() - logvar - 1) / 2).sum(1).mean().item()
    value = float(answer.negative_elbo(x, logits, mu, logvar))
    doubled = float(answer.negative_elbo(*(torch.cat([part, part]) for part in (x, logits, mu, logvar))))
    yield seen(abs(doubled - value) < 1e-3 * abs(value), "repeated", value=value, doubled=doubled)
    slope = float(answer.negative_elbo(x, logits, mu, logvar, 2.0)) - value
    yield seen(abs(slope - kl) < 1e-3 * kl, "beta", slope=slope, kl=kl)
    rest = value - slope
    yield seen(abs(rest - nll) < 1e-3 * nll, "likelihood", rest=rest, nll=nll)


@checks("straight-through")
def straight_through(answer: Any) -> Iterator[Observation]:
    z, codebook = torch.randn(8, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    z_q, codes, commitment = answer.quantise(z, codebook)
    nearest = codebook.detach()[torch.cdist(z.detach(), codebook.detach()).argmin(1)]
    apart = (z_q.detach() - nearest).abs().max().item()
    yield seen(apart < 1e-5, "nearest", apart=apart)
    direction = torch.randn(8, 4)
    (arrived,) = torch.autograd.grad((z_q * direction).sum(), z, allow_unused=True, retain_graph=True)
    error = (direction if arrived is None else direction - arrived).norm().item()
    yield seen(error < 1e-5, "passes", norm=direction.norm(), error=error)
    for name, loss, moves in (("codebook_loss", codes, (False, True)), ("commitment_loss", commitment, (True, False))):
        found = torch.autograd.grad(loss, (z, codebook), allow_unused=True, retain_graph=True)
        norms = [0.0 if gradient is None else gradient.norm().item() for gradient in found]
        yield seen([norm > 0 for norm in norms] == list(moves), name, z_norm=norms[0], code_norm=norms[1])


@checks("latent-units")
def latent_units(answer: Any) -> Iterator[Observation]:
    spread, noise = torch.tensor([1.0, 1.0, 3.0]).view(3, 1, 1), torch.tensor([0.02, 0.4, 0.4]).view(3, 1, 1)
    mu = spread * torch.randn(64, 3, 4, 4)
    logvar = 2 * noise.log() + torch.randn(64, 3, 4, 4)
    z, unit = answer.in_units(mu.clone(), logvar.clone())
    shape = tuple(unit.shape)
    yield seen(shape == (3, 1, 1), "shape", shape=shape)
    size = z.square().mean().item()
    yield seen(abs(size - 1) < 1e-3, "size", size=size)
    error = (z * unit - mu).abs().max().item()
    yield seen(error < 1e-4, "decoded", error=error)
    ratio, wanted = (unit[1] / unit[0]).item(), ((logvar[:, 1] - logvar[:, 0]).mean() / 2).exp().item()
    yield seen(abs(ratio / wanted - 1) < 1e-3, "units", wanted=wanted, ratio=ratio)
