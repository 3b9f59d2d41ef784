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
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bowerbird import config
from bowerbird.models.base import Batch, GenerativeModel, Loss, evaluating
from bowerbird.models.bound import Bound, discretised_gaussian_log_prob, gaussian_kl
from bowerbird.models.conditioning import Network, drop_labels, guided, labels_for, stratified_uniform, without_classes
from bowerbird.nets.base import NetConfig
from bowerbird.nets.unet import UNetConfig
from bowerbird.samplers import density, schedule
from bowerbird.samplers.integrate import Denoised, Posterior, Sampler, integrate, path, plan, posterior
from bowerbird.samplers.prediction import denoiser_weights, target_weights
from bowerbird.samplers.schedule import Grid

P_MEAN, P_STD = -1.2, 1.2
"""Mean and standard deviation of log sigma in EDM's training (Karras et al. 2022, table 1)."""

MIN_SNR = 5.0
"""gamma of Hang et al. 2023."""


@dataclass(frozen=True)
class DiffusionConfig(config.ModelConfig):
    """Denoising diffusion: DDPM, improved DDPM and EDM."""

    net: NetConfig = field(default_factory=UNetConfig)
    """unet, dit or mlp."""
    schedule: Literal["linear", "cosine", "edm"] = "cosine"
    prediction: Literal["eps", "x0", "v", "edm"] = "eps"
    """What the network is trained to say; the schedule edm has its own, and no other."""
    variance: Literal["fixed-small", "fixed-large", "learned"] = "fixed-small"
    """Of the steps that ``ddpm`` takes back, and of the bound."""
    weighting: Literal["simple", "min-snr"] = "simple"
    """simple: every t counts alike (for edm this is the paper's weighting); min-snr: min(alpha^2/sigma^2, 5) on x_0."""
    loss: Literal["squared", "cross-entropy"] = "squared"
    """cross-entropy: of each pixel as a probability of white, for images of mostly black and white; needs x0."""
    vlb_weight: float = 0.001
    """Weight of the bound, in nats per dimension, beside the squared error; used by the learned variance."""
    timesteps: int = 1000
    """Length T of the chain."""
    sigma_data: float = 0.5
    """EDM: standard deviation of the data."""
    conditional: bool = True
    """Use the labels when the data have them."""
    label_dropout: float = 0.1
    """Probability of hiding a label in training; needed for guidance."""
    sampler: Sampler = "dpm++2m"
    sample_steps: int = 50
    """Steps of the sampler; heun evaluates the network 2 steps - 1 times, the others once per step."""
    grid: Grid | None = None
    """Spacing of the sampler's times (None: the schedule's own)."""
    ratio_min: float | None = None
    """sigma/alpha at the last step, whose estimate of x_0 is the sample (None: the grid's own).  Where the network is
    less sure than the sampler's noise is small, a larger one is better."""
    guidance: float = 1.0
    """1: follow the label; above 1: exaggerate it, at twice the cost."""

    def __post_init__(self) -> None:
        if (self.schedule == "edm") != (self.prediction == "edm"):
            raise ValueError('schedule = "edm" and prediction = "edm" go together; set both or neither.')
        if self.schedule == "edm" and (self.variance == "learned" or self.weighting != "simple"):
            raise ValueError('schedule = "edm" has a fixed variance and weighting = "simple".')
        if self.loss == "cross-entropy" and (self.prediction != "x0" or self.variance == "learned"):
            raise ValueError('loss = "cross-entropy" needs prediction = "x0" and a fixed variance.')
        if self.timesteps < 2:
            raise ValueError(f"timesteps = {self.timesteps} must be at least 2.")

    def build(self, spec: Any) -> "Diffusion":
        return Diffusion(self, spec)


class Preconditioning(NamedTuple):
    """D = a x_t + b net(c_in x_t, t_in), for each t; float64, or plain numbers."""

    a: Any
    b: Any
    c_in: Any
    t_in: Any


