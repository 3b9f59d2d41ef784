r"""MeanFlow (Geng et al. 2025, arXiv:2505.13447): the mean velocity over a stretch of time, for few steps.

A flow (``models.flow``) knows the velocity v at a point.  Here the network knows its mean between r and t > r,

    (t - r) u(x_t, r, t) = integral_r^t v(x_tau, tau) dtau,        so that  x_r = x_t - (t - r) u(x_t, r, t),

and x_0 = x_1 - u(x_1, 0, 1) is a sample.  Where r = t it is a flow, u = v, trained towards eps - x_0, whose mean is v.
Over longer intervals it is trained towards what it says itself of their halves, held constant: integrals add up, so

    (t - r) u(x_t, r, t) = (t - s) u(x_t, s, t) + (s - r) u(x_s, r, s)        for any s between,        here the middle

(Guo et al. 2025, arXiv:2507.16884; Frans et al. 2024, arXiv:2410.12557, for intervals that are powers of a half).
The loss is the mean squared error.  Only examples with r < t pay for the two evaluations.

Where we differ: the paper takes s → t, u = v - (t - r) du/dt, with the derivative of the network itself.  Errors of u
then come back multiplied by how fast the network can change with t; begun from our flow, the errors of long intervals
grew from 2 to 12 in 40 steps.  Halves average errors instead.  The paper also divides each error by itself: examples
with r < t, whose errors are small, then drown those with r = t that hold v in place.

r and t are two independent uniform numbers, sorted; of these few intervals are nearly as long as the whole way, which
one step needs, so a share of them, ``to_data``, is stretched to r = 0.

The network is given t and the ``interval`` t - r.  At interval 0 it is a flow, whose weights are a start.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Positional, evaluating
from bowerbird.nets.conditioning import Given, dropped, nothing
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.ranges import Count, Finite, Positive, Share
from bowerbird.registry import families
from bowerbird.samplers import schedule
from bowerbird.samplers.integrate import Denoised, Denoising, for_each, integrate, path, plan
from bowerbird.samplers.schedule import logit_normal, stratified_uniform
from bowerbird.spec import Spec, Tensors

INTERVAL = "interval"


@dataclass(frozen=True)
class MeanFlowOptions(Options):
    """How samples are drawn."""

    steps: Count | None = None
    """Evaluations of the network; None is as the recipe says."""


@families.register("meanflow")
@dataclass(frozen=True)
class MeanFlowConfig(config.ModelConfig):
    """Mean velocities, for samples in few steps."""

    net: NetConfig = field(default_factory=UNetConfig)
    """unet, dit or mlp."""
    time: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of the two times of an example; logit-normal hardly ever practises the jump from 1 to 0."""
    time_mean: Finite = -0.4
    """Logit-normal: mean of log(t / (1 - t)); below 0 leans to the data."""
    time_std: Positive = 1.0
    """Logit-normal: standard deviation of log(t / (1 - t))."""
    empty_intervals: Share = 0.75
    """Share of the examples whose two times are one: they train the velocity itself."""
    to_data: Share = 0.5
    """Share of the other intervals that reach down to the data, as the only step, and the last of several, does."""
    conditional: bool = True
    """Use what is given with the data (labels, attributes, captions, pictures) where they have any."""
    label_dropout: Share = 0.1
    """Probability of hiding what is given in training."""
    guidance: Finite = 1.0
    """Above 1 what is given is exaggerated in training, so that a sample costs no second evaluation."""
    sample_steps: Count = 4
    """Evaluations of the network per sample."""

    def build(self, spec: Spec) -> "MeanFlow":
        return MeanFlow(self, spec)


