"""A schedule says how data turn into noise: x_t = alpha(t) x_0 + sigma(t) eps with eps ~ N(0, I).

t runs over [0, 1]; 0 is data (alpha = 1, sigma = 0), 1 is noise.  Coefficients are float64 on the CPU: near t = 0 they
are differences of almost equal numbers.  What a sampler needs of a schedule is alpha, sigma and the times to visit.

    linear, cosine   alpha^2 + sigma^2 = 1, alpha^2 = alpha_bar; T discrete steps, step i is exactly t = (i + 1) / T
    edm              alpha = 1, sigma = sigma_max t
    flow             alpha = 1 - t, sigma = t
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.errors import BowerbirdError, unknown

Grid = Literal["uniform", "rho", "log-snr"]
"""How times are spread: evenly in t, evenly in (sigma/alpha)^(1/7), or evenly in log(alpha/sigma)."""


class Schedule(ABC):
    """alpha(t) and sigma(t), both monotone in t."""

    grid: Grid = "uniform"
    """The times that suit this schedule's samplers."""
    ratio_min: float = 0.01
    """sigma/alpha at the last time before 0, in the grids that are even in a function of sigma/alpha."""
    ratio_max: float = 100.0
    """sigma/alpha where those grids begin.  Data in [-1, 1] are all but visible at 0.01 and all but hidden at 100."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """What remains of the data, in [0, 1], float64."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The standard deviation of the noise, float64."""

    @abstractmethod
    def time(self, ratio: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The t at which sigma(t)/alpha(t) = ratio, float64."""

    def times(
        self, steps: int, grid: str | None = None, ratio_min: float | None = None
    ) -> Float[Tensor, "steps_and_one"]:
        """The times that a sampler visits, falling from 1 to 0, float64 of shape (steps + 1,).

        ``ratio_min`` is sigma/alpha at the last time before 0 (None: the schedule's own, or what the even grid gives).
        """
        if steps < 1:
            raise BowerbirdError(f"steps = {steps} must be at least 1.")
        if ratio_min is not None and not 0 < ratio_min < self.ratio_max:
            raise BowerbirdError(f"ratio_min = {ratio_min} must lie between 0 and {self.ratio_max:g}.")
        grid = grid or self.grid
        if grid not in get_args(Grid):
            raise unknown("time grid", grid, get_args(Grid))
        if grid == "uniform" and ratio_min is None:
            return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        # The last step, from ratio_min to 0, is outside the spacing: log(alpha/sigma) is infinite there.
        end = torch.zeros(1, dtype=torch.float64)
        if grid == "uniform":
            last = float(self.time(torch.tensor(ratio_min)))
            return torch.cat([torch.linspace(1, last, steps, dtype=torch.float64), end])
        bend, unbend = _BENDS[grid]
        bent = torch.linspace(bend(self.ratio_max), bend(ratio_min or self.ratio_min), steps, dtype=torch.float64)
        times = torch.cat([self.time(unbend(bent)), end])
        times[0] = 1
        return times


RHO = 7.0  # Karras et al. 2022, section 3: larger values spend more steps near the data.

_BENDS: dict[str, tuple[Callable[[float], float], Callable[[Tensor], Tensor]]] = {
    "rho": (lambda ratio: ratio ** (1 / RHO), lambda bent: bent**RHO),  # Karras et al. 2022, eq. 5
    "log-snr": (math.log, torch.exp),
}


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """The straight path of rectified flow and conditional flow matching (Lipman et al. 2022; Liu et al. 2022)."""

    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return 1 - t.double()

    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return t.double()

    def time(self, ratio: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return ratio.double() / (1 + ratio.double())


@dataclass(frozen=True)
class EDM(Schedule):
    """Noise is added and nothing is scaled (Karras et al. 2022, table 1): sigma grows linearly with t."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    grid = "rho"

    @property
    def ratio_min(self) -> float:  # type: ignore[override]
        return self.sigma_min

    @property
    def ratio_max(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.sigma_max * t.double()

    def time(self, ratio: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return ratio.double() / self.sigma_max


@dataclass(frozen=True, eq=False)
class VariancePreserving(Schedule):
    """The discrete chain q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i I), made continuous.

    alpha_bar_i = prod_{j <= i} (1 - beta_j) is the square of alpha at t = (i + 1) / T (Ho et al. 2020, eq. 4); between
    these times log alpha_bar is linear, which is what a chain of constant rate would do.
    """

    beta: Float[Tensor, "T"]
    grid = "log-snr"
    log_alpha_bar: Float[Tensor, "T_and_one"] = field(init=False)
    """At t = 0, 1/T, … 1."""

    def __post_init__(self) -> None:
        log_alpha_bar = torch.log1p(-self.beta.double()).cumsum(0)
        object.__setattr__(self, "log_alpha_bar", torch.cat([torch.zeros(1, dtype=torch.float64), log_alpha_bar]))

    @property
    def timesteps(self) -> int:
        return len(self.beta)

    @property
    def ratio_min(self) -> float:  # type: ignore[override]
        return max(0.01, self._ratio(1))  # networks are trained from t = 1/T on

    @property
    def ratio_max(self) -> float:  # type: ignore[override]
        return min(100.0, self._ratio(self.timesteps))

    def _ratio(self, index: int) -> float:
        return math.sqrt(math.expm1(-self.log_alpha_bar[index].item()))

    def alpha(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.exp(0.5 * self._log_alpha_bar_at(t))

    def sigma(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return torch.sqrt(-torch.expm1(self._log_alpha_bar_at(t)))

    def _log_alpha_bar_at(self, t: Tensor) -> Tensor:
        position = t.double().cpu() * self.timesteps
        left = position.floor().long().clamp(0, self.timesteps - 1)
        return torch.lerp(self.log_alpha_bar[left], self.log_alpha_bar[left + 1], position - left)

    def time(self, ratio: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        target = -torch.log1p(ratio.double() ** 2)
        right = torch.searchsorted(-self.log_alpha_bar, -target).clamp(1, self.timesteps)
        above, below = self.log_alpha_bar[right - 1], self.log_alpha_bar[right]
        return (right - 1 + (target - above) / (below - above)) / self.timesteps


def logit_normal(u: Float[Tensor, " n"], mean: float, std: float) -> Float[Tensor, " n"]:
    """t = sigmoid(mean + std z) for z the normal quantile of u in (0, 1) (Esser et al. 2024, eq. 19)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


def stratified_uniform(n: int) -> Float[Tensor, " n"]:
    """n numbers in (0, 1), one uniform in each of n equal intervals, float64 on the CPU: training times of a batch.

    Each is uniform only over its own interval; a shuffled batch makes the pair (example, time) uniform, and the mean
    over the batch varies less than with independent times.
    """
    u = (torch.arange(n, dtype=torch.float64) + torch.rand(n, dtype=torch.float64)) / n
    return u.clamp(1e-6, 1 - 1e-6)


def linear(timesteps: int = 1000) -> VariancePreserving:
    """beta from 1e-4 to 0.02 in equal steps (Ho et al. 2020, section 4), scaled by 1000/T for other T."""
    scale = 1000 / timesteps
    if scale * 0.02 >= 1:
        raise BowerbirdError(f"timesteps = {timesteps} is too few for the linear schedule; use at least 21, or cosine.")
    return VariancePreserving(torch.linspace(scale * 1e-4, scale * 0.02, timesteps, dtype=torch.float64))


def cosine(timesteps: int = 1000) -> VariancePreserving:
    """alpha_bar(t) ~ cos^2((t + 0.008) / 1.008 pi / 2), beta at most 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return VariancePreserving((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))
