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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options, Piece, Positional, evaluating
from bowerbird.nets.conditioning import Given, Network, dropped, guided, unsaid
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.ranges import Count, Finite, NonNegative, Positive, Share
from bowerbird.registry import families
from bowerbird.samplers import density, noisemark, schedule
from bowerbird.samplers.greenlist import own_key
from bowerbird.samplers.integrate import Denoised, Denoising, Sampler, for_each, integrate, path, plan
from bowerbird.samplers.schedule import Grid, logit_normal, stratified_uniform
from bowerbird.spec import Classes, Spec, Tensors


def optimal_coupling(
    x: Float[Tensor, "n *shape"], eps: Float[Tensor, "n *shape"], label: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n *shape"]:
    """eps in the order that makes sum |x_i - eps_i|^2 least (Tong et al. 2023, section 3.2.3).

    Within each class when labels are given: coupling across classes would tell the noise which class it belongs to,
    and a sampler that draws noise and class independently would then start from the wrong noise.
    """
    from scipy.optimize import linear_sum_assignment  # here, so that sampling does not wait for its import

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


SHORTEST_TIME = 0.05
"""Below it, an error of x_0 is not magnified further (Li & He 2025, arXiv:2511.13720)."""


def _divisor(t: Float[Tensor, " n"], x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *ones"]:
    """t, as what turns an error of x_0 into one of the velocity (x_t - x_0) / t."""
    return t.clamp(min=SHORTEST_TIME).view(-1, *[1] * (x.dim() - 1))


@dataclass(frozen=True)
class FlowOptions(Options):
    """How samples are drawn; what is None is as the recipe says."""

    steps: Count | None = None
    """Steps of the sampler."""
    sampler: Sampler | None = None
    """The integrator."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""
    temperature: Positive | None = None
    """Standard deviation of the noise that a sample begins with; below 1: nearer to the typical, and less varied."""
    grid: Grid | None = None
    """Spacing of the times (None: uniform)."""
    clip: bool = True
    """Keep each step's estimate of x_0 within the bounds of the data."""
    watermark: NonNegative = 0.0
    """Strength of a mark in the initial noise that ``bowerbird verify --run`` reads back, such as 12 (0: none)."""


@families.register("flow")
@dataclass(frozen=True)
class FlowConfig(config.ModelConfig):
    """Flow matching with straight paths."""

    net: NetConfig = field(default_factory=UNetConfig)
    """unet, dit or mlp."""
    time: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of t in training; logit-normal practises the middle more than the ends."""
    time_mean: Finite = 0.0
    """Logit-normal: mean of log(t / (1 - t)); below 0 leans to the data."""
    time_std: Positive = 1.0
    """Logit-normal: standard deviation of log(t / (1 - t))."""
    coupling: Literal["independent", "minibatch-ot"] = "independent"
    """How noise is paired with data; minibatch-ot pairs near ones within a batch (and class), for straighter flows."""
    conditional: bool = True
    """Use what is given with the data (labels, attributes, captions, pictures) where they have any."""
    label_dropout: Share = 0.1
    """Probability of hiding what is given in training; needed for guidance."""
    field_dropout: Share = 0.0
    """Probability of hiding each field by itself, so that samples can be asked for with some of them unsaid."""
    prediction: Literal["velocity", "x0"] = "velocity"
    """What the network's output means; x0 suits patches of more numbers than the network is wide."""
    sampler: Sampler = "heun"
    sample_steps: Count = 25
    """Steps of the sampler; heun evaluates the network 2 steps - 1 times, the others once per step."""
    guidance: Finite = 1.0
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""
    temperature: Positive = 1.0
    """Standard deviation of the noise that samples begin with; speech is clearer below 1 (Popov et al. 2021,
    arXiv:2105.06337, section 5.1)."""

    def build(self, spec: Spec) -> "Flow":
        return Flow(self, spec)


class Flow(GenerativeModel):
    """A velocity field, its matching loss, its sampler and its density."""

    Options = FlowOptions

    def __init__(self, config: FlowConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        if config.field_dropout:
            self.spec = replace(self.spec, given=unsaid(self.spec.given))
        self.target = spec.needs(Tensors, "flow")
        self.guidance = config.guidance if self.spec.given else 1.0  # where nothing is given, nothing is exaggerated
        self.schedule = schedule.FlowSchedule()
        self.net = config.net.denoiser(self.spec, self.target.shape[0])

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x = batch.x
        eps = torch.randn_like(x)
        if self.config.coupling == "minibatch-ot":
            eps = optimal_coupling(x, eps, self._kinds(batch.given))
        given = dropped(batch.given, self.spec.given, self.config.label_dropout, self.config.field_dropout)
        t = self._draw_times(len(x)).to(x)
        x_t = torch.lerp(x, eps, t.view(-1, *[1] * (x.dim() - 1)))
        output = self.net(x_t, t, given).float()
        error = (output - x) / _divisor(t, x) if self.config.prediction == "x0" else output - (eps - x)
        value = error.square().mean()
        yield Loss("model", value, {"mse": value.detach()})

    def _kinds(self, given: Given) -> Int[Tensor, " n"] | None:
        """A number for each combination of classes in the batch, and None where nothing is given."""
        if not self.spec.given:
            return None
        if others := [name for name, field in self.spec.given.items() if not isinstance(field, Classes)]:
            raise BowerbirdError(f'coupling = "minibatch-ot" is for classes; it does not work with a {others[0]}.')
        return torch.stack([given[name] for name in self.spec.given], 1).unique(dim=0, return_inverse=True)[1]

    def _draw_times(self, n: int) -> Tensor:
        u = stratified_uniform(n)
        if self.config.time == "uniform":
            return u
        return logit_normal(u, self.config.time_mean, self.config.time_std)

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: FlowOptions | None = None, generator: Draws | None = None
    ) -> Float[Tensor, "n *shape"]:
        """n examples within the bounds of the data."""
        o, draws, bounds = options or FlowOptions(), generator or fresh(), self.target.bounds
        noise = draws.randn(n, *self.target.shape).to(self.device)
        noise = self._temperature(o) * noisemark.marked(noise, o.watermark, own_key())
        way = self.denoising(self.requested(n, given, draws), o)
        with evaluating(self.net):
            x = integrate(way.denoise, noise, way.rows(), clip=way.clip, generator=draws)
        return x.clamp(*bounds) if bounds else x

    def _temperature(self, options: FlowOptions) -> float:
        return self.config.temperature if options.temperature is None else options.temperature

    def denoising(self, given: Given, options: FlowOptions) -> Denoising:
        """The way from noise at t = 1 to an example."""
        o, c = options, self.config
        velocity = self._velocity(given, self.guidance if o.guidance is None else o.guidance)

        def denoise(x_t: Tensor, t: float | Tensor) -> Denoised:
            each = for_each(t, x_t)
            return Denoised(x_t - each.view(-1, *[1] * (x_t.dim() - 1)) * velocity(x_t, each))

        times = self.schedule.times(c.sample_steps if o.steps is None else o.steps, o.grid)
        clip = self.target.bounds if o.clip else None
        return Denoising(denoise, path(self.schedule, times), o.sampler or c.sampler, clip)

    @torch.no_grad()
    def noise_of(
        self,
        x: Float[Tensor, "n *shape"],
        given: Given | None = None,
        *,
        steps: int = noisemark.STEPS,
        begin: float = noisemark.BEGIN,
    ) -> Float[Tensor, "n *shape"]:
        """The noise that the flow would make x of: x followed back from t = ``begin`` to 1."""
        velocity = self._velocity(given or {}, 1.0)

        def u(x_t: Tensor, t: float) -> Tensor:
            return velocity(x_t, x_t.new_full((len(x_t),), t))

        with evaluating(self.net):
            return density.followed(u, x, begin, 1.0, steps)

    @property
    def pieces(self) -> dict[str, Piece]:
        given = self.spec.given
        inputs = {"x_t": Tensors(self.target.shape, None), "t": Tensors((), None), **given}
        return {"denoiser": Piece(Positional(self.net, self.net, given), inputs, self.config.prediction)}

    def procedure(self) -> dict[str, Any]:
        rows = plan(self.config.sampler, path(self.schedule, self.schedule.times(self.config.sample_steps)))
        steps = [row._asdict() | self._combination(row.t) | {"c_in": 1.0} for row in rows]
        return {
            "kind": "denoise", "piece": "denoiser", "steps": steps, "first_sigma": self.config.temperature,
            "guidance": self.guidance, "clip": True,
        }  # fmt: skip

    def _combination(self, t: float) -> dict[str, float]:
        """x_0 = a x_t + b net(x_t, t): what ``_velocity`` amounts to."""
        if self.config.prediction == "velocity":
            return {"a": 1.0, "b": -t}
        share = t / max(t, SHORTEST_TIME)
        return {"a": 1 - share, "b": share}

    def _velocity(self, given: Given, guidance: float) -> Network:
        network = guided(
            self.net, given, guidance,
            fields=self.spec.given, dropout=self.config.label_dropout, channels=self.target.shape[0],
        )  # fmt: skip
        if self.config.prediction == "velocity":
            return network
        return lambda x_t, t: (x_t - network(x_t, t)) / _divisor(t, x_t)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    # ---------------------------------------------------------------------------------------------- likelihood

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator(density.ESTIMATOR, self.log_prob)}

    def log_prob(
        self, batch: Batch, generator: torch.Generator | None = None, tolerance: float = density.TOLERANCE
    ) -> Float[Tensor, " n"]:
        """A stochastic lower bound on the log-probability of 8-bit images, in nats (see ``samplers.density``)."""
        log_density = partial(self.log_density, given=batch.given, generator=generator, tolerance=tolerance)
        return density.of_bytes(log_density, batch.x, generator)

    @torch.no_grad()
    def log_density(
        self,
        x: Float[Tensor, "n *shape"],
        given: Given | None = None,
        *,
        generator: torch.Generator | None = None,
        tolerance: float = density.TOLERANCE,
        divergence: density.Divergence = "hutchinson",
    ) -> Float[Tensor, " n"]:
        """log p(x) in nats of the flow's density on [-1, 1]-scaled data, by the probability-flow equation."""
        velocity = self._velocity(given or {}, 1.0)

        def u(x_t: Tensor, t: float) -> Tensor:
            return velocity(x_t, x_t.new_full((len(x_t),), t))

        with evaluating(self.net):
            z, integral = density.transport(
                u, x, 0.0, 1.0, divergence=divergence, tolerance=tolerance, generator=generator
            )  # fmt: skip
        return density.standard_normal(z) + integral
