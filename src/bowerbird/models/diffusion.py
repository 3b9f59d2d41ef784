r"""Diffusion: noise is added to data step by step, and a network learns to take each step back.

x_t = alpha(t) x_0 + sigma(t) eps,  eps ~ N(0, I),  t in [0, 1] with 0 = data (``bowerbird.samplers.schedule``).  The
network is trained by least squares on a combination y = p x_0 + q eps (``bowerbird.samplers.prediction``), which is the
same as knowing the denoiser D(x_t, t) = E[x_0 | x_t]:

    L_simple = E_{t, x_0, eps} |net(x_t, t) - y|^2 / dims        (Ho et al. 2020, eq. 14, for y = eps)

With ``loss = "cross-entropy"`` the network says the logits of x_0 as a probability of white, pi = (x_0 + 1) / 2,

    L = E_{t, x_0, eps} -pi log p - (1 - pi) log(1 - p),   p = sigmoid(net(x_t, t)),   D = 2 p - 1,

whose minimum is again p = E[pi | x_t], because the cross-entropy is a proper score of the mean.  Black and white lie at
infinity, so small errors there cost much: squared errors leave a grey haze on a black background.  Guidance then
extrapolates logits.

The chain t_0 = 0 < t_1 … < t_T = 1 is a latent variable model, whose variational bound splits into T + 1 terms
(Ho et al. 2020, eq. 5),

    -log p(x_0) <= KL(q(x_T | x_0) | p(x_T)) + sum_i KL(q(x_s | x_t, x_0) | p(x_s | x_t)) - log p(x_0 | x_{t_1}),

with s = t_{i-1}, t = t_i, i = 2 … T, and p(x_s | x_t) the posterior q(x_s | x_t, x_0 = D).  Its variance is the true
posterior's (fixed-small), that of q(x_t | x_s) (fixed-large), or learned in between (Nichol & Dhariwal 2021, eq. 15) by
L_simple + vlb_weight L_vlb, where L_vlb, in nats per dimension, moves the variance alone.  The prior p(x_T) is
N(0, sigma(1)^2 I): the paper's N(0, I), save for a variance smaller by 4e-5, and its counterpart for EDM.

``schedule = "edm"`` is Karras et al. 2022: alpha = 1, log sigma ~ N(-1.2, 1.2^2) in training, preconditioned inputs and
targets.  The network is given t, or for EDM log(sigma) / 4.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options, Piece, Positional, evaluating
from bowerbird.nets.conditioning import Given, Network, dropped, guided
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.ranges import Count, Finite, NonNegative, Positive, Range, Share
from bowerbird.registry import families
from bowerbird.samplers import density, noisemark, schedule
from bowerbird.samplers.bound import Bound, discretised_gaussian_log_prob, gaussian_kl
from bowerbird.samplers.greenlist import own_key
from bowerbird.samplers.integrate import (
    FORGETFUL,
    Denoised,
    Denoising,
    Posterior,
    Sampler,
    integrate,
    path,
    plan,
    posterior,
)  # fmt: skip
from bowerbird.samplers.prediction import denoiser_weights, target_weights
from bowerbird.samplers.schedule import Grid, stratified_uniform
from bowerbird.spec import Spec, Tensors

P_MEAN, P_STD = -1.2, 1.2
"""Mean and standard deviation of log sigma in EDM's training (Karras et al. 2022, table 1)."""

MIN_SNR = 5.0
"""gamma of Hang et al. 2023."""


@dataclass(frozen=True)
class DiffusionOptions(Options):
    """How samples are drawn; what is None is as the recipe says."""

    steps: Count | None = None
    """Steps of the sampler."""
    sampler: Sampler | None = None
    """The integrator."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""
    grid: Grid | None = None
    """Spacing of the times."""
    clip: bool = True
    """Keep each step's estimate of x_0 within the bounds of the data."""
    watermark: NonNegative = 0.0
    """Strength of a mark in the initial noise that ``bowerbird verify --run`` reads back, such as 12 (0: none)."""


