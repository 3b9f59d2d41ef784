"""Local autoregressive models of pictures: each pixel from those above and to the left of it (NeLLoC, Zhang, Zhang and
McDonagh 2021, arXiv:2109.02639), with a mechanism that copies (pointers: Merity et al. 2017, arXiv:1609.07843).

Notation: x_i is the colour of pixel i, 8 bits a channel, pixels in reading order; c_1 … c_8 are the colours that it may
copy: four neighbours', the next other colour to the left, above and to the right in the row above, and the colour at
the same place of the mirror image.

    -log p(x_i | x_<i) = -log Σ_k π_k [c_k = x_i]                     if it is one of them
                         -log π_0 - Σ_j log p(x_ij | x_i<j, x_<i)     if it is new: channel by channel
    p(x_ij | ·)        = w_0 softmax(logits)[x_ij] + Σ_m w_m (σ((x_ij + ½ - μ_m) / s_m) - σ((x_ij - ½ - μ_m) / s_m))

π, w, logits, μ and s come from a small network that sees 34 pixels around i, which of the c_k are equal, and the place.
The logistics are those of PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517, equation 2), each about what one of five
predictors expects; the softmax knows the colours of a palette.  The sum is what a coder pays, and an upper bound on
-log p: what is "new" could have been one of the c_k, and a coder never says it that way.

In training the network reads many places of a picture at once.  To draw, compress or decompress, it reads one place of
many pictures at a time: ``walk`` is all three, and asks whoever is in charge which possibility comes next.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.models.base import Batch, Estimator, GenerativeModel, Loss, Options
from bowerbird.nets.conditioning import Given
from bowerbird.nets.neighbourhood import (
    N_COPIED,
    N_PREDICTORS,
    Canvas,
    Neighbourhood,
    Rows,
    equalities,
    logarithmic,
    n_features,
)
from bowerbird.ranges import Count
from bowerbird.registry import families
from bowerbird.samplers.rangecoding import Choose, Drawer, WalkCodec
from bowerbird.spec import Spec, Tensors

# ----------------------------------------------------------------------------------------------------- the network


class LocalNet(nn.Module):
    """Features → hidden numbers, and from them the probabilities of what is copied and of new values."""

    def __init__(self, channels: int, n_hidden: int):
        super().__init__()
        self.first, self.second = nn.Linear(n_features(channels), n_hidden), nn.Linear(n_hidden, n_hidden)
        self.copied = nn.Linear(n_hidden, N_COPIED + 1)
        self.hidden = nn.ModuleList(nn.Linear(n_hidden, n_hidden) for _ in range(channels))
        self.value = nn.ModuleList(
            nn.ModuleList(nn.Embedding(256, n_hidden) for _ in range(k)) for k in range(channels)
        )
        self.error = nn.ModuleList(nn.Linear(max(1, k) * N_PREDICTORS, n_hidden, bias=False) for k in range(channels))
        self.logits = nn.ModuleList(nn.Linear(n_hidden, 256) for _ in range(channels))
        self.mixture = nn.ModuleList(nn.Linear(n_hidden, 1 + 3 * N_PREDICTORS) for _ in range(channels))
        for table in (module for module in self.modules() if isinstance(module, nn.Embedding)):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.constant_(self.copied.bias[-1:], 2.0)  # before training, about half of the colours are new

    def forward(self, features: Float[Tensor, "b n_in"]) -> Float[Tensor, "b n_hidden"]:
        h = F.silu(self.first(features.to(self.first.weight.dtype)))
        return h + F.silu(self.second(h))

    def copies(self, h: Float[Tensor, "b n_hidden"]) -> Float[Tensor, "b n_copied_and_new"]:
        """log π, the last being that of a new colour."""
        return at_least_float(self.copied(h)).log_softmax(1)

    def values(
        self,
        k: int,
        h: Float[Tensor, "b n_hidden"],
        seen: Neighbourhood,
        before: Int64[Tensor, "b k"],
        at: Int64[Tensor, "b m"],
    ) -> Float[Tensor, "b m"]:
        """log p of the values ``at`` of channel k, given those of the channels before it."""
        predictors = seen.predictors
        g = self.hidden[k](h)
        for table, value in zip(cast(nn.ModuleList, self.value[k]), before.unbind(1), strict=True):
            g = g + table(value)
        known = before[:, None] - predictors[..., :k] if k else predictors[..., :1] - predictors[:, :1, :1]
        g = F.silu(g + self.error[k](logarithmic(known).flatten(1).to(g)))
        logits, mixture = at_least_float(self.logits[k](g)), at_least_float(self.mixture[k](g))
        weights, shift, log_scale = mixture.split([1 + N_PREDICTORS, N_PREDICTORS, N_PREDICTORS], 1)
        weights = weights.softmax(1)
        mean, scale = predictors[..., k] + 16 * shift, (log_scale + 1).exp()
        logistic = mass_of_bins(at[:, None], mean[..., None], scale[..., None])
        p = weights[:, :1] * logits.softmax(1).gather(1, at) + (weights[:, 1:, None] * logistic).sum(1)
        return p.clamp_min(1e-9).log()


def mass_of_bins(value: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The logistic's mass within ½ of each value; the bins of 0 and 255 are open."""
    below, above = (((value + half - mean) / scale).sigmoid() for half in (-0.5, 0.5))
    return above.masked_fill(value == 255, 1.0) - below.masked_fill(value == 0, 0.0)


