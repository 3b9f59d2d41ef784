"""Generative adversarial networks (Goodfellow et al. 2014, arXiv:1406.2661): a generator learns by fooling a critic.

Notation: latent z, generator G(z), critic D(x) with a *logit* as output: sigmoid(D(x)) is the probability that x is
real where a loss has one, and an unbounded score elsewhere.  ``real_logits`` = D(x), ``fake_logits`` = D(G(z)).
G ends in tanh, so its images lie in [-1, 1] as the data do.

One step of training, read top to bottom in ``GAN.losses``:

    d_steps times:  z ~ p(z);  D moves down  d_loss(D(x), D(G(z))) + penalties       (G held fixed)
    once:           z ~ p(z);  G moves down  g_loss(D(x), D(G(z)))                   (the *updated* D held fixed)

The d_steps critic steps of one training step share its real batch; the papers draw a new one for each.

Penalties keep D's gradient in check; all act on D's loss, with E over the batch and ‖·‖ over one image:

    R1   r1_gamma/2 · E‖∇_x D(x)‖²  at real x         (Mescheder et al. 2018, arXiv:1801.04406, equation 9)
    R2   r2_gamma/2 · E‖∇_x D(x)‖²  at generated x    (the same, equation 10)
    GP   gradient_penalty · E(‖∇_x D(x̂)‖ - 1)²  at x̂ = εx + (1-ε)G(z), ε ~ U(0,1)
                                                       (Gulrajani et al. 2017, arXiv:1704.00028, equation 3)

With ``penalty_every`` = k they are computed at every k-th step and counted k times (Karras et al. 2020,
arXiv:1912.04958, section 3.1).  Gradients are taken with respect to the images *before* augmentation.

In training a generated image is made from what is given with the real image beside it.  Samples are drawn in evaluation
mode: batch normalisation in G then uses its running statistics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, GenerativeModel, Loss, Piece, Positional
from bowerbird.nets.augment import Augmentation, augmented
from bowerbird.nets.conditioning import Given
from bowerbird.nets.generator import Generator, Latent
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, NonNegative
from bowerbird.registry import families
from bowerbird.spec import Spec, Tensors

# ------------------------------------------------------------------------------------------- adversarial losses

Images = Float[Tensor, "n c h w"]
Logits = Float[Tensor, " n"]
Rows = Float[Tensor, "n d"]
Pair = tuple[Float[Tensor, ""], Float[Tensor, ""]]


def minimax(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d = -E log D(x) - E log(1-D(G(z))),  g = E log(1-D(G(z))):  equation 1 of Goodfellow et al. 2014.

    At the best D, d = 2 log 2 - 2 JSD(data, generated).  g is flat where D wins, so G hardly learns then.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean(), -F.softplus(fake_logits).mean()


def non_saturating(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d as in minimax,  g = -E log D(G(z)):  Goodfellow et al. 2014, section 3; steep where D wins."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean(), F.softplus(-fake_logits).mean()


def least_squares(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d = ½E(D(x)-1)² + ½E D(G(z))²,  g = ½E(D(G(z))-1)²:  Mao et al. 2017, arXiv:1611.04076, equation 9."""
    d_loss = (real_logits - 1).square().mean() / 2 + fake_logits.square().mean() / 2
    return d_loss, (fake_logits - 1).square().mean() / 2