@families.register("diffusion")
@dataclass(frozen=True)
class DiffusionConfig(config.ModelConfig):
    """Denoising diffusion: DDPM, improved DDPM and EDM."""

    net: NetConfig = field(default_factory=UNetConfig)
    """unet, dit or mlp."""
    schedule: Literal["linear", "cosine", "edm"] = "cosine"
    prediction: Literal["eps", "x0", "v", "edm"] = "eps"
    """What the network is trained to say; the schedule edm has its own, and no other."""
    variance: Literal["fixed-small", "fixed-large", "learned"] = "fixed-small"
    """Variance of the reverse steps of the sampler ddpm, and of the bound."""
    weighting: Literal["simple", "min-snr"] = "simple"
    """simple: every t counts alike (for edm this is the paper's weighting); min-snr: min(alpha^2/sigma^2, 5) on x_0."""
    loss: Literal["squared", "cross-entropy"] = "squared"
    """cross-entropy: of each pixel as a probability of white, for images of mostly black and white; needs x0."""
    vlb_weight: NonNegative = 0.001
    """Weight of the bound, in nats per dimension, beside the squared error; used by the learned variance."""
    timesteps: Annotated[int, Range(2)] = 1000
    """Length T of the chain."""
    sigma_data: Positive = 0.5
    """EDM: standard deviation of the data."""
    conditional: bool = True
    """Use what is given with the data (labels, attributes, captions, pictures) where they have any."""
    label_dropout: Share = 0.1
    """Probability of hiding what is given in training; needed for guidance."""
    sampler: Sampler = "dpm++2m"
    sample_steps: Count = 50
    """Steps of the sampler; heun evaluates the network 2 steps - 1 times, the others once per step."""
    grid: Grid | None = None
    """Spacing of the sampler's times (None: the schedule's own)."""
    ratio_min: NonNegative | None = None
    """sigma/alpha at the last step, whose estimate of x_0 is the sample (None: the grid's own).  Where the network is
    less sure than the sampler's noise is small, a larger one is better."""
    guidance: Finite = 1.0
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.schedule == "edm") != (self.prediction == "edm"):
            raise ValueError('schedule = "edm" and prediction = "edm" go together; set both or neither.')
        if self.schedule == "edm" and (self.variance == "learned" or self.weighting != "simple"):
            raise ValueError('schedule = "edm" has a fixed variance and weighting = "simple".')
        if self.loss == "cross-entropy" and (self.prediction != "x0" or self.variance == "learned"):
            raise ValueError('loss = "cross-entropy" needs prediction = "x0" and a fixed variance.')

    def build(self, spec: Spec) -> "Diffusion":
        return Diffusion(self, spec)


class Preconditioning(NamedTuple):
    """D = a x_t + b net(c_in x_t, t_in), for each t; float64."""

    a: Tensor
    b: Tensor
    c_in: Tensor
    t_in: Tensor


