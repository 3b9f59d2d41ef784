"""A sampler is a table: every step of every method is linear in what the loop has at hand,

    x  <-  x_weight x  +  d_weight D(x, t)  +  previous_weight D_previous  +  noise z,        z ~ N(0, I).

One loop (``integrate``) runs all tables.  The methods differ in the numbers alone, so they are written as functions
from a path to rows.  A path is the times t_0 = 1 > … > t_N = 0 with alpha and sigma there; a step goes from t to s < t.

The probability-flow equation of x_t = alpha x_0 + sigma eps, free of any choice of clock, is (Song et al. 2021, eq. 13;
Karras et al. 2022, eq. 4)

    dx = D dalpha + eps dsigma,        eps = (x - alpha D) / sigma.

Euler's left rule with D held fixed is DDIM; the trapezoid rule is Heun's method, which for alpha = 1 is algorithm 1 of
Karras et al. 2022 and for alpha = 1 - t the usual one for flows; the exponential two-step rule in log(alpha/sigma) is
DPM-Solver++(2M).  All three take D, never a derivative of the schedule, and sigma = 0 at the end needs no special case
beyond dropping to first order there.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.draws import Draws, fresh
from bowerbird.errors import unknown
from bowerbird.samplers.schedule import Schedule

Sampler = Literal["ddpm", "ddim", "euler", "heun", "dpm++2m"]
FORGETFUL = ("ddpm", "consistency")
"""Samplers whose result does not follow from the noise that they begin with alone."""


class Step(NamedTuple):
    """One row: where the denoiser is evaluated, and the weights of the new x."""

    t: float
    x: float
    d: float
    previous: float = 0.0
    noise: float = 0.0
    """Standard deviation of the fresh noise, the lower bound where the model chooses it."""
    noise_max: float = 0.0
    """The upper bound (the same number, save in ``ddpm``)."""


class Path(NamedTuple):
    """alpha and sigma at the times that a sampler visits."""

    t: list[float]
    alpha: list[float]
    sigma: list[float]

    def steps(self) -> list[tuple[int, int]]:
        return [(i, i + 1) for i in range(len(self.t) - 1)]


class Denoised(NamedTuple):
    """What a model says of x_t."""

    x0: Tensor
    """D(x_t, t) = E[x_0 | x_t]."""
    mix: Tensor | float = 0.0
    """Between the two bounds on the posterior's variance, in [0, 1] (Nichol & Dhariwal 2021, eq. 15)."""


Denoiser = Callable[[Tensor, float | Tensor], Denoised]
"""(x_t, t) → what the model says; t is one number, or float (n,), one for each example."""


