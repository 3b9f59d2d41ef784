r"""Flow matching: a velocity field that carries noise to data.

Data x_0 and noise eps ~ N(0, I) are joined by straight lines, x_t = (1 - t) x_0 + t eps, with dx_t/dt = eps - x_0.  The
network learns the mean velocity through each point,

    u(x_t, t) = E[eps - x_0 | x_t],         L = E_{t, x_0, eps} |net(x_t, t) - (eps - x_0)|^2 / dims

(Lipman et al. 2022, eq. 14; Liu et al. 2022, eq. 1).  The flow dx/dt = u has the same distribution at each t as the
lines have, so following it from noise at t = 1 to t = 0 gives data, and following it the other way gives densities,

    log p(x_0) = log N(x_1; 0, I) + integral_0^1 div u(x_t, t) dt         (Chen et al. 2018, eq. 8).

Here t = 0 is data, as everywhere in Bowerbird; the papers run time the other way.  The network is given t itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from bowerbird import config
from bowerbird.models.base import Batch, GenerativeModel, Loss, evaluating
from bowerbird.models.conditioning import Network, drop_labels, guided, labels_for, stratified_uniform, without_classes
from bowerbird.nets.base import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.samplers import density, schedule
from bowerbird.samplers.integrate import Denoised, Sampler, integrate, path, plan


def logit_normal(u: Float[Tensor, " n"], mean: float, std: float) -> Float[Tensor, " n"]:
    """t = sigmoid(mean + std z) for z the normal quantile of u in (0, 1) (Esser et al. 2024, eq. 19)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


