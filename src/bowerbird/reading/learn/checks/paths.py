"""Checks of the exercises on diffusion and flow matching: paths from noise to data."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks, seen


def _bayes(beta: float, alpha_bar: float, alpha_bar_prev: float, x0: float, x_t: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), by summing over a grid."""
    grid = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    log_p = -((x_t - math.sqrt(1 - beta) * grid) ** 2) / (2 * beta)
    log_p = log_p - (grid - math.sqrt(alpha_bar_prev) * x0) ** 2 / (2 * (1 - alpha_bar_prev))
    p = log_p.softmax(0)
    mean = (p * grid).sum()
    return mean.item(), (p * (grid - mean) ** 2).sum().item()


@checks("diffusion-posterior")
def posterior(answer: Any) -> Iterator[Observation]:
    betas = torch.linspace(0.01, 0.3, 10, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    c0, c1, variance = (torch.as_tensor(part) for part in answer.posterior(betas))
    yield seen(
        max(abs(float(c0[0]) - 1), abs(float(c1[0])), abs(float(variance[0]))) < 1e-9,
        "first",
        c0=c0[0],
        c1=c1[0],
        variance=variance[0],
    )
    mean_error = variance_error = 0.0
    for t in (1, 4, 9):
        mean, var = _bayes(betas[t].item(), alpha_bar[t].item(), alpha_bar[t - 1].item(), 0.7, -0.4)
        mean_error = max(mean_error, abs(mean - float(c0[t] * 0.7 + c1[t] * -0.4)))
        variance_error = max(variance_error, abs(var / float(variance[t]) - 1))
    yield seen(mean_error < 1e-4, "mean", mean_error=mean_error)
    yield seen(variance_error < 1e-3, "variance", percent=100 * variance_error)


@checks("ddim-sampler")
def ddim(answer: Any) -> Iterator[Observation]:
    mean, std = 0.6, 0.3
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)

    def total(i: int) -> Tensor:
        return (alpha_bar[i] * std**2 + 1 - alpha_bar[i]).sqrt()

    def predict_eps(x: Tensor, i: int) -> Tensor:
        return (1 - alpha_bar[i]).sqrt() * (x - alpha_bar[i].sqrt() * mean) / total(i) ** 2

    x = torch.randn(2000, dtype=torch.float64)
    exact = mean + std * (x - alpha_bar[-1].sqrt() * mean) / total(-1)
    times = torch.linspace(999, 0, 200).long().tolist()
    found = answer.ddim(predict_eps, x.clone(), alpha_bar, times)
    again = answer.ddim(predict_eps, x.clone(), alpha_bar, times)
    differs = (found - again).abs().max().item()
    yield seen(differs == 0, "same", differs=differs)
    yield seen(
        abs(found.mean().item() - mean) < 0.03 and abs(found.std().item() - std) < 0.03,
        "moments",
        mean=mean,
        std=std,
        sample_mean=found.mean(),
        sample_std=found.std(),
    )
    error = (found - exact).abs().max().item()
    yield seen(error < 0.05, "exact", error=error)


@checks("cosine-schedule")
def cosine(answer: Any) -> Iterator[Observation]:
    T = 50
    betas = torch.as_tensor(answer.cosine_betas(T)).double()
    yield seen(tuple(betas.shape) == (T,), "shape", T=T, found=tuple(betas.shape))
    inside = bool(((betas > 0) & (betas <= 0.999)).all())
    yield seen(inside, "range", least=betas.min(), most=betas.max())
    t = torch.arange(1, T + 1, dtype=torch.float64) / T
    f = torch.cos((torch.cat([torch.zeros(1).double(), t]) + 0.008) / 1.008 * math.pi / 2) ** 2
    error = ((1 - betas).cumprod(0) - f[1:] / f[0]).abs().max().item() if len(betas) == T else math.inf
    yield seen(error < 1e-3, "product", error=error)


@checks("flow-matching")
def flow(answer: Any) -> Iterator[Observation]:
    x0, eps, t = torch.randn(64, 3).double(), torch.randn(64, 3).double(), torch.rand(64).double()
    _, target = answer.pair(x0, eps, t)
    h = 1e-4
    slope = (answer.pair(x0, eps, t + h)[0] - answer.pair(x0, eps, t - h)[0]) / (2 * h)
    error = (slope - target).abs().max().item()
    yield seen(error < 1e-5, "velocity", error=error)
    ends = max((answer.pair(x0, eps, end)[0] - at).abs().max().item() for end, at in ((t * 0, x0), (t * 0 + 1, eps)))
    yield seen(ends < 1e-6, "ends", ends=ends)
    mean, std = 0.6, 0.3

    def velocity(x: Tensor, time: float) -> Tensor:  # E[eps - x_0 | x_t] for x_0 ~ N(mean, std^2)
        variance = (1 - time) ** 2 * std**2 + time**2
        return (time - (1 - time) * std**2) / variance * (x - (1 - time) * mean) - mean

    noise = torch.randn(2000, 1).double()
    found = answer.sample(velocity, noise.clone(), 200)
    off = (found - (mean + std * noise)).abs().max().item()
    yield seen(off < 0.05, "moments", mean=mean, std=std, sample_mean=found.mean(), sample_std=found.std(), off=off)
