"""Variational autoencoders (Kingma and Welling 2014, arXiv:1312.6114): an encoder and a decoder tied by a bound.

Notation: latent z with prior p(z) = N(0, I); the encoder gives q(z|x) = N(mu, diag exp(logvar)); the decoder gives
the parameters of p(x|z), independent over the numbers of an image.  All probabilities are in nats, per image.

    ELBO(x) = E_q log p(x|z) - KL(q(z|x) ‖ p(z))  ≤  log p(x)
    loss    = -E_q log p(x|z) + kl_weight · KL,   z = mu + exp(logvar/2) · eps,  eps ~ N(0, I)

``kl_weight`` is beta (Higgins et al. 2017), risen linearly from 0 over ``kl_warmup_steps``.

The likelihoods, for x in [-1, 1]:

    bernoulli              pixel white with probability sigmoid(logits).  For pixels between black and white the loss
                           is a cross-entropy, not the likelihood of anything: ``log_prob`` then refuses.
    gaussian               N(mean, scale²), one learned scale (Rybkin et al. 2021, arXiv:2006.13202)
    discretised-logistic   logistic(mean, scale), one learned scale per channel (Salimans et al. 2017,
                           arXiv:1701.05517, equation 2, with one component)

The last two are turned into probabilities of the 256 values that a pixel can have: the density is integrated over
the pixel's bin, x ± 1/255, and the bins of black and white reach to infinity.  Their likelihoods are therefore
comparable with one another and convert to bits per dimension.  Only the *training* of ``gaussian`` takes the density
times the bin's width instead (as its paper does; the integral costs ten times more), which agrees where
scale ≫ 1/255 and charges black and white too much.

``log_prob`` is the importance-weighted bound with K samples (Burda et al. 2016, arXiv:1509.00519, equation 8):

    log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x);     the ELBO at K = 1, log p(x) as K → ∞
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, NonNegative, Whole
from bowerbird.registry import families
from bowerbird.samplers.bound import discretised_gaussian_log_prob
from bowerbird.spec import Spec, Tensors

Images = Float[Tensor, "... c h w"]
PerDimension = Float[Tensor, "n n_latent"]

# ------------------------------------------------------------------------------------------ the two terms' formulas


def reparameterised(mu: PerDimension, logvar: PerDimension, eps: Float[Tensor, "*k n n_latent"]) -> Tensor:
    """z = mu + exp(logvar/2) · eps: a draw from q whose gradient reaches mu and logvar."""
    return mu + (logvar / 2).exp() * eps


def kl_to_standard_normal(mu: PerDimension, logvar: PerDimension) -> PerDimension:
    """KL(N(mu, e^logvar) ‖ N(0, 1)) = ½(mu² + e^logvar - logvar - 1) of each dimension, in nats."""
    return (mu.square() + logvar.exp() - logvar - 1) / 2


def with_free_bits(kl: PerDimension, free_bits: float) -> Float[Tensor, ""]:
    """Σ_j max(free_bits, mean_n kl_nj) in nats (Kingma et al. 2016, arXiv:1606.04934, free bits)."""
    return kl.mean(0).clamp(min=free_bits).sum()


def bits_per_dim(log_prob: Float[Tensor, " *n"], dims: int) -> Float[Tensor, " *n"]:
    """-log_prob / (dims · ln 2): nats per image as bits per number of an image."""
    return -log_prob / (dims * math.log(2))


# ---------------------------------------------------------------------------------------------------- likelihoods

BIN = 1 / 255
"""Half the distance between neighbouring pixel values in [-1, 1]."""
INNER = 1 - BIN
"""|x| beyond this means black or white, whose bin is open."""


def bernoulli_log_prob(x: Images, logits: Images, log_scale: Tensor | None = None) -> Images:
    """t log p + (1-t) log(1-p) with t = (x+1)/2, p = sigmoid(logits)."""
    return -F.binary_cross_entropy_with_logits(logits, ((x + 1) / 2).expand_as(logits), reduction="none")


def gaussian_density(x: Images, mean: Images, log_scale: Tensor) -> Images:
    """log(2 BIN · N(x; mean, scale²)): the bin's probability by the midpoint rule."""
    standardised = (x - mean) * (-log_scale).exp()
    return math.log(2 * BIN) - standardised.square() / 2 - log_scale - math.log(2 * math.pi) / 2


def gaussian_log_prob(x: Images, mean: Images, log_scale: Tensor) -> Images:
    """log(Φ(b) - Φ(a)) with a, b = (x ∓ BIN - mean)/scale; open at black and white."""
    return discretised_gaussian_log_prob(x, mean, 2 * log_scale)


def logistic_log_prob(x: Images, mean: Images, log_scale: Tensor) -> Images:
    """log(sigmoid(b) - sigmoid(a)) with a, b = (x ∓ BIN - mean)/scale; open at black and white.

    Uses sigmoid(b) - sigmoid(a) = sigmoid(b) · sigmoid(-a) · (1 - e^(a-b)), which is exact at any distance.
    """
    centre, half = (x - mean) * (-log_scale).exp(), BIN * (-log_scale).exp()
    black, white = F.logsigmoid(centre + half), F.logsigmoid(half - centre)
    inner = black + white + (-torch.expm1(-2 * half)).log()
    return torch.where(x < -INNER, black, torch.where(x > INNER, white, inner))


