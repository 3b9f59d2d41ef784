"""Discrete autoencoders (van den Oord et al. 2017, VQ-VAE, arXiv:1711.00937) and a prior over their codes.

Notation: the encoder gives a grid of vectors z_e(x), one per place; the codebook has K vectors e_k; each place is
replaced by the nearest of them, and the decoder makes the picture of these.

    k = argmin_j ‖z_e - e_j‖²,    z_q = e_k                                                     (equations 1 and 2)
    loss = E (x - decoder(z_q))² + commitment · E (z_e - sg(z_q))²                                    (equation 3)

Both are means over numbers, and sg stops the gradient.  The nearest code has no gradient, so one is made up for it:

    straight-through    z_q = z_e + sg(z_q - z_e): the encoder gets the decoder's gradient as it is
    rotation            z_q = sg(‖z_q‖/‖z_e‖ R) z_e, where R turns the direction of z_e into that of z_q: it gets the
                        gradient turned back, at the same angle to z_e as it had to z_q
                                                                    (Fifty et al. 2024, arXiv:2410.06424, section 4.2)

The codebook has no gradient: e_k is the running mean of the z_e that chose it (appendix A.1 of the first paper).  A
code that hardly any choose stays where it is while the encoder moves on, so that in the end a few codes stand for
everything: the codebook has collapsed.  Such a code begins anew at a random z_e of the batch (Dhariwal et al. 2020,
arXiv:2005.00341, section 3.1).  As hardly any is near the data before the first step, this also places them at first.

The prior is a sequence model of the codes k in raster order, after a token for each class that is given:

    -log p(k | given) = -Σ_i log p(k_i | k_<i, given)                                               in nats per code

It is trained beside the autoencoder, on the codes of the moment, by an optimiser of its own: no gradient of the one
reaches the other.  A sample is a draw from the prior, decoded.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig, SequenceState
from bowerbird.nets.rows import PixelRows
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.ranges import Count, Decay, NonNegative, Share, Whole
from bowerbird.registry import families
from bowerbird.samplers.decoding import Nucleus, Reader, Sampling, choose, continuations
from bowerbird.spec import Spec, Tensors, Tokens

Images = Float[Tensor, "n c h w"]
Grid = Float[Tensor, "n n_embd rows columns"]
Vectors = Float[Tensor, "m n_embd"]
Codes = Int[Tensor, " m"]

# ------------------------------------------------------------------------------------------------- made-up gradients


def straight_through(z_e: Vectors, z_q: Vectors) -> Vectors:
    """z_q with the gradient of z_e."""
    return z_e + (z_q - z_e).detach()


def rotated(z_e: Vectors, z_q: Vectors) -> Vectors:
    """z_q as a rotation and scaling of z_e, both held constant.

    With unit vectors e, q along z_e, z_q and r along e + q, the rotation is R = I - 2 r rᵀ + 2 q eᵀ.
    """
    e, q = F.normalize(z_e.detach(), dim=1), F.normalize(z_q.detach(), dim=1)
    r = F.normalize(e + q, dim=1)
    turned = z_e - 2 * r * (r * z_e).sum(1, keepdim=True) + 2 * q * (e * z_e).sum(1, keepdim=True)
    return turned * (z_q.norm(dim=1, keepdim=True) / z_e.norm(dim=1, keepdim=True).clamp(min=TINY)).detach()


TINY = 1e-12
GradientName = Literal["straight-through", "rotation"]
GRADIENTS: dict[GradientName, Callable[[Tensor, Tensor], Tensor]] = {
    "straight-through": straight_through,
    "rotation": rotated,
}

# ------------------------------------------------------------------------------------------------------- the codebook


def perplexity(share: Float[Tensor, " n_codes"]) -> Float[Tensor, ""]:
    """exp(-Σ p log p): how many codes there would be if all were used alike."""
    return torch.special.entr(share).sum().exp()


class Codebook(nn.Module):
    """K vectors, each the running mean of what chose it."""

    vectors: Tensor
    counts: Tensor
    """How many of a batch chose each code, as a running mean."""
    restarts: Tensor
    """How often codes have begun anew, after the first step."""

    def __init__(self, n_codes: int, n_embd: int, decay: float, restart_below: float):
        super().__init__()
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("vectors", torch.randn(n_codes, n_embd))
        self.register_buffer("counts", torch.zeros(n_codes))
        self.register_buffer("restarts", torch.zeros(()))

    def nearest(self, z: Vectors) -> Codes:
        """argmin_j ‖z - e_j‖² of each."""
        with torch.autocast(z.device.type, enabled=False):  # rounded distances would choose others
            return (self.vectors.square().sum(1) - 2 * z.detach() @ self.vectors.T).argmin(1)

    def of(self, codes: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape n_embd"]:
        """The vector of each code."""
        return F.embedding(codes, self.vectors)

    @torch.no_grad()
    def follow(self, z: Vectors, codes: Codes) -> None:
        """e ← running mean; codes that fewer than ``restart_below`` of their fair share choose begin anew."""
        new = torch.zeros_like(self.vectors).index_add_(0, codes, z)
        counts = torch.lerp(torch.bincount(codes, minlength=len(self.counts)).to(z), self.counts, self.decay)
        sums = torch.lerp(new, self.vectors * self.counts[:, None], self.decay)
        self.vectors.copy_(torch.where(counts[:, None] > TINY, sums / counts[:, None].clamp(min=TINY), self.vectors))
        fair = len(z) / len(counts)
        dead = counts < self.restart_below * fair
        self.restarts += dead.sum() * self.counts.any()
        anew = z[torch.randint(len(z), (len(counts),), device="cpu").to(z.device)]
        self.vectors.copy_(torch.where(dead[:, None], anew, self.vectors))
        self.counts.copy_(counts.masked_fill(dead, GRACE * self.restart_below * fair))

    def health(self, codes: Codes) -> dict[str, Tensor]:
        """Of the running shares: perplexity, and the part of the codes that are in use at all; restarts so far."""
        now = torch.bincount(codes, minlength=len(self.counts)).float()
        counts = self.counts if self.counts.any() else now
        usage = (counts > IN_USE * counts.mean()).float().mean()
        return {"perplexity": perplexity(counts / counts.sum()), "usage": usage, "restarts": self.restarts.clone()}


GRACE = 3
"""What a code begins with, as a multiple of what it needs: some steps to be chosen in, little that it must forget."""
IN_USE = 0.1
"""A code is in use when it is chosen at least so often, as a part of its fair share."""

# --------------------------------------------------------------------------------------------------------- the family


@dataclass(frozen=True)
class VQVAEOptions(Options):
    """How the codes of a sample are drawn."""

    temperature: NonNegative = 1.0
    """Below 1 more cautious, 0 always the most probable code."""
    top_k: Whole = 0
    """Draw among this many of the most probable codes (0: all)."""
    top_p: Nucleus = 1.0
    """Draw among the fewest codes whose probabilities add up to this."""


@families.register("vqvae")
@dataclass(frozen=True)
class VQVAEConfig(config.ModelConfig):
    """Hyperparameters of a discrete autoencoder and its prior."""

    net: NetConfig
    """Encoder and decoder, with a grid between them."""
    prior: NetConfig = TransformerConfig()
    """The sequence model of the codes."""
    n_codes: Count = 128
    """Vectors in the codebook."""
    n_embd: Count = 16
    """Numbers of each."""
    commitment: NonNegative = 1.0
    """Weight of the encoder's distance from its codes."""
    gradient: GradientName = "straight-through"
    """What passes for the gradient of the nearest code."""
    codebook_decay: Decay = 0.95
    """Of the running means that the codes are."""
    restart_below: Share = 0.1
    """Codes that are chosen less often than this part of their fair share begin anew (0: none does)."""
    conditional: bool = True
    """Learn the codes from what is given with the images (a label, or several attributes), where the data have any."""

    def build(self, spec: Spec) -> "VQVAE":
        return VQVAE(self, spec)


