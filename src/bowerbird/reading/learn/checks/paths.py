"""Checks of the exercises on diffusion and flow matching: paths from noise to data."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.reading.learn.checks import Observation, checks


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
    yield Observation(
        max(abs(float(c0[0]) - 1), abs(float(c1[0])), abs(float(variance[0]))) < 1e-9,
        f"At the first step c0 = {c0[0]:.4g}, c1 = {c1[0]:.4g}, variance = {variance[0]:.4g}; "
        "x_0 is known there, so they should be 1, 0 and 0.",
        f"第一步 c0 = {c0[0]:.4g}，c1 = {c1[0]:.4g}，方差 = {variance[0]:.4g}；那里 x_0 已知，应为 1、0、0。",
    )
    mean_error = variance_error = 0.0
    for t in (1, 4, 9):
        mean, var = _bayes(betas[t].item(), alpha_bar[t].item(), alpha_bar[t - 1].item(), 0.7, -0.4)
        mean_error = max(mean_error, abs(mean - float(c0[t] * 0.7 + c1[t] * -0.4)))
        variance_error = max(variance_error, abs(var / float(variance[t]) - 1))
    yield Observation(
        mean_error < 1e-4,
        f"Against Bayes' rule on a grid the mean is off by up to {mean_error:.3g}.",
        f"与网格上的贝叶斯公式相比，均值最多偏 {mean_error:.3g}。",
    )
    yield Observation(
        variance_error < 1e-3,
        f"Against Bayes' rule on a grid the variance is off by up to {100 * variance_error:.3g} %.",
        f"与网格上的贝叶斯公式相比，方差最多偏 {100 * variance_error:.3g} %。",
    )


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
    yield Observation(
        differs == 0,
        f"Two walks from the same noise end up to {differs:.3g} apart; they should end at the same point.",
        f"从同一噪声出发走两次，终点最多相差 {differs:.3g}；应当到达同一点。",
    )
    yield Observation(
        abs(found.mean().item() - mean) < 0.03 and abs(found.std().item() - std) < 0.03,
        f"The data have mean {mean} and standard deviation {std}; "
        f"the samples {found.mean():.3f} and {found.std():.3f}.",
        f"数据的均值是 {mean}、标准差是 {std}；样本的是 {found.mean():.3f} 和 {found.std():.3f}。",
    )
    error = (found - exact).abs().max().item()
    yield Observation(
        error < 0.05,
        f"Point by point the samples are off the exact solution by up to {error:.3g} with 200 steps.",
        f"200 步时，逐点与精确解最多相差 {error:.3g}。",
    )


@checks("cosine-schedule")
def cosine(answer: Any) -> Iterator[Observation]:
    T = 50
    betas = torch.as_tensor(answer.cosine_betas(T)).double()
    yield Observation(
        tuple(betas.shape) == (T,),
        f"cosine_betas({T}) has shape {tuple(betas.shape)}; it should be ({T},).",
        f"cosine_betas({T}) 的形状是 {tuple(betas.shape)}；应为 ({T},)。",
    )
    inside = bool(((betas > 0) & (betas <= 0.999)).all())
    yield Observation(
        inside,
        f"β lies between {betas.min():.4g} and {betas.max():.4g}; it should lie in (0, 0.999].",
        f"β 介于 {betas.min():.4g} 与 {betas.max():.4g}；应在 (0, 0.999] 内。",
    )
    t = torch.arange(1, T + 1, dtype=torch.float64) / T
    f = torch.cos((torch.cat([torch.zeros(1).double(), t]) + 0.008) / 1.008 * math.pi / 2) ** 2
    error = ((1 - betas).cumprod(0) - f[1:] / f[0]).abs().max().item() if len(betas) == T else math.inf
    yield Observation(
        error < 1e-3,
        f"The product of 1 − β is off f(t)/f(0) by up to {error:.3g}.",
        f"1 − β 的连乘积与 f(t)/f(0) 最多相差 {error:.3g}。",
    )


@checks("flow-matching")
def flow(answer: Any) -> Iterator[Observation]:
    x0, eps, t = torch.randn(64, 3).double(), torch.randn(64, 3).double(), torch.rand(64).double()
    _, target = answer.pair(x0, eps, t)
    h = 1e-4
    slope = (answer.pair(x0, eps, t + h)[0] - answer.pair(x0, eps, t - h)[0]) / (2 * h)
    error = (slope - target).abs().max().item()
    yield Observation(
        error < 1e-5,
        f"The target is off the rate at which x_t changes with t by up to {error:.3g}.",
        f"目标与 x_t 随 t 的变化率最多相差 {error:.3g}。",
    )
    ends = max((answer.pair(x0, eps, end)[0] - at).abs().max().item() for end, at in ((t * 0, x0), (t * 0 + 1, eps)))
    yield Observation(
        ends < 1e-6,
        f"At t = 0 and t = 1 the path is off data and noise by up to {ends:.3g}.",
        f"在 t = 0 与 t = 1 处，路径与数据、噪声最多相差 {ends:.3g}。",
    )
    mean, std = 0.6, 0.3

    def velocity(x: Tensor, time: float) -> Tensor:  # E[eps - x_0 | x_t] for x_0 ~ N(mean, std^2)
        variance = (1 - time) ** 2 * std**2 + time**2
        return (time - (1 - time) * std**2) / variance * (x - (1 - time) * mean) - mean

    noise = torch.randn(2000, 1).double()
    found = answer.sample(velocity, noise.clone(), 200)
    off = (found - (mean + std * noise)).abs().max().item()
    yield Observation(
        off < 0.05,
        f"The data have mean {mean} and standard deviation {std}; "
        f"the samples {found.mean():.3f} and {found.std():.3f}, "
        f"and point by point they are off the exact flow by up to {off:.3g}.",
        f"数据的均值是 {mean}、标准差是 {std}；样本的是 {found.mean():.3f} 和 {found.std():.3f}，"
        f"逐点与精确的流最多相差 {off:.3g}。",
    )
