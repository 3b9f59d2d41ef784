"""Compression with loss: an autoencoder whose code is rounded to integers, and a model of how many bits they take
(Ballé, Minnen, Singh, Hwang and Johnston 2018, arXiv:1802.01436), for all qualities at once.

Notation: quality q in [0, 1]; u = a(q) ∘ g_a(x) the code, a grid of C channels, and û = round(u); x̂ = g_s(û / a(q), q).

    loss   = -log p(û; q) + λ(q) Σ (x - x̂)²,    λ(q) = 20 · 60^q,    both in nats per number of the picture
    a(q)   = exp(s + t q), one s and t per channel: finer steps for a higher quality (Cui et al. 2021, arXiv:2003.02012)
    p(û_i) = σ((û_i + ½ - μ) / b) - σ((û_i - ½ - μ) / b),    μ and b of the codes to the left and above, and of q
             (Minnen, Ballé and Toderici 2018, arXiv:1809.02736)

λ Σ (x - x̂)² is the negative logarithm of a Gaussian of variance 1/(2λ) about x̂, so this is a VAE whose posterior is
uniform and one unit wide.  In training the code is given noise, u + U(-½, ½), where its probability is taken, and is
rounded, with the gradient of the identity, where it is decoded or seen by its neighbours (Minnen and Singh 2020,
arXiv:2007.08739).
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Positional
from bowerbird.nets.conditioning import Given
from bowerbird.nets.roles import NetConfig
from bowerbird.ranges import Count, Share
from bowerbird.registry import families
from bowerbird.samplers.bitsback import Coded, one_thread
from bowerbird.samplers.rangecoding import Choose, Drawer, Reader, Writer, batches
from bowerbird.spec import Field, Spec, Tensors

Images = Float[Tensor, "n c h w"]
Codes = Float[Tensor, "n channels rows columns"]
Quality = Float[Tensor, " n"]

LARGEST = 63
"""Codes lie within ± this."""
MIDDLE = 0.5
"""The quality of whoever names none."""
LEAST_WEIGHT, RATIO = 20.0, 60.0
"""λ(0), and λ(1) / λ(0)."""
NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
"""Rows down and columns right of the codes that say what to expect of one."""


def weight_of_error(q: Quality) -> Quality:
    """λ(q)."""
    return LEAST_WEIGHT * RATIO**q


def mass(u: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The logistic's mass within ½ of u."""
    return ((u + 0.5 - mean) / scale).sigmoid() - ((u - 0.5 - mean) / scale).sigmoid()


def rounded(u: Tensor) -> Tensor:
    """round(u) with the gradient of u."""
    return u + (u.round() - u).detach()


@dataclass(frozen=True)
class LossyOptions(Options):
    """How samples are drawn."""

    quality: Share = MIDDLE
    """0: the smallest files, 1: the nearest pictures."""


@families.register("lossy")
@dataclass(frozen=True)
class LossyConfig(config.ModelConfig):
    """Hyperparameters of a learnt compressor with loss."""

    net: NetConfig
    """Encoder and decoder; grid keeps where things are."""
    n_latent: Count = 3072
    """Numbers in the code of a picture."""
    n_hidden: Count = 128
    """Width of the hidden layers that predict the codes."""

    def build(self, spec: Spec) -> "Lossy":
        return Lossy(self, spec)


class Context(nn.Module):
    """The codes around one → mean and scale of each of its channels."""

    def __init__(self, channels: int, n_hidden: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(len(NEIGHBOURS) * channels + 3, n_hidden), nn.SiLU(),
            nn.Linear(n_hidden, n_hidden), nn.SiLU(),
            nn.Linear(n_hidden, 2 * channels),
        )  # fmt: skip

    def forward(self, codes: Codes, q: Quality) -> tuple[Codes, Codes]:
        _, _, rows, columns = codes.shape
        padded = F.pad(codes.asinh(), (1, 1, 1, 0))
        seen = [padded[:, :, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns] for down, right in NEIGHBOURS]
        down, right = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        place = torch.stack([down, right]).to(codes).expand(codes.shape[0], 2, rows, columns)
        quality = q.to(codes)[:, None, None, None].expand(codes.shape[0], 1, rows, columns)
        said = self.layers(torch.cat([*seen, place, quality], 1).movedim(1, -1)).movedim(-1, 1)
        mean, log_scale = (said if said.dtype == torch.float64 else said.float()).chunk(2, 1)
        return mean, F.softplus(log_scale) + 0.02