def draw_bernoulli(logits: Images, log_scale: Tensor | None, draws: Draws) -> Images:
    u = draws.rand(*logits.shape).to(logits)
    return (u < logits.sigmoid()).to(logits) * 2 - 1


def draw_gaussian(mean: Images, log_scale: Tensor, draws: Draws) -> Images:
    eps = draws.randn(*mean.shape).to(mean)
    return (mean + log_scale.exp() * eps).clamp(-1, 1)


def draw_logistic(mean: Images, log_scale: Tensor, draws: Draws) -> Images:
    u = draws.rand(*mean.shape).to(mean)
    return (mean + log_scale.exp() * u.logit()).clamp(-1, 1)


class Likelihood(NamedTuple):
    """p(x|z) of each number of an image as functions of the decoder's output and a log scale."""

    objective: Callable[..., Tensor]
    """(x, output, log_scale) → nats: what training maximises."""
    log_prob: Callable[..., Tensor]
    """(x, output, log_scale) → nats: the probability of x."""
    mean: Callable[[Tensor], Tensor]
    """output → the expected image (of the density, clamped to the range of x)."""
    draw: Callable[..., Tensor]
    """(output, log_scale, draws) → an image with its pixel noise."""


LikelihoodName = Literal["bernoulli", "gaussian", "discretised-logistic"]

LIKELIHOODS: dict[LikelihoodName, Likelihood] = {
    "bernoulli": Likelihood(bernoulli_log_prob, bernoulli_log_prob, lambda y: y.sigmoid() * 2 - 1, draw_bernoulli),
    "gaussian": Likelihood(gaussian_density, gaussian_log_prob, lambda y: y.clamp(-1, 1), draw_gaussian),
    "discretised-logistic": Likelihood(logistic_log_prob, logistic_log_prob, lambda y: y.clamp(-1, 1), draw_logistic),
}

FIRST_LOG_SCALE = -1.0
"""Starting scale e⁻¹, near the spread of images in [-1, 1]: Adam moves it by about the learning rate per step."""
ACTIVE_NATS = 0.01
"""A latent dimension counts as active when it carries more than this."""

# ----------------------------------------------------------------------------------------------------- the family


@dataclass(frozen=True)
class VAEOptions(Options):
    """How samples are drawn."""

    noise: Literal["mean", "sample"] = "mean"
    """The expected image, or one with the likelihood's pixel noise."""


@families.register("vae")
@dataclass(frozen=True)
class VAEConfig(config.ModelConfig):
    """Hyperparameters of a variational autoencoder."""

    net: NetConfig
    """Encoder and decoder."""
    n_latent: Count = 32
    """Dimensions of z."""
    likelihood: LikelihoodName = "gaussian"
    """p(x|z); bernoulli is meant for data = { binarize = "static" }."""
    beta: NonNegative = 1.0
    """Weight of the KL; only 1 trains the bound itself."""
    kl_warmup_steps: Whole = 0
    """Steps over which that weight rises from 0."""
    free_bits: NonNegative = 0.0
    """Nats that each latent dimension may carry, on average over a micro-batch, before it pays."""
    conditional: bool = True
    """Learn images from what is given with them (a label, attributes, a caption), where the data have any."""

    def build(self, spec: Spec) -> "VAE":
        return VAE(self, spec)


