r"""MeanFlow (Geng et al. 2025, arXiv:2505.13447): the mean velocity over a stretch of time, for few steps.

A flow (``models.flow``) knows the velocity v at a point.  Here the network knows its mean between r and t > r,

    (t - r) u(x_t, r, t) = integral_r^t v(x_tau, tau) dtau,        so that  x_r = x_t - (t - r) u(x_t, r, t),

and x_0 = x_1 - u(x_1, 0, 1) is a sample.  Differentiating by t while r stands still gives what the mean obeys,

    v = u + (t - r) du/dt,        du/dt = v · du/dx + ∂u/∂t  along the flow                       (equations 6 and 8).

Where r = t the network is a flow, trained towards eps - x_0, whose mean is v.  Elsewhere it is trained towards

    v - (t - r) du/dt,    both by the network itself and held constant,    with v = u(x_t, t, t)     (equation 10),

each example's squared error divided by (itself + c)^power (equation 22).  The paper has eps - x_0 in place of v here
too: the same on average, but with a scatter that t - r and the network's derivative multiply; its authors take v along
the flow in "Improved Mean Flows".  du/dt is a central difference along the flow, which costs what a Jacobian-vector
product costs, two evaluations, and asks nothing of the network's layers.  Only examples with r < t pay for it.

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
from bowerbird.ranges import Count, Finite, NonNegative, Positive, Share
from bowerbird.registry import families
from bowerbird.samplers import schedule
from bowerbird.samplers.integrate import Denoised, Denoising, integrate, path, plan
from bowerbird.samplers.schedule import logit_normal, stratified_uniform
from bowerbird.spec import Spec, Tensors

INTERVAL = "interval"
STEP = 2e-3
"""Of the central difference: the features of t turn by 0.2 rad at most, and float32 rounds u by 1e-7 of its size."""
SMALLEST_ERROR = 1e-3
"""c of the loss: an error per number below which an example counts no more than others."""


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
    power: NonNegative = 1.0
    """How far large errors are divided by their own size; 0: the plain mean squared error."""
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
        x_t = torch.lerp(x, eps, t.view(-1, 1, 1, 1))
        u = self.mean_velocity(x_t, t, given, interval).float()
        aim = self._aim(eps - x, x_t, t)
        long = interval > 0
        if long.any():
            aim[long] = self._far_aim(x_t[long], t[long], {k: v[long] for k, v in given.items()}, interval[long])
        error = u - aim
        squares = error.square().flatten(1).mean(1)
        known = squares.detach()
        value = (squares / (known + SMALLEST_ERROR) ** self.config.power).mean()
        logs = {"mse": known[~long].mean()} if not long.all() else {}
        yield Loss("model", value, logs | ({"mse_interval": known[long].mean()} if long.any() else {}))

    def mean_velocity(
        self, x_t: Float[Tensor, "n *shape"], t: Float[Tensor, " n"], given: Given, interval: Float[Tensor, " n"]
    ) -> Float[Tensor, "n *shape"]:
        """u(x_t, t - interval, t)."""
        return self.net(x_t, t, {**given, INTERVAL: interval})

    @torch.no_grad()
    def _far_aim(self, x_t: Tensor, t: Tensor, given: Given, interval: Tensor) -> Tensor:
        """v - (t - r) du/dt, with the network's own velocity v; du/dt along the flow, with r held."""

        def u(by: float) -> Tensor:
            return self.mean_velocity(x_t + by * v, t + by, given, interval + by).float()

        with torch.autocast(x_t.device.type, enabled=False):  # a difference of rounded numbers would be noise
            v = self.mean_velocity(x_t, t, given, torch.zeros_like(t)).float()
            return v - interval.view(-1, 1, 1, 1) * (u(STEP) - u(-STEP)) / (2 * STEP)

    def _aim(self, velocity: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The example's velocity, exaggerated away from that of nothing given (equation 19)."""
        if self.config.guidance == 1 or not self.spec.given:
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

        def denoise(x_t: Tensor, t: float) -> Denoised:
            return Denoised(x_t - t * self._jump(steps, x_t, x_t.new_full((len(x_t),), t), given).float())

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
        return {"kind": "denoise", "piece": "denoiser", "steps": steps, "first_sigma": 1.0, "guidance": 1.0}


def _shuffled(numbers: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """In another order: stratified numbers come sorted, and two rows of them would be one and the same."""
    return numbers[torch.randperm(len(numbers))]