def for_each(t: float | Float[Tensor, " n"], x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
    """t once for each example, in the precision of x."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))


def path(schedule: Schedule, times: Float[Tensor, "steps_and_one"]) -> Path:
    """The schedule at these times, as plain numbers."""
    return Path(times.tolist(), schedule.alpha(times).tolist(), schedule.sigma(times).tolist())


Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Posterior(Generic[Number]):
    """q(x_s | x_t, x_0) = N(x_weight x_t + d_weight x_0, variance I), for s < t; numbers, or tensors of many steps."""

    x: Number
    d: Number
    variance: Number
    """The true one: what is right when x_0 is known (fixed-small)."""
    variance_max: Number
    """Of x_t given x_s: what is right when x_0 ~ N(0, I) (fixed-large)."""


def posterior(alpha_t: Number, sigma_t: Number, alpha_s: Number, sigma_s: Number) -> Posterior[Number]:
    """Ho et al. 2020, eq. 7, for any two times of any schedule (Kingma et al. 2021, eq. 25-27 and 32).

    With alpha_ts = alpha_t / alpha_s and sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2, the mean is
    alpha_ts sigma_s^2 / sigma_t^2 x_t + alpha_s sigma_ts^2 / sigma_t^2 x_0 and the variance
    sigma_ts^2 sigma_s^2 / sigma_t^2.
    """
    alpha_ts = alpha_t / alpha_s
    variance_ts = sigma_t**2 - (alpha_ts * sigma_s) ** 2
    share = (sigma_s / sigma_t) ** 2
    return Posterior(alpha_ts * share, alpha_s * variance_ts / sigma_t**2, variance_ts * share, variance_ts)


def ddpm(p: Path) -> list[Step]:
    """Ancestral sampling, x_s ~ q(x_s | x_t, x_0 = D) (Ho et al. 2020, algorithm 2); no noise in the last step."""
    rows = []
    for i, j in p.steps():
        q = posterior(p.alpha[i], p.sigma[i], p.alpha[j], p.sigma[j])
        noise_max = math.sqrt(q.variance_max) if p.sigma[j] > 0 else 0.0
        rows.append(Step(p.t[i], q.x, q.d, 0.0, math.sqrt(q.variance), noise_max))
    return rows


def resampled(p: Path, times: int) -> list[Step]:
    """``ddpm`` that takes every step ``times`` times: back to t by fresh noise, and down again (RePaint's resampling).

    Where part of x_0 is prescribed, one pass leaves the rest out of tune with it; going over a step again lets both
    agree (Lugmayr et al. 2022, arXiv:2201.09865, section 4.2, with jumps of one step).  Down to s and back to t is one
    row: alpha_ts (x_weight x + d_weight D + n z) + sigma_ts z' holds two noises, which are one of their joint variance.
    """
    rows = []
    for (i, j), down in zip(p.steps(), ddpm(p), strict=True):
        if p.sigma[j] > 0 and p.alpha[i] > 0:  # at pure noise, and at the data, there is nothing to tune
            alpha_ts = p.alpha[i] / p.alpha[j]
            noise = math.sqrt((alpha_ts * down.noise) ** 2 + p.sigma[i] ** 2 - (alpha_ts * p.sigma[j]) ** 2)
            rows += [Step(p.t[i], alpha_ts * down.x, alpha_ts * down.d, 0.0, noise, noise)] * (times - 1)
        rows.append(down)
    return rows


def ddim(p: Path, eta: float = 0.0) -> list[Step]:
    """x_s = alpha_s D + sqrt(sigma_s^2 - noise^2) eps + noise z, noise^2 = eta^2 times the posterior's variance.

    Song et al. 2021 (DDIM), eq. 12 and 16: eta = 0 is deterministic, eta = 1 is ``ddpm``.
    """
    rows = []
    for i, j in p.steps():
        noise = eta * math.sqrt(posterior(p.alpha[i], p.sigma[i], p.alpha[j], p.sigma[j]).variance)
        x = math.sqrt(max(p.sigma[j] ** 2 - noise**2, 0.0)) / p.sigma[i]
        rows.append(Step(p.t[i], x, p.alpha[j] - x * p.alpha[i], 0.0, noise, noise))
    return rows


def euler(p: Path) -> list[Step]:
    """x_s = x_t + D (alpha_s - alpha_t) + eps (sigma_s - sigma_t), which is ``ddim`` with eta = 0 on every schedule."""
    rows = []
    for i, j in p.steps():
        eps_weight = (p.sigma[j] - p.sigma[i]) / p.sigma[i]
        rows.append(Step(p.t[i], 1 + eps_weight, p.alpha[j] - p.alpha[i] - eps_weight * p.alpha[i]))
    return rows


def heun(p: Path) -> list[Step]:
    """Euler to x', then x_s = x' + w (D(x', s) - D(x_t, t)); 2 N - 1 evaluations for N steps.

    The trapezoid rule adds half of dalpha (D' - D) + dsigma (eps' - eps) to x'.  As x' = alpha_s D + sigma_s eps (the
    left rule), eps' - eps = -alpha_s / sigma_s (D' - D), whence w = (dalpha - dsigma alpha_s / sigma_s) / 2.
    The last step, to sigma = 0, stays Euler's (Karras et al. 2022, algorithm 1).
    """
    rows = []
    for (_, j), predictor in zip(p.steps(), euler(p), strict=True):
        rows.append(predictor)
        if p.sigma[j] > 0:
            dalpha, dsigma = p.alpha[j] - p.alpha[j - 1], p.sigma[j] - p.sigma[j - 1]
            w = (dalpha - dsigma * p.alpha[j] / p.sigma[j]) / 2
            rows.append(Step(p.t[j], 1.0, w, -w))
    return rows


def dpm_solver_2m(p: Path) -> list[Step]:
    """x_s = sigma_s / sigma_t x_t + (alpha_s - alpha_t sigma_s / sigma_t) ((1 + k) D - k D_previous).

    k = h / (2 h_previous) with h the step in log(alpha/sigma) (Lu et al. 2022, DPM-Solver++, algorithm 2, where r is
    h_previous / h).  First order (k = 0) in the first step, and in the last, where h is infinite.
    """
    log_snr = [_log(alpha) - _log(sigma) for alpha, sigma in zip(p.alpha, p.sigma, strict=True)]
    rows = []
    for (i, j), first_order in zip(p.steps(), euler(p), strict=True):
        # Where alpha = 0 at t = 1, the step before is infinitely long and k is 0 by itself.
        two_step = i > 0 and p.sigma[j] > 0
        k = (log_snr[j] - log_snr[i]) / (2 * (log_snr[i] - log_snr[i - 1])) if two_step else 0.0
        rows.append(first_order._replace(d=first_order.d * (1 + k), previous=-first_order.d * k))
    return rows


def consistency(p: Path) -> list[Step]:
    """x_s = alpha_s D + sigma_s z: down to the data in one jump, and up again by fresh noise.

    For models whose D is an example and not the mean of many (Song et al. 2023, consistency models, algorithm 1).
    """
    return [Step(p.t[i], 0.0, p.alpha[j], 0.0, p.sigma[j], p.sigma[j]) for i, j in p.steps()]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


_SAMPLERS: dict[str, Callable[[Path], list[Step]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpm++2m": dpm_solver_2m,
    "consistency": consistency,
}


def plan(sampler: str, p: Path) -> list[Step]:
    """The rows of a sampler; their number is the number of network evaluations."""
    if sampler not in _SAMPLERS:
        raise unknown("sampler", sampler, get_args(Sampler))
    return _SAMPLERS[sampler](p)


class Denoising(NamedTuple):
    """What a sampler has to know of a model that turns noise into examples."""

    denoise: Denoiser
    points: Path
    """The times to visit."""
    sampler: str
    """The integrator that the options, or the recipe, name."""
    clip: tuple[float, float] | None
    """The bounds of D."""

    def rows(self) -> list[Step]:
        return plan(self.sampler, self.points)

    def after(self, share: float) -> "Denoising":
        """The last part of the way: all of it for 1, at least one step."""
        last = len(self.points.t) - 1
        first = min(last - 1, round((1 - share) * last))
        return self._replace(points=Path(*(values[first:] for values in self.points)))


Seen = Callable[[float, Tensor, Tensor], None]
"""Called after each row with its t, the x that it made, and the estimate D that it used."""
_observer: ContextVar[Seen | None] = ContextVar("_observer", default=None)


@contextmanager
def observed(see: Seen) -> Iterator[None]:
    """Inside, in this thread, every step of ``integrate`` is shown to ``see``, which must not change what it sees."""
    token = _observer.set(see)
    try:
        yield
    finally:
        _observer.reset(token)


def integrate(
    denoise: Denoiser,
    x: Float[Tensor, "n *shape"],
    rows: Sequence[Step],
    *,
    clip: tuple[float, float] | None = None,
    generator: Draws | None = None,
) -> Float[Tensor, "n *shape"]:
    """Runs a table from x at its first time and returns x at its last.

    ``clip`` holds the bounds of D.  Data in [-1, 1] have E[x_0 | x_t] in [-1, 1], and projecting an estimate on a
    convex set that holds the truth never takes it farther away; so the bounds of the data are right, and None where
    they have none.
    Fresh noise is drawn on the CPU, so that a seed means the same samples on every device.
    """
    previous, see = x, _observer.get()
    generator = generator or fresh()
    for row in rows:
        denoised, mix = denoise(x, row.t)
        if clip is not None:
            denoised = denoised.clamp(*clip)
        x = row.x * x + row.d * denoised
        if row.previous != 0:
            x = x.add_(previous, alpha=row.previous)
        if row.noise != 0:
            z = generator.randn(*x.shape).to(x)
            x = x + row.noise ** (1 - mix) * row.noise_max**mix * z
        previous = denoised
        if see is not None:
            see(row.t, x, denoised)
    return x