class MeanFlow(GenerativeModel):
    """A field of mean velocities, the identity that trains it, and its jumps."""

    Options = MeanFlowOptions

    def __init__(self, config: MeanFlowConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        self.target = spec.needs(Tensors, "meanflow")
        self.schedule = schedule.FlowSchedule()
        given = {**self.spec.given, INTERVAL: Tensors((), None)}
        self.net = config.net.denoiser(replace(self.spec, given=given), self.target.shape[0])

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x, n = batch.x, len(batch.x)
        eps = torch.randn_like(x)
        given = dropped(batch.given, self.spec.given, self.config.label_dropout)
        t, interval = self._draw_times(n)
        t, interval = t.to(x), interval.to(x)
        x_t = torch.lerp(x, eps, t.view(-1, *[1] * (x.dim() - 1)))
        u = self.mean_velocity(x_t, t, given, interval).float()
        aim, long = eps - x, interval > 0
        aim[~long] = self._aim(aim[~long], x_t[~long], t[~long])
        if long.any():
            aim[long] = self._far_aim(x_t[long], t[long], {k: v[long] for k, v in given.items()}, interval[long])
        squares = (u - aim).square().flatten(1).mean(1)
        known = squares.detach()
        logs = {"mse": known[~long].mean()} if not long.all() else {}
        yield Loss("model", squares.mean(), logs | ({"mse_interval": known[long].mean()} if long.any() else {}))

    def mean_velocity(
        self, x_t: Float[Tensor, "n *shape"], t: Float[Tensor, " n"], given: Given, interval: Float[Tensor, " n"]
    ) -> Float[Tensor, "n *shape"]:
        """u(x_t, t - interval, t)."""
        return self.net(x_t, t, {**given, INTERVAL: interval})

    @torch.no_grad()
    def _far_aim(self, x_t: Tensor, t: Tensor, given: Given, interval: Tensor) -> Tensor:
        """The mean of both halves of the interval, the second from where the first leads."""
        half = interval / 2
        first = self.mean_velocity(x_t, t, given, half).float()
        x_s = x_t - half.view(-1, *[1] * (x_t.dim() - 1)) * first
        return (first + self.mean_velocity(x_s, t - half, given, half).float()) / 2

    def _aim(self, velocity: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The example's velocity, exaggerated away from that of nothing given (equation 19)."""
        if self.config.guidance == 1 or not self.spec.given or not len(t):
            return velocity
        none = {name: nothing(one, len(t), t.device) for name, one in self.spec.given.items()}
        with torch.no_grad():
            return torch.lerp(self.net(x_t, t, none).float(), velocity, self.config.guidance)

    def _draw_times(self, n: int) -> tuple[Tensor, Tensor]:
        """t and the interval t - r of each example."""
        a, b, c = stratified_uniform(n), _shuffled(stratified_uniform(n)), _shuffled(stratified_uniform(n))
        if self.config.time == "logit-normal":
            a, b = (logit_normal(u, self.config.time_mean, self.config.time_std) for u in (a, b))
        empty = c < self.config.empty_intervals
        t, r = torch.where(empty, a, torch.maximum(a, b)), torch.minimum(a, b)
        r = torch.where(torch.rand(n) < self.config.to_data, 0.0, r)
        return t, torch.where(empty, 0.0, t - r)

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: MeanFlowOptions | None = None, generator: Draws | None = None
    ) -> Float[Tensor, "n *shape"]:
        """n examples within the bounds of the data."""
        draws = generator or fresh()
        noise = draws.randn(n, *self.target.shape).to(self.device)
        way = self.denoising(self.requested(n, given, draws), options or MeanFlowOptions())
        with evaluating(self.net):
            x = integrate(way.denoise, noise, way.rows(), generator=draws)
        return x.clamp(*self.target.bounds) if self.target.bounds else x

    def denoising(self, given: Given, options: MeanFlowOptions) -> Denoising:
        """The jumps from noise at t = 1 to an example."""
        steps = options.steps or self.config.sample_steps

        def denoise(x_t: Tensor, t: float | Tensor) -> Denoised:
            each = for_each(t, x_t)
            return Denoised(x_t - each.view(-1, *[1] * (x_t.dim() - 1)) * self._jump(steps, x_t, each, given).float())

        return Denoising(denoise, path(self.schedule, self.schedule.times(steps)), "euler", None)

    def _jump(self, steps: int, x_t: Tensor, t: Tensor, given: Given | None = None) -> Tensor:
        """The mean velocity from t on, over one of so many equal steps: Euler's rule with it is exact."""
        return self.mean_velocity(x_t, t, given or {}, torch.full_like(t, 1 / steps))

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    @property
    def pieces(self) -> dict[str, Piece]:
        given = self.spec.given
        inputs = {"x_t": Tensors(self.target.shape, None), "t": Tensors((), None), **given}
        jump = partial(self._jump, self.config.sample_steps)
        return {"denoiser": Piece(Positional(self.net, jump, given), inputs, "velocity")}

    def procedure(self) -> dict[str, Any]:
        rows = plan("euler", path(self.schedule, self.schedule.times(self.config.sample_steps)))
        steps = [row._asdict() | {"a": 1.0, "b": -row.t, "c_in": 1.0} for row in rows]
        return {
            "kind": "denoise", "piece": "denoiser", "steps": steps, "first_sigma": 1.0, "guidance": 1.0, "clip": False,
        }  # fmt: skip


def _shuffled(numbers: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """In another order: stratified numbers come sorted, and two rows of them would be one and the same."""
    return numbers[torch.randperm(len(numbers))]