def wasserstein(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d = E D(G(z)) - E D(x),  g = -E D(G(z)):  Arjovsky et al. 2017, arXiv:1701.07875, equations 2 and 3.

    Estimates a distance only while D is Lipschitz: clip its weights, penalise its gradient or normalise its spectra.
    """
    return fake_logits.mean() - real_logits.mean(), -fake_logits.mean()


def hinge(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d = E max(0, 1-D(x)) + E max(0, 1+D(G(z))),  g = -E D(G(z)):  Lim and Ye 2017, arXiv:1705.02894."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean(), -fake_logits.mean()


def relativistic(real_logits: Logits, fake_logits: Logits) -> Pair:
    """d = E softplus(-(D(x)-D(G(z)))),  g = E softplus(-(D(G(z))-D(x))).

    Each fake is judged against one real image (relativistic pairing: Jolicoeur-Martineau 2018, arXiv:1807.00734;
    with R1 and R2 it is the R3GAN of Huang et al. 2024, arXiv:2501.05441, equation 2).
    """
    return F.softplus(fake_logits - real_logits).mean(), F.softplus(real_logits - fake_logits).mean()


LossName = Literal["minimax", "non-saturating", "least-squares", "wasserstein", "hinge", "relativistic"]

LOSSES: dict[LossName, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "minimax": minimax,
    "non-saturating": non_saturating,
    "least-squares": least_squares,
    "wasserstein": wasserstein,
    "hinge": hinge,
    "relativistic": relativistic,
}

PAIRED = frozenset({"relativistic"})
"""Losses whose g depends on the real logits; the others spare G's step that forward pass."""

# ---------------------------------------------------------------------------------------------- regularisers


def critic_gradient(logits: Logits, x: Images) -> Rows:
    """∇_x D(x) of each image as a row, itself differentiable.

    The batch's sum has the gradients of its terms only while D treats images separately: without batch normalisation.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1)


def zero_centred_penalty(gradient: Rows, gamma: float) -> Float[Tensor, ""]:
    """gamma/2 · E‖∇D‖²: R1 at real images, R2 at generated ones."""
    return gamma / 2 * gradient.square().sum(1).mean()


def one_centred_penalty(gradient: Rows, weight: float) -> Float[Tensor, ""]:
    """weight · E(‖∇D‖ - 1)²: the gradient penalty of WGAN-GP."""
    return weight * (torch.linalg.vector_norm(gradient, dim=1) - 1).square().mean()


def interpolate(real: Images, fake: Images) -> Images:
    """x̂ = εx + (1-ε)G(z) with one ε ~ U(0,1) per image."""
    return torch.lerp(fake, real, torch.rand(len(real), 1, 1, 1).to(real.device))


def normalise_spectra(net: nn.Module) -> None:
    """Divides every weight matrix of ``net`` by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    A convolution's kernel counts as the matrix (out, in·h·w); the singular value is one power iteration old.
    """
    layers = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for layer in [module for module in net.modules() if isinstance(module, layers)]:
        if not layer.weight.any():  # a branch that starts at zero has no direction to normalise: 0/0
            nn.init.orthogonal_(layer.weight)
        parametrizations.spectral_norm(layer)


# ---------------------------------------------------------------------------------------------------- the family


@families.register("gan")
@dataclass(frozen=True)
class GANConfig(config.ModelConfig):
    """Hyperparameters of a generative adversarial network."""

    net: NetConfig
    """The generator's network, and the critic's unless ``critic`` is given."""
    critic: NetConfig | None = None
    """The critic's network (None: as ``net``)."""
    loss: LossName = "non-saturating"
    """Which game D and G play."""
    n_latent: Count = 64
    """Dimensions of z."""
    latent: Latent = "gaussian"
    """p(z): N(0, I), or uniform on [-1, 1]."""
    d_steps: Count = 1
    """Critic steps per generator step."""
    r1_gamma: NonNegative = 0.0
    """Weight of the gradient penalty at real images (0: none)."""
    r2_gamma: NonNegative = 0.0
    """Weight of the gradient penalty at generated images (0: none)."""
    gradient_penalty: NonNegative = 0.0
    """Weight of WGAN-GP's penalty between real and generated images (0: none; the paper's value is 10)."""
    penalty_every: Count = 1
    """Steps from one computation of the penalties to the next."""
    weight_clip: NonNegative = 0.0
    """Largest absolute value of a critic's weight, for the Wasserstein loss (0: none; the paper's value is 0.01)."""
    spectral_norm: bool = False
    """Keep the largest singular value of every critic's weight at 1."""
    conditional: bool = True
    """Learn images from what is given with them (a label, attributes, a caption), where the data have any."""
    augment: tuple[Augmentation, ...] = ()
    """Differentiable augmentations of what the critic sees."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_clip and self.loss != "wasserstein":
            raise ValueError(f"model.weight_clip is for the wasserstein loss, not for {self.loss}; remove it.")
        if self.weight_clip and (self.gradient_penalty or self.spectral_norm):
            raise ValueError("model.weight_clip excludes gradient_penalty and spectral_norm; keep one of them.")
        constraints = (self.weight_clip, self.gradient_penalty, self.spectral_norm, self.r1_gamma, self.r2_gamma)
        if self.loss == "wasserstein" and not any(constraints):
            raise ValueError("The wasserstein loss has no minimum for a free critic; set model.gradient_penalty = 10.")

    def build(self, spec: Spec) -> "GAN":
        return GAN(self, spec)


class GAN(GenerativeModel):
    """A generator G and a critic D with an optimiser each."""

    def __init__(self, config: GANConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        channels = spec.needs(Tensors, "gan").shape[0]
        self.differentiates_twice = bool(config.r1_gamma or config.r2_gamma or config.gradient_penalty)
        self.G = Generator(config.net.decoder(self.spec, config.n_latent, channels), config.n_latent, config.latent)
        self.D = (config.critic or config.net).encoder(self.spec, 1)
        if config.spectral_norm:
            normalise_spectra(self.D)

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"D": self.D, "G": self.G}

    @property
    def sampling_network(self) -> nn.Module:
        return self.G

    @property
    def pieces(self) -> dict[str, Piece]:
        inputs = {"z": Tensors((self.config.n_latent,), None), **self.spec.given}
        return {"generator": Piece(Positional(self.G, self.G, self.spec.given), inputs, "x")}

    def procedure(self) -> dict[str, Any]:
        return {"kind": "decode", "piece": "generator", "latent": self.config.latent, "n_latent": self.config.n_latent}

    def losses(self, batch: Batch) -> Iterator[Loss]:
        real, given = batch.x, batch.given
        penalise = batch.step % self.config.penalty_every == 0
        for _ in range(self.config.d_steps):
            with torch.no_grad():
                fake = self.G(self.draw_latents(len(real)), given)
            yield self.critic_loss(real, fake, given, penalise)
            self.clip_weights()  # here D has been stepped
        yield self.generator_loss(real, self.G(self.draw_latents(len(real)), given), given)

    def critic_loss(self, real: Images, fake: Images, given: Given, penalise: bool) -> Loss:
        """d_loss plus, where ``penalise``, the penalties; ``fake`` carries no graph of G."""
        c = self.config
        real = real.detach().requires_grad_(penalise and c.r1_gamma > 0)
        fake = fake.detach().requires_grad_(penalise and c.r2_gamma > 0)
        real_logits, fake_logits = self.score(real, given), self.score(fake, given)
        value, _ = LOSSES[c.loss](real_logits, fake_logits)
        penalties = {}
        if real.requires_grad:
            penalties["r1"] = zero_centred_penalty(critic_gradient(real_logits, real), c.r1_gamma)
        if fake.requires_grad:
            penalties["r2"] = zero_centred_penalty(critic_gradient(fake_logits, fake), c.r2_gamma)
        if penalise and c.gradient_penalty:
            x = interpolate(real, fake).detach().requires_grad_()
            gradient = critic_gradient(self.score(x, given), x)
            penalties["gradient_penalty"] = one_centred_penalty(gradient, c.gradient_penalty)
        logs = {
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
            # Share of pairs that D orders rightly: a meaning that all losses share, unlike a threshold at 0.
            "accuracy": (real_logits > fake_logits).float().mean(),
        } | penalties
        value = value + c.penalty_every * sum(penalties.values())
        return Loss("D", value, {name: log.detach() for name, log in logs.items()})

    def generator_loss(self, real: Images, fake: Images, given: Given) -> Loss:
        """g_loss of images that carry G's graph, judged by D as it is now."""
        fake_logits = self.score(fake, given)
        real_logits = torch.full_like(fake_logits, torch.nan)  # a loss that reads them belongs into PAIRED
        if self.config.loss in PAIRED:
            with torch.no_grad():
                real_logits = self.score(real, given)
        _, value = LOSSES[self.config.loss](real_logits, fake_logits)
        return Loss("G", value)

    def score(self, x: Images, given: Given) -> Logits:
        """D's logits for augmented images."""
        return self.D(augmented(x, self.config.augment), given).squeeze(1).float()

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Algorithm 1, line 7 of Arjovsky et al. 2017: every parameter of D into [-weight_clip, weight_clip]."""
        if bound := self.config.weight_clip:
            for parameter in self.D.parameters():
                parameter.clamp_(-bound, bound)

    def draw_latents(self, n: int, source: Any = torch) -> Float[Tensor, "n n_latent"]:
        """z ~ p(z)."""
        return self.G.draw(n, source)

    @torch.no_grad()
    def sample(self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None) -> Images:
        draws = generator or fresh()
        asked = self.requested(n, given, draws)
        return self.G(self.draw_latents(n, draws), asked)