def optimal_coupling(
    x: Float[Tensor, "n *shape"], eps: Float[Tensor, "n *shape"], label: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n *shape"]:
    """eps in the order that makes sum |x_i - eps_i|^2 least (Tong et al. 2023, section 3.2.3).

    Within each class when labels are given: coupling across classes would tell the noise which class it belongs to,
    and a sampler that draws noise and class independently would then start from the wrong noise.
    """
    matched = eps.clone()
    groups = (
        [torch.arange(len(x), device=x.device)]
        if label is None
        else [torch.nonzero(label == value).flatten() for value in label.unique()]
    )
    for group in groups:
        # |x|^2 and |eps|^2 do not depend on the pairing, so only the inner products count.
        gain = x[group].flatten(1) @ eps[group].flatten(1).T
        _, column = linear_sum_assignment(gain.float().cpu().numpy(), maximize=True)
        matched[group] = eps[group[torch.as_tensor(column, device=group.device)]]
    return matched


@dataclass(frozen=True)
class FlowConfig(config.ModelConfig):
    """Flow matching with straight paths."""

    net: NetConfig = field(default_factory=UNetConfig)
    """unet, dit or mlp."""
    time: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of t in training; logit-normal practises the middle more than the ends."""
    time_mean: float = 0.0
    """Logit-normal: mean of log(t / (1 - t)); below 0 leans to the data."""
    time_std: float = 1.0
    """Logit-normal: standard deviation of log(t / (1 - t))."""
    coupling: Literal["independent", "minibatch-ot"] = "independent"
    """How noise is paired with data; minibatch-ot pairs near ones within a batch (and class), for straighter flows."""
    conditional: bool = True
    """Use the labels when the data have them."""
    label_dropout: float = 0.1
    """Probability of hiding a label in training; needed for guidance."""
    sampler: Sampler = "heun"
    sample_steps: int = 25
    """Steps of the sampler; heun evaluates the network 2 steps - 1 times, the others once per step."""
    guidance: float = 1.0
    """1: follow the label; above 1: exaggerate it, at twice the cost."""

    def build(self, spec: Any) -> "Flow":
        return Flow(self, spec)


class Flow(GenerativeModel):
    """A velocity field, its matching loss, its sampler and its density."""

    estimator = density.ESTIMATOR

    def __init__(self, config: FlowConfig, spec: Any):
        super().__init__()
        self.config = config
        self.spec = spec
        self.n_classes = spec.n_classes if config.conditional else 0
        self.guidance = config.guidance if self.n_classes else 1.0  # without labels there is nothing to exaggerate
        self.schedule = schedule.Flow()
        self.net = config.net.denoiser(spec if self.n_classes else without_classes(spec), spec.channels)

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x, label = batch.x, batch.label if self.n_classes else None
        eps = torch.randn_like(x)
        if self.config.coupling == "minibatch-ot":
            eps = optimal_coupling(x, eps, label)
        if label is not None:
            label = drop_labels(label, self.n_classes, self.config.label_dropout)
        t = self._draw_times(len(x)).to(x)
        x_t = torch.lerp(x, eps, t.view(-1, 1, 1, 1))
        error = self.net(x_t, t, label).float() - (eps - x)
        value = error.square().mean()
        yield Loss("model", value, {"mse": value.detach()})

    def _draw_times(self, n: int) -> Tensor:
        u = stratified_uniform(n)
        if self.config.time == "uniform":
            return u
        return logit_normal(u, self.config.time_mean, self.config.time_std)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        cond: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        grid: str | None = None,
        clip: bool = True,
    ) -> Float[Tensor, "n c h w"]:
        """n images in [-1, 1]; options left out are the config's.

        ``grid`` spaces the times (uniform in t unless said); ``clip`` keeps each step's estimate of x_0 in [-1, 1].
        """
        noise = torch.randn(n, *self.spec.shape, generator=generator).to(self.device)
        label = labels_for(n, cond, self.spec, self.n_classes, generator)
        label = None if label is None else label.to(self.device)
        velocity = self._velocity(label, self.guidance if guidance is None else guidance)

        def denoise(x_t: Tensor, t: float) -> Denoised:
            return Denoised(x_t - t * velocity(x_t, x_t.new_full((n,), t)))

        times = self.schedule.times(self.config.sample_steps if steps is None else steps, grid)
        rows = plan(sampler or self.config.sampler, path(self.schedule, times))
        with evaluating(self.net):
            x = integrate(denoise, noise, rows, clip=1.0 if clip else None, generator=generator)
        return x.clamp(-1, 1)

    def _velocity(self, label: Tensor | None, guidance: float) -> Network:
        return guided(
            self.net,
            label,
            guidance,
            n_classes=self.n_classes,
            label_dropout=self.config.label_dropout,
            channels=self.spec.channels,
        )

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    # ---------------------------------------------------------------------------------------------- likelihood

    def log_prob(
        self,
        x: Float[Tensor, "n c h w"],
        label: Int[Tensor, " n"] | None = None,
        *,
        generator: torch.Generator | None = None,
        tolerance: float = density.TOLERANCE,
    ) -> Float[Tensor, " n"]:
        """A stochastic lower bound on the log-probability of 8-bit images, in nats (see ``samplers.density``)."""
        log_density = partial(self.log_density, label=label, generator=generator, tolerance=tolerance)
        return density.of_bytes(log_density, x, generator)

    @torch.no_grad()
    def log_density(
        self,
        x: Float[Tensor, "n c h w"],
        label: Int[Tensor, " n"] | None = None,
        *,
        generator: torch.Generator | None = None,
        tolerance: float = density.TOLERANCE,
        divergence: density.Divergence = "hutchinson",
    ) -> Float[Tensor, " n"]:
        """log p(x) in nats of the flow's density on [-1, 1]-scaled data, by the probability-flow equation."""
        velocity = self._velocity(label if self.n_classes else None, 1.0)

        def u(x_t: Tensor, t: float) -> Tensor:
            return velocity(x_t, x_t.new_full((len(x_t),), t))

        with evaluating(self.net):
            z, integral = density.transport(
                u, x, 0.0, 1.0, divergence=divergence, tolerance=tolerance, generator=generator
            )  # fmt: skip
        return density.standard_normal(z) + integral