class Lossy(GenerativeModel):
    """Encoder, decoder, gains and the model of the codes, trained as one player."""

    Options = LossyOptions

    def __init__(self, config: LossyConfig, spec: Spec):
        super().__init__()
        self.config, self.spec = config, spec.alone()
        self.target = spec.needs(Tensors, "lossy")
        self.grid = config.net.code_shape(self.spec, config.n_latent)
        channels, rows, columns = self.grid
        self.encoder = config.net.encoder(self.spec, config.n_latent)
        self.decoder = config.net.decoder(self.spec, config.n_latent + rows * columns, self.target.shape[0])
        self.context = Context(channels, config.n_hidden)
        self.log_gain = nn.Parameter(torch.full((channels,), 1.0))
        self.log_gain_rise = nn.Parameter(torch.full((channels,), math.log(RATIO) / 2))

    @property
    def sampling_network(self) -> nn.Module:
        return self.decoder

    def gain(self, q: Quality) -> Float[Tensor, "n channels 1 1"]:
        """a(q)."""
        return (self.log_gain + self.log_gain_rise * q.to(self.log_gain)[:, None]).exp()[..., None, None]

    def losses(self, batch: Batch) -> Iterator[Loss]:
        n = len(batch.x)
        q = (torch.rand(n) if self.training else torch.linspace(0, 1, n)).to(batch.x)
        u = self.code(batch.x, q)
        whole = rounded(u)
        noisy = u + (torch.rand(u.shape) - 0.5).to(u) if self.training else whole
        nats = -mass(noisy, *self.context(whole, q)).clamp_min(1e-9).log().flatten(1).sum(1)
        error = (batch.x - self.picture(whole, q)).square().flatten(1).sum(1)
        value = (nats + weight_of_error(q) * error).mean() / self.target.dims
        pixels = self.target.dims / self.target.shape[0]
        logs = {"bits_per_pixel": nats.mean() / math.log(2) / pixels, "squared_error": error.mean() / self.target.dims}
        yield Loss("model", value, {name: log.detach() for name, log in logs.items()})

    def code(self, x: Images, q: Quality) -> Codes:
        """u, before it is rounded."""
        y = self.encoder(x, {})
        y = (y if y.dtype == torch.float64 else y.float()).unflatten(1, self.grid)
        return (self.gain(q) * y).clamp(-LARGEST, LARGEST)

    def picture(self, codes: Codes, q: Quality) -> Images:
        """x̂."""
        quality = q.to(codes)[:, None, None, None].expand(codes.shape[0], 1, *self.grid[1:])
        x = self.decoder(torch.cat([codes / self.gain(q), 2 * quality - 1], 1).flatten(1), {})
        return x if x.dtype == torch.float64 else x.float()

    @torch.no_grad()
    def walk(
        self, n: int, q: Quality, choose: Choose, truth: Int64[Tensor, "n channels rows columns"] | None = None
    ) -> Codes:
        """The codes of n pictures, one after the other as ``choose`` decides; with a ``truth`` it is asked for that."""
        channels, rows, columns = self.grid
        codes = torch.zeros(n, *self.grid, dtype=self.log_gain.dtype, device=self.device)
        every = torch.arange(-LARGEST, LARGEST + 1, device=self.device).to(codes)
        of = torch.arange(n, device=self.device).repeat_interleave(channels)
        for row in range(rows):
            for column in range(columns):
                mean, scale = (one[:, :, row, column].reshape(-1, 1) for one in self.context(codes, q))
                wanted = None if truth is None else truth[:, :, row, column].flatten() + LARGEST
                chosen = choose(mass(every, mean, scale).clamp_min(1e-9).log(), of, wanted)
                codes[:, :, row, column] = every[chosen].view(n, channels)
        return codes

    # ------------------------------------------------------------------------------------------------------- use

    def encode(self, x: Images, given: Given | None = None) -> Float[Tensor, "n n_latent"]:
        """û at the middle quality."""
        return self.code(x, self._middle(len(x))).round().flatten(1)

    def decode(self, z: Float[Tensor, "n n_latent"], given: Given | None = None) -> Images:
        """x̂ of û at the middle quality."""
        return self.picture(z.unflatten(1, self.grid), self._middle(len(z))).clamp(-1, 1)

    def _middle(self, n: int) -> Quality:
        return torch.full((n,), MIDDLE, device=self.device)

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: LossyOptions | None = None, generator: Draws | None = None
    ) -> Images:
        """Draws the codes, and decodes them."""
        draws, o = generator or fresh(), options or LossyOptions()
        self.requested(n, given, draws)
        q = torch.full((n,), o.quality, device=self.device)
        codes = self.walk(n, q, Drawer(draws, n, self.config.n_latent))
        return self.picture(codes, q).clamp(-1, 1)

    def codec(self) -> "LossyCodec":
        return LossyCodec(self)

    # --------------------------------------------------------------------------------------------------- export

    @property
    def pieces(self) -> dict[str, Piece]:
        """u of a picture, what to expect of every code (its mean, and its scale after all means), and a picture."""
        codes: dict[str, Field] = {"codes": Tensors(self.grid, None)}
        quality: dict[str, Field] = {"quality": Tensors((), (0.0, 1.0))}
        return {
            "encoder": Piece(Positional(self, self.code), {"x": self.target, **quality}, "u"),
            "context": Piece(Positional(self, self._expected), codes | quality, "mean_scale"),
            "decoder": Piece(Positional(self, self.picture), codes | quality, "x"),
        }

    def _expected(self, codes: Codes, q: Quality) -> Float[Tensor, "n two_channels rows columns"]:
        return torch.cat(self.context(codes, q), 1)

    def procedure(self) -> dict[str, Any]:
        """Codes place by place, and the picture of them."""
        return {
            "kind": "places", "piece": "decoder", "grid": list(self.grid), "largest": LARGEST, "quality": MIDDLE,
        }  # fmt: skip