class VAE(GenerativeModel):
    """An encoder and a decoder, trained as one player."""

    Options = VAEOptions
    ROWS = 1024
    """Latents that ``log_prob`` decodes at a time: bounds its memory."""

    def __init__(self, config: VAEConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        self.target = spec.needs(Tensors, "vae")
        self.likelihood = LIKELIHOODS[config.likelihood]
        self.encoder = config.net.encoder(self.spec, 2 * config.n_latent)
        self.decoder = config.net.decoder(self.spec, config.n_latent, self.target.shape[0])
        self.log_scale: nn.Parameter | None = None
        if config.likelihood == "gaussian":
            self.log_scale = nn.Parameter(torch.full((1,), FIRST_LOG_SCALE))
        if config.likelihood == "discretised-logistic":
            self.log_scale = nn.Parameter(torch.full((self.target.shape[0], 1, 1), FIRST_LOG_SCALE))

    @property
    def sampling_network(self) -> nn.Module:
        return self.decoder

    @property
    def pieces(self) -> dict[str, Piece]:
        given = self.spec.given
        code = {"z": Tensors((self.config.n_latent,), None), **given}
        return {
            "decoder": Piece(Positional(self.decoder, self.decode, given), code, "x"),
            "encoder": Piece(Positional(self.encoder, self.encode, given), {"x": self.target, **given}, "z"),
        }

    def procedure(self) -> dict[str, Any]:
        return {"kind": "decode", "piece": "decoder", "latent": "gaussian", "n_latent": self.config.n_latent}

    def losses(self, batch: Batch) -> Iterator[Loss]:
        mu, logvar = self.posterior(batch.x, batch.given)
        z = reparameterised(mu, logvar, torch.randn(mu.shape).to(mu))
        output = self.decoder(z, batch.given).float()
        nll = -self.likelihood.objective(batch.x, output, self.log_scale).flatten(1).sum(1).mean()
        kl = kl_to_standard_normal(mu, logvar)
        value = nll + self.kl_weight(batch.step) * with_free_bits(kl, self.config.free_bits)
        yield Loss("model", value, self.logs(nll.detach(), kl.detach().mean(0)))

    def kl_weight(self, step: int) -> float:
        """beta · min(1, step / kl_warmup_steps)."""
        warmup = self.config.kl_warmup_steps
        return self.config.beta * (min(1.0, step / warmup) if warmup else 1.0)

    def logs(self, nll: Float[Tensor, ""], kl: Float[Tensor, " n_latent"]) -> dict[str, Tensor]:
        """Both terms of the bound in nats, and how many latent dimensions are in use."""
        logs = {"nll": nll, "kl": kl.sum(), "active_units": (kl > ACTIVE_NATS).sum().float()}
        if self.log_scale is not None:
            logs["scale"] = self.log_scale.detach().exp().mean()
            logs["bits_per_dim"] = bits_per_dim(-(nll + kl.sum()), self.target.dims)
        return logs

    def posterior(self, x: Float[Tensor, "n c h w"], given: Given | None = None) -> tuple[PerDimension, PerDimension]:
        """mu and logvar of q(z|x)."""
        mu, logvar = self.encoder(x, given).float().chunk(2, dim=1)
        return mu, logvar

    def encode(self, x: Float[Tensor, "n c h w"], given: Given | None = None) -> PerDimension:
        """The posterior's mean."""
        return self.posterior(x, given)[0]

    @property
    def code_shape(self) -> tuple[int, int, int]:
        return self.config.net.code_shape(self.spec, self.config.n_latent)

    def decode(self, z: PerDimension, given: Given | None = None) -> Float[Tensor, "n c h w"]:
        """The expected image of each code."""
        return self.likelihood.mean(self.decoder(z, given).float())

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: VAEOptions | None = None, generator: Draws | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Decodes z ~ N(0, I)."""
        draws = generator or fresh()
        asked = self.requested(n, given, draws)
        output = self.decoder(draws.randn(n, self.config.n_latent).to(self.device), asked).float()
        if (options or VAEOptions()).noise == "sample":
            return self.likelihood.draw(output, self.log_scale, draws)
        return self.likelihood.mean(output)

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator("importance-weighted bound, 500 samples", self.log_prob)}

    @torch.no_grad()
    def log_prob(
        self, batch: Batch, generator: torch.Generator | None = None, n_samples: int = 500
    ) -> Float[Tensor, " n"]:
        """Importance-weighted lower bound on log p(x|given) with K = ``n_samples``, in nats.

        Raises BowerbirdError when the likelihood is Bernoulli and x is not binary.
        """
        if self.config.likelihood == "bernoulli" and not (batch.x.abs() == 1).all():
            raise BowerbirdError(
                "A Bernoulli VAE has likelihoods of black-and-white images only; "
                'set data.binarize = "static" or model.likelihood = "discretised-logistic".'
            )
        pieces = [slice(start, start + self.ROWS) for start in range(0, len(batch.x), self.ROWS)]
        given = [{name: value[rows] for name, value in batch.given.items()} for rows in pieces]
        return torch.cat(
            [
                self.importance_bound(batch.x[rows], g, n_samples, generator)
                for rows, g in zip(pieces, given, strict=True)
            ]
        )

    def importance_bound(
        self, x: Float[Tensor, "n c h w"], given: Given, n_samples: int, generator: torch.Generator | None
    ) -> Float[Tensor, " n"]:
        """log 1/K Σ_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x), at most ``ROWS`` latents at a time."""
        mu, logvar = self.posterior(x, given)
        total = torch.full((len(x),), -math.inf, device=mu.device)
        at_once = max(1, self.ROWS // len(x))
        for start in range(0, n_samples, at_once):
            k = min(at_once, n_samples - start)
            eps = torch.randn(k, *mu.shape, generator=generator).to(mu)
            z = reparameterised(mu, logvar, eps)
            repeated = {name: value.repeat(k, *[1] * (value.dim() - 1)) for name, value in given.items()}
            output = self.decoder(z.flatten(0, 1), repeated)
            log_likelihood = self.likelihood.log_prob(x, output.float().unflatten(0, (k, -1)), self.log_scale)
            # log p(z) - log q(z|x): the factors 1/√(2π) cancel, and (z - mu)/sigma is eps
            log_ratio = ((eps.square() - z.square() + logvar) / 2).sum(-1)
            log_w = log_likelihood.flatten(2).sum(2) + log_ratio
            total = torch.logaddexp(total, log_w.logsumexp(0))
        return total - math.log(n_samples)