class VQVAE(GenerativeModel):
    """An encoder and a decoder with a codebook between them, and a prior over the codes."""

    Options = VQVAEOptions

    def __init__(self, config: VQVAEConfig, spec: Spec):
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else spec.alone()
        self.target = spec.needs(Tensors, "vqvae")
        encoder = config.net.grid_encoder(spec.alone(), config.n_embd)
        decoder = config.net.grid_decoder(spec.alone(), config.n_embd, self.target.shape[0])
        self.autoencoder = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.codebook = Codebook(config.n_codes, config.n_embd, config.codebook_decay, config.restart_below)
        self.grid = encoder.grid
        codes = replace(self.spec, target=Tensors((1, *self.grid), None))
        self.rows = PixelRows(codes, config.n_codes)
        self.prior = config.prior.language_model(self.rows.vocab_size, self.rows.context)

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "prior": self.prior}

    @property
    def sampling_network(self) -> nn.Module:
        return self.prior

    @property
    def pieces(self) -> dict[str, Piece]:
        tokens, codes = (
            Tokens(size, self.rows.context, 0, 0, 0) for size in (self.rows.vocab_size, self.rows.n_values)
        )
        z = Tensors((self.config.n_embd * self.rows.dims,), None)
        return {
            "reader": Piece(Positional(self.prior, lambda tokens: self.read(tokens)[0]), {"tokens": tokens}, "logits"),
            "codebook": Piece(Positional(self.codebook, self.codebook.of), {"codes": codes}, "vectors"),
            "decoder": Piece(Positional(self.autoencoder, self.bounded), {"z": z}, "x"),
        }

    def procedure(self) -> dict[str, Any]:
        about = {"levels": self.rows.n_values, "counts": self.rows.counts, "places": self.rows.dims}
        return {"kind": "codes", "piece": "reader", "sampling": asdict(Sampling())} | about

    def losses(self, batch: Batch) -> Iterator[Loss]:
        z_e = self.vectors(batch.x)
        codes = self.codebook.nearest(z_e)
        z_q = self.codebook.of(codes)
        output = self.picture(GRADIENTS[self.config.gradient](z_e, z_q))
        mse, distance = F.mse_loss(output, batch.x), F.mse_loss(z_e, z_q)
        logs = {"mse": mse, "commitment": distance} | self.codebook.health(codes)
        value = mse + self.config.commitment * distance
        yield Loss("autoencoder", value, {name: log.detach() for name, log in logs.items()})
        if self.training:
            self.codebook.follow(z_e.detach(), codes)
        nll = self.nll(codes.view(len(batch.x), -1), batch.given)
        yield Loss("prior", nll, {"nll_per_code": nll.detach()})

    def vectors(self, x: Images) -> Vectors:
        """z_e of every place, row by row."""
        return self.autoencoder["encoder"](x).float().permute(0, 2, 3, 1).flatten(0, 2)

    def picture(self, z: Vectors) -> Images:
        """What the decoder makes of the vectors of all places."""
        return self.autoencoder["decoder"](z.view(-1, *self.grid, z.shape[1]).permute(0, 3, 1, 2)).float()

    def nll(self, codes: Int[Tensor, "n places"], given: Given) -> Float[Tensor, ""]:
        """-log p(k | given) in nats, the mean over codes."""
        first = self.rows.first_tokens(len(codes), given, codes.device)
        logits, _ = self.read(torch.cat([first, codes[:, :-1]], 1))
        return F.cross_entropy(logits[:, first.shape[1] - 1 :].float().flatten(0, 1), codes.flatten())

    def read(
        self, tokens: Int[Tensor, "n length"], state: SequenceState | None = None
    ) -> tuple[Tensor, SequenceState | None]:
        """Logits of the code after each token, and the prior's state after the last."""
        logits, state = self.prior(tokens, state)
        return logits[..., : self.config.n_codes], state

    # ------------------------------------------------------------------------------------------- codes and pictures

    def encode(self, x: Images, given: Given | None = None) -> Float[Tensor, "n n_latent"]:
        """z_e of all places, before the nearest codes are taken: (n, n_embd · rows · columns)."""
        return self.vectors(x).view(x.shape[0], -1)

    def decode(self, z: Float[Tensor, "n n_latent"], given: Given | None = None) -> Images:
        """The picture of the codes nearest to z."""
        return self.picture_of(self.codebook.nearest(z.view(-1, self.config.n_embd)))

    def picture_of(self, codes: Codes) -> Images:
        """The decoder's picture of the codes of all places."""
        return self.bounded(self.codebook.of(codes))

    def bounded(self, z: Tensor) -> Images:
        """The decoder's picture of the vectors of all places, within the bounds of the data."""
        x = self.picture(z.view(-1, self.config.n_embd))
        return x.clamp(*self.target.bounds) if self.target.bounds else x

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: VQVAEOptions | None = None, generator: Draws | None = None
    ) -> Images:
        """Draws the codes from left to right and from top to bottom, and decodes them."""
        o, draws = options or VQVAEOptions(), generator or fresh()
        sampling = Sampling(temperature=o.temperature, top_k=o.top_k, top_p=o.top_p)
        asked = self.requested(n, given, draws)
        codes = continuations(
            Reader(self.read, self.prior.initial_state, None),
            self.rows.beginnings(n, asked),
            n_tokens=self.rows.dims,
            choice=lambda logits, past: choose(logits, sampling, draws, past),
            eos=self.rows.eos,
            pad=self.rows.pad,
        )
        return self.picture_of(torch.stack([code.clone() for code in codes], 1).flatten())