def at_least_float(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


# ------------------------------------------------------------------------------------------------------ the family


@families.register("local")
@dataclass(frozen=True)
class LocalConfig(config.ModelConfig):
    """Hyperparameters of a local autoregressive model."""

    n_hidden: Count = 96
    """Width of each hidden layer."""
    n_pixels: Count = 64
    """Randomly drawn pixels of each picture that a training step learns from."""

    def build(self, spec: Spec) -> "Local":
        return Local(self, spec)


class Local(GenerativeModel):
    """One small network, trained as one player."""

    stays = (
        "its network reads each pixel from what Bowerbird computes of its neighbours, and compresses exactly only "
        "where every sum is the same to the last bit; compress with bowerbird edit RUN compress, and hand the run on "
        "with --to safetensors"
    )

    def __init__(self, config: LocalConfig, spec: Spec):
        super().__init__()
        self.config, self.spec = config, spec.alone()
        self.target = spec.needs(Tensors, "local")
        self.net = LocalNet(self.target.shape[0], config.n_hidden)

    @property
    def sampling_network(self) -> nn.Module:
        return self.net

    def losses(self, batch: Batch) -> Iterator[Loss]:
        """Bits per dimension, of some pixels in training and of all in evaluation."""
        x = to_uint8(batch.x)
        n, _, height, width = x.shape
        m = self.config.n_pixels if self.training else height * width
        place = torch.randint(height * width, (n, m)).to(x.device) if self.training else self.every_place(n, x.device)
        copied, new = self.costs(Canvas.of(x), torch.arange(n, device=x.device).repeat_interleave(m), place.flatten())
        scale = 1 / (n * m * x.shape[1] * math.log(2))
        bits, of_new = (copied.sum() + new.sum()) * scale, new.sum().detach() * scale
        logs = {"bits_per_dim": bits.detach(), "of_new_colours": of_new, "new": (new > 0).float().mean()}
        yield Loss("model", bits, logs)

    def every_place(self, n: int, device: Any) -> Int64[Tensor, "n hw"]:
        _, height, width = self.target.shape
        return torch.arange(height * width, device=device).repeat(n, 1)

    def costs(self, canvas: Canvas, i: Rows, place: Rows) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """-log p in nats of the pixels at these places of the pictures i: of what to copy, and of new colours."""
        row, column = place // self.target.shape[2], place % self.target.shape[2]
        seen, x = canvas.about(i, row, column), canvas.colours(i, row, column)
        h = self.net(seen.features)
        log_p, chosen = self.copying(h, seen), seen.first(x)
        (new,) = (chosen == N_COPIED).nonzero(as_tuple=True)
        seen, colour = seen.rows(new), x[new]
        log_new: Any = sum(
            self.net.values(k, h[new], seen, colour[:, :k], colour[:, k : k + 1])[:, 0] for k in range(x.shape[1])
        )
        return -log_p.gather(1, chosen[:, None])[:, 0], torch.zeros_like(log_p[:, 0]).index_put((new,), -log_new)

    def copying(self, h: Float[Tensor, "b n_hidden"], seen: Neighbourhood) -> Float[Tensor, "b n_copied_and_new"]:
        """log-probabilities of the colours to copy, of equal ones together at the first of them, and of a new one."""
        log_p = self.net.copies(h)
        same = equalities(seen.colours)
        repeated = same.tril(-1).any(-1)
        together = log_p[:, None, :-1].masked_fill(~same, -torch.inf).logsumexp(-1).masked_fill(repeated, -math.inf)
        return torch.cat([together, log_p[:, -1:]], 1)

    # --------------------------------------------------------------------------------------------- pixel by pixel

    @torch.no_grad()
    def walk(
        self,
        n: int,
        choose: Choose,
        truth: UInt8[Tensor, "n c h w"] | None = None,
    ) -> UInt8[Tensor, "n c h w"]:
        """n pictures, pixel by pixel as ``choose`` decides; with a ``truth`` it is asked for that."""
        _, height, width = self.target.shape
        canvas = Canvas(n, self.target.shape, self.device)
        known = None if truth is None else truth.to(self.device).permute(0, 2, 3, 1).long()
        for row in range(height):
            for column in range(width):
                x = self.pixel(canvas, row, column, choose, None if known is None else known[:, row, column])
                canvas.put(row, column, x)
        return canvas.pictures()

    def pixel(
        self, canvas: Canvas, row: int, column: int, choose: Choose, truth: Int64[Tensor, "n c"] | None
    ) -> Int64[Tensor, "n c"]:
        """The next pixel of every picture."""
        i = torch.arange(len(canvas), device=self.device)
        seen = canvas.about(i, torch.full_like(i, row), torch.full_like(i, column))
        h = self.net(seen.features)
        chosen = choose(self.copying(h, seen), i, None if truth is None else seen.first(truth))
        x = seen.colours[i, chosen.clamp(max=N_COPIED - 1)]
        (new,) = (chosen == N_COPIED).nonzero(as_tuple=True)
        if len(new):
            seen, every = seen.rows(new), torch.arange(256, device=new.device).expand(len(new), 256)
            for k in range(x.shape[1]):
                log_p = self.net.values(k, h[new], seen, x[new, :k], every)
                x[new, k] = choose(log_p, new, None if truth is None else truth[new, k])
        return x

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Options | None = None, generator: Draws | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Draws pixel by pixel."""
        draws = generator or fresh()
        self.requested(n, given, draws)
        n_symbols = self.target.dims // self.target.shape[0] * (1 + self.target.shape[0])
        return to_float(self.walk(n, Drawer(draws, n, n_symbols)))

    @property
    def estimators(self) -> dict[str, Estimator]:
        return {"nll": Estimator("what a coder pays, a bound", self.log_prob)}

    @torch.no_grad()
    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Float[Tensor, " n"]:
        """A lower bound on log p(x) in nats: what a coder pays.  x is taken to the nearest of 256 values."""
        every = self.every_place(1, batch.x.device)[0]
        rows = []
        for x in to_uint8(batch.x).split(1):
            copied, new = self.costs(Canvas.of(x), torch.zeros_like(every), every)
            rows.append(-(copied + new).cpu().double().sum())
        return torch.stack(rows)

    def codec(self) -> WalkCodec:
        return WalkCodec(self)