class Diffusion(GenerativeModel):
    """A denoiser, its losses, its samplers and its variational bound."""

    Options = DiffusionOptions

    def __init__(self, config: DiffusionConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        self.target = spec.needs(Tensors, "diffusion")
        self.guidance = config.guidance if self.spec.given else 1.0  # where nothing is given, nothing is exaggerated
        self.schedule = _schedule(config)
        self.chain = self.schedule.times(config.timesteps, "rho" if config.schedule == "edm" else "uniform").flip(0)
        """t_0 = 0 < t_1 < … < t_T = 1, float64 on the CPU."""
        channels = self.target.shape[0]
        self.net = config.net.denoiser(self.spec, 2 * channels if config.variance == "learned" else channels)

    # ---------------------------------------------------------------------------------------------- training

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x = batch.x
        given = dropped(batch.given, self.spec.given, self.config.label_dropout)
        t = self._draw_times(len(x))
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        pre = self._preconditioning(t)
        p, q = target_weights(self.config.prediction, alpha, sigma, self.config.sigma_data)
        weight = torch.ones_like(t)
        if self.config.weighting == "min-snr":
            # Errors of D are b times those of y, so this is min(snr, gamma) |D - x_0|^2.
            weight = ((alpha / sigma) ** 2).clamp(max=MIN_SNR) * pre.b**2

        eps = torch.randn_like(x)
        x_t = _like(alpha, x) * x + _like(sigma, x) * eps
        output = self.net(_like(pre.c_in, x) * x_t, pre.t_in.to(x), given).float()
        y, mix = self._split(output)
        error = (y - _like(p, x) * x - _like(q, x) * eps).square()
        logs = {"mse": error.mean().detach()}
        if self.config.loss == "cross-entropy":
            error = F.binary_cross_entropy_with_logits(output, (x + 1) / 2, reduction="none")
        value = (_like(weight, x) * error).mean()
        if self.config.variance == "learned":
            step = (t * self.config.timesteps).round().long()
            # The bound must not pull at the mean, which L_simple trains better (Nichol & Dhariwal 2021, section 3.1).
            d = (_like(pre.a, x) * x_t + _like(pre.b, x) * y).detach()
            nll = self._step_nll(x, x_t, Denoised(d, mix), step) * self.config.timesteps / self.target.dims
            value = value + self.config.vlb_weight * nll.mean()
            logs["vlb"] = nll.mean().detach()
        yield Loss("model", value, logs)

    def _draw_times(self, n: int) -> Tensor:
        u = stratified_uniform(n)
        if self.config.schedule == "edm":
            return self.schedule.time(torch.exp(P_MEAN + P_STD * torch.special.ndtri(u)))
        return self.chain[(u * self.config.timesteps).long() + 1]

    # ---------------------------------------------------------------------------------------------- the denoiser

    def _preconditioning(self, t: Tensor) -> Preconditioning:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        a, b = denoiser_weights(self.config.prediction, alpha, sigma, self.config.sigma_data)
        if self.config.schedule == "edm":  # Karras et al. 2022, table 1: unit variance in, c_noise
            return Preconditioning(a, b, (sigma**2 + self.config.sigma_data**2) ** -0.5, torch.log(sigma) / 4)
        return Preconditioning(a, b, torch.ones_like(t), t)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor | float]:
        """The prediction y, and where the variance lies between its bounds."""
        if self.config.loss == "cross-entropy":
            output = torch.tanh(output / 2)  # 2 sigmoid(logits) - 1
        if self.config.variance != "learned":
            return output, float(self.config.variance == "fixed-large")
        y, v = output.chunk(2, 1)
        return y, torch.sigmoid(v)  # the paper leaves v free; this keeps it between the bounds

    # ---------------------------------------------------------------------------------------------- sampling

    @torch.no_grad()
    def sample(
        self,
        n: int,
        given: Given | None = None,
        options: DiffusionOptions | None = None,
        generator: Draws | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """n examples within the bounds of the data."""
        o, draws, bounds = options or DiffusionOptions(), generator or fresh(), self.target.bounds
        noise = draws.randn(n, *self.target.shape).to(self.device)
        if o.watermark and (name := o.sampler or self.config.sampler) in FORGETFUL:
            raise BowerbirdError(
                f"The sampler {name} forgets the noise that it begins with; choose another sampler for a watermark."
            )
        noise = noisemark.marked(noise, o.watermark, own_key())
        way = self.denoising(self.requested(n, given, draws), o)
        with evaluating(self.net):
            x = integrate(way.denoise, way.points.sigma[0] * noise, way.rows(), clip=way.clip, generator=draws)
        return x.clamp(*bounds) if bounds else x

    def denoising(self, given: Given, options: DiffusionOptions) -> Denoising:
        """The way from noise at t = 1 to an example."""
        o = options
        network = self._network(given, self.guidance if o.guidance is None else o.guidance)

        def denoise(x_t: Tensor, t: float | Tensor) -> Denoised:
            each = t.cpu().double() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
            pre = self._preconditioning(each.expand(len(x_t)))
            y, mix = self._split(network(_like(pre.c_in, x_t) * x_t, pre.t_in.to(x_t)))
            return Denoised(_like(pre.a, x_t) * x_t + _like(pre.b, x_t) * y, mix)

        return Denoising(
            denoise,
            path(self.schedule, self._times(o)),
            o.sampler or self.config.sampler,
            self.target.bounds if o.clip else None,
        )

    @torch.no_grad()
    def noise_of(
        self,
        x: Float[Tensor, "n *shape"],
        given: Given | None = None,
        *,
        steps: int = noisemark.STEPS,
        begin: float = noisemark.BEGIN,
    ) -> Float[Tensor, "n *shape"]:
        """The noise that the probability flow would make x of: x followed back from sigma/alpha = ``begin``."""
        least, most = math.log(max(self.schedule.ratio_min, begin)), math.log(self.schedule.ratio_max)
        with evaluating(self.net):
            return density.followed(self._rate(given or {}), x, least, most, steps) * math.exp(-most)

    def _rate(self, given: Given) -> Callable[[Tensor, float], Tensor]:
        """d(x_t / alpha) / d log r at x_t / alpha and log r."""
        network = self._network(given, 1.0)

        def f(x: Tensor, log_ratio: float) -> Tensor:
            t = self.schedule.time(torch.tensor(math.exp(log_ratio), dtype=torch.float64)).expand(len(x))
            pre, x_t = self._preconditioning(t), _like(self.schedule.alpha(t), x) * x
            y, _ = self._split(network(_like(pre.c_in, x) * x_t, pre.t_in.to(x)).float())
            return x - (_like(pre.a, x) * x_t + _like(pre.b, x) * y)

        return f

    def _times(self, o: DiffusionOptions) -> Float[Tensor, "steps_and_one"]:
        """The times that a sampler visits."""
        c = self.config
        return self.schedule.times(c.sample_steps if o.steps is None else o.steps, o.grid or c.grid, c.ratio_min)

    @property
    def pieces(self) -> dict[str, Piece]:
        given = self.spec.given
        inputs = {"x_t": Tensors(self.target.shape, None), "t": Tensors((), None), **given}
        return {"denoiser": Piece(Positional(self.net, self.net, given), inputs, "prediction")}

    def procedure(self) -> dict[str, Any]:
        points = path(self.schedule, self._times(DiffusionOptions()))
        rows = plan(self.config.sampler, points)
        pre = self._preconditioning(torch.tensor([row.t for row in rows], dtype=torch.float64))
        around = zip(*(numbers.tolist() for numbers in pre), strict=True)
        steps = [
            row._asdict() | {"a": a, "b": b, "c_in": c_in, "t": t_in}
            for row, (a, b, c_in, t_in) in zip(rows, around, strict=True)
        ]
        return {
            "kind": "denoise", "piece": "denoiser", "steps": steps, "first_sigma": points.sigma[0],
            "guidance": self.guidance, "clip": True, "logits": self.config.loss == "cross-entropy",
            "variance": self.config.variance,
        }  # fmt: skip

    def _network(self, given: Given, guidance: float) -> Network:
        return guided(
            self.net, given, guidance,
            fields=self.spec.given, dropout=self.config.label_dropout, channels=self.target.shape[0],
        )  # fmt: skip

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    # ---------------------------------------------------------------------------------------------- likelihood

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {
            "nll": Estimator("variational bound, all steps", self.log_prob),
            "flow": Estimator(density.ESTIMATOR, self.flow_log_prob),
        }

    def log_prob(
        self, batch: Batch, generator: torch.Generator | None = None, n_terms: int | None = None
    ) -> Float[Tensor, " n"]:
        """A lower bound on the log-probability of 8-bit images, in nats (Ho et al. 2020, eq. 5).

        Exact in the sum over the T steps (T evaluations), or estimated without bias from ``n_terms`` of them.
        """
        bits = self.bound(batch.x, batch.given, generator=generator, n_terms=n_terms).total
        return -bits * self.target.dims * math.log(2)

    @torch.no_grad()
    def bound(
        self,
        x: Float[Tensor, "n *shape"],
        given: Given | None = None,
        *,
        generator: torch.Generator | None = None,
        n_terms: int | None = None,
    ) -> Bound:
        """Its terms, one draw of x_t for each; ``n_terms`` draws one step from each equal part of the chain."""
        inner = torch.arange(2, len(self.chain))
        parts = inner.tensor_split(min(n_terms or len(inner), len(inner)))
        chosen = [part[torch.randint(len(part), (), generator=generator)] for part in parts]
        network = self._network(given or {}, 1.0)
        alpha_T, sigma_T = self.schedule.alpha(self.chain[-1]), self.schedule.sigma(self.chain[-1])
        prior = 0.5 * (float(alpha_T / sigma_T) * x).square().flatten(1).sum(1)
        with evaluating(self.net):
            decoder = self._draw_nll(network, x, 1, generator)
            terms = [
                self._draw_nll(network, x, int(i), generator) * len(part) for i, part in zip(chosen, parts, strict=True)
            ]
        steps = torch.stack(terms, 1) if terms else x.new_zeros(len(x), 0)
        bits = 1 / (self.target.dims * math.log(2))
        return Bound(prior * bits, steps * bits, decoder * bits)

    def flow_log_prob(
        self, batch: Batch, generator: torch.Generator | None = None, tolerance: float = density.TOLERANCE
    ) -> Float[Tensor, " n"]:
        """A stochastic lower bound on the log-probability of 8-bit images under the probability flow, in nats."""
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
        """log p(x) in nats of what the probability flow makes of noise, on [-1, 1]-scaled data.

        With r = sigma/alpha the flow of x_t / alpha is d(x_t / alpha) / d log r = x_t / alpha - D, without clipping D.
        It runs from the r up to which the schedule's samplers go, where x_t / alpha counts as x_0, to where they begin.
        """
        f = self._rate(given or {})
        least, most = (math.log(r) for r in (self.schedule.ratio_min, self.schedule.ratio_max))
        with evaluating(self.net):
            x, integral = density.transport(
                f, x, least, most, divergence=divergence, tolerance=tolerance, generator=generator
            )
        return density.standard_normal(x * math.exp(-most)) - self.target.dims * most + integral

    def _draw_nll(self, network: Network, x: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        """One term of the bound at a fresh x_t, for t = t_step; nats per example."""
        t = self.chain[step].expand(len(x))
        pre = self._preconditioning(t)
        eps = torch.randn(x.shape, generator=generator).to(x.device)
        x_t = _like(self.schedule.alpha(t), x) * x + _like(self.schedule.sigma(t), x) * eps
        y, mix = self._split(network(_like(pre.c_in, x) * x_t, pre.t_in.to(x)))
        # Clamped for the reason given in ``integrate``: it can only bring D nearer to E[x_0 | x_t].
        d = (_like(pre.a, x) * x_t + _like(pre.b, x) * y).clamp(-1, 1)
        return self._step_nll(x, x_t, Denoised(d, mix), torch.full((len(x),), step))

    def _step_nll(self, x: Tensor, x_t: Tensor, denoised: Denoised, step: Tensor) -> Tensor:
        """KL(q(x_s | x_t, x_0) | p(x_s | x_t)) for t = t_step, or the decoder's nll at step 1; nats per example."""
        q = self._posterior(step)
        # At step 1 the true posterior has no variance; as in the paper's code it is given that of step 2.
        least = self._posterior(torch.tensor(2)).variance
        logvar_min, logvar_max = (_like(v.clamp(min=least).log(), x) for v in (q.variance, q.variance_max))
        logvar = torch.lerp(logvar_min, logvar_max, torch.as_tensor(denoised.mix).to(x))
        kl = gaussian_kl(_like(q.d, x) * (x - denoised.x0), logvar_min, logvar)
        # Only the rows of step 1: far from it D may lie thousands of deviations away, where the decoder's mass is 0.
        first = (step == 1).to(x.device)
        decoder = -discretised_gaussian_log_prob(x[first], denoised.x0[first], logvar[first])
        return kl.flatten(1).sum(1).masked_scatter(first, decoder.flatten(1).sum(1))

    def _posterior(self, step: Tensor) -> Posterior[Tensor]:
        t, s = self.chain[step], self.chain[step - 1]
        alpha, sigma = self.schedule.alpha, self.schedule.sigma
        return posterior(alpha(t), sigma(t), alpha(s), sigma(s))


def _like(weights: Tensor, x: Tensor) -> Tensor:
    """One number per example, on x's device and in its precision, shaped to multiply x."""
    return weights.to(x).view(-1, *[1] * (x.dim() - 1))


def _schedule(config: DiffusionConfig) -> schedule.Schedule:
    if config.schedule == "edm":
        return schedule.EDM()
    if config.schedule == "linear":
        return schedule.linear(config.timesteps)
    return schedule.cosine(config.timesteps)