class Diffusion(GenerativeModel):
    """A denoiser, its losses, its samplers and its variational bound."""

    estimator = "variational bound, all steps"
    flow_estimator = density.ESTIMATOR

    def __init__(self, config: DiffusionConfig, spec: Any):
        super().__init__()
        self.config = config
        self.spec = spec
        self.n_classes = spec.n_classes if config.conditional else 0
        self.guidance = config.guidance if self.n_classes else 1.0  # without labels there is nothing to exaggerate
        self.schedule = _schedule(config)
        self.chain = self.schedule.times(config.timesteps, "rho" if config.schedule == "edm" else "uniform").flip(0)
        """t_0 = 0 < t_1 < … < t_T = 1, float64 on the CPU."""
        channels_out = 2 * spec.channels if config.variance == "learned" else spec.channels
        self.net = config.net.denoiser(spec if self.n_classes else without_classes(spec), channels_out)

    # ---------------------------------------------------------------------------------------------- training

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x, label = batch.x, batch.label if self.n_classes else None
        if label is not None:
            label = drop_labels(label, self.n_classes, self.config.label_dropout)
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
        output = self.net(_like(pre.c_in, x) * x_t, pre.t_in.to(x), label).float()
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
            nll = self._step_nll(x, x_t, Denoised(d, mix), step) * self.config.timesteps / self.spec.dims
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

        ``grid`` spaces the times; ``clip`` keeps each step's estimate of x_0 in [-1, 1].
        """
        noise = torch.randn(n, *self.spec.shape, generator=generator).to(self.device)
        label = labels_for(n, cond, self.spec, self.n_classes, generator)
        network = self._network(label, self.guidance if guidance is None else guidance)
        c = self.config
        times = self.schedule.times(c.sample_steps if steps is None else steps, grid or c.grid, c.ratio_min)
        weights = zip(*(w.tolist() for w in self._preconditioning(times[:-1])), strict=True)
        table = dict(zip(times.tolist(), (Preconditioning(*w) for w in weights), strict=False))

        def denoise(x_t: Tensor, t: float) -> Denoised:
            pre = table[t]
            y, mix = self._split(network(pre.c_in * x_t, x_t.new_full((n,), pre.t_in)))
            return Denoised(pre.a * x_t + pre.b * y, mix)

        points = path(self.schedule, times)
        rows = plan(sampler or c.sampler, points)
        with evaluating(self.net):
            x = integrate(denoise, points.sigma[0] * noise, rows, clip=1.0 if clip else None, generator=generator)
        return x.clamp(-1, 1)

    def _network(self, label: Tensor | None, guidance: float) -> Network:
        label = None if label is None else label.to(self.device)
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
        n_terms: int | None = None,
    ) -> Float[Tensor, " n"]:
        """A lower bound on the log-probability of 8-bit images, in nats (Ho et al. 2020, eq. 5).

        Exact in the sum over the T steps (T evaluations), or estimated without bias from ``n_terms`` of them.
        """
        return -self.bound(x, label, generator=generator, n_terms=n_terms).total * self.spec.dims * math.log(2)

    @torch.no_grad()
    def bound(
        self,
        x: Float[Tensor, "n c h w"],
        label: Int[Tensor, " n"] | None = None,
        *,
        generator: torch.Generator | None = None,
        n_terms: int | None = None,
    ) -> Bound:
        """Its terms, one draw of x_t for each; ``n_terms`` draws one step from each equal part of the chain."""
        inner = torch.arange(2, len(self.chain))
        parts = inner.tensor_split(min(n_terms or len(inner), len(inner)))
        chosen = [part[torch.randint(len(part), (), generator=generator)] for part in parts]
        network = self._network(label if self.n_classes else None, 1.0)
        alpha_T, sigma_T = self.schedule.alpha(self.chain[-1]), self.schedule.sigma(self.chain[-1])
        prior = 0.5 * (float(alpha_T / sigma_T) * x).square().flatten(1).sum(1)
        with evaluating(self.net):
            decoder = self._draw_nll(network, x, 1, generator)
            terms = [
                self._draw_nll(network, x, int(i), generator) * len(part) for i, part in zip(chosen, parts, strict=True)
            ]
        steps = torch.stack(terms, 1) if terms else x.new_zeros(len(x), 0)
        bits = 1 / (self.spec.dims * math.log(2))
        return Bound(prior * bits, steps * bits, decoder * bits)

    def flow_log_prob(
        self,
        x: Float[Tensor, "n c h w"],
        label: Int[Tensor, " n"] | None = None,
        *,
        generator: torch.Generator | None = None,
        tolerance: float = density.TOLERANCE,
    ) -> Float[Tensor, " n"]:
        """A stochastic lower bound on the log-probability of 8-bit images under the probability flow, in nats."""
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
        """log p(x) in nats of what the probability flow makes of noise, on [-1, 1]-scaled data.

        With r = sigma/alpha the flow of x_t / alpha is d(x_t / alpha) / d log r = x_t / alpha - D, without clipping D.
        It runs from the r up to which the schedule's samplers go, where x_t / alpha counts as x_0, to where they begin.
        """
        network = self._network(label if self.n_classes else None, 1.0)
        least, most = (math.log(r) for r in (self.schedule.ratio_min, self.schedule.ratio_max))

        def f(x: Tensor, log_ratio: float) -> Tensor:
            t = self.schedule.time(torch.tensor(math.exp(log_ratio), dtype=torch.float64)).expand(len(x))
            pre, x_t = self._preconditioning(t), _like(self.schedule.alpha(t), x) * x
            y, _ = self._split(network(_like(pre.c_in, x) * x_t, pre.t_in.to(x)).float())
            return x - (_like(pre.a, x) * x_t + _like(pre.b, x) * y)

        with evaluating(self.net):
            x, integral = density.transport(
                f, x, least, most, divergence=divergence, tolerance=tolerance, generator=generator
            )
        return density.standard_normal(x * math.exp(-most)) - self.spec.dims * most + integral

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
    return weights.to(x).view(-1, 1, 1, 1)


def _schedule(config: DiffusionConfig) -> schedule.Schedule:
    if config.schedule == "edm":
        return schedule.EDM()
    if config.schedule == "linear":
        return schedule.linear(config.timesteps)
    return schedule.cosine(config.timesteps)