class LossyCodec:
    """Pictures to codes, codes to words, and back."""

    lossless = False

    def __init__(self, model: Lossy):
        self.model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)

    def pack(
        self, images: UInt8[np.ndarray, "n c h w"], progress: Callable[[int], object], quality: float | None
    ) -> Coded:
        quality = MIDDLE if quality is None else quality
        writer = Writer()
        with one_thread(), torch.no_grad():
            for rows in batches(len(images)):
                q = self.qualities(len(rows), quality)
                x = torch.from_numpy(images[rows.start : rows.stop]).double() / 127.5 - 1
                self.model.walk(len(rows), q, writer, self.model.code(x, q).round().long())
                progress(len(rows))
        return Coded(writer.coder.get_compressed(), {"quality": quality})

    def unpack(
        self, coded: Coded, n: int, shape: tuple[int, int, int], progress: Callable[[int], object]
    ) -> UInt8[np.ndarray, "n c h w"]:
        reader, done = Reader(coded.words), []
        with one_thread(), torch.no_grad():
            for rows in batches(n):
                q = self.qualities(len(rows), coded.facts["quality"])
                x = self.model.picture(self.model.walk(len(rows), q, reader), q)
                done.append(((x + 1) * 127.5).round().clamp(0, 255).byte().numpy())
                progress(len(rows))
        return np.concatenate(done)

    def qualities(self, n: int, quality: float) -> Quality:
        return torch.full((n,), quality, dtype=torch.float64)
