r"""Animation: a picture moves by a code of motion, which another family makes (LFDM: Ni et al. 2023, arXiv:2303.13744).

    x_k = D(x_0, z_k)                 k = 1 … F - 1: the first frame, moved     (``nets.moving``)
    z_1 … z_{F-1} ~ p(z | x_0, given)                                           the prior

Pictures change little while they move.  A model of pixels has to draw them anew in every frame, and whatever it draws
otherwise flickers; here they are taken from the first frame, and what is left to learn is how things move, in some
hundred numbers a frame.  Codes come from frames by an encoder, q(z_k | x_k, x_0) = N(mu, diag exp(logvar)), which is
trained with the decoder as a variational autoencoder is (Kingma & Welling 2014, arXiv:1312.6114),

    loss = D / 2S Σ_s log σ_s²  +  KL(q ‖ N(0, I)),        σ_s² = mean (x_k ↓ s - x̂_k ↓ s)²,        z_k ~ q,

with D numbers a frame and S scales; ↓ s are means of s × s pixels.  For s = 1 alone this is the negative log-likelihood
of a normal distribution with the variance that suits the batch best (Rybkin et al. 2021, arXiv:2006.13202, section 3).
The coarse scales let it find motions of more than a pixel or two, of which single pixels say nothing.

The prior sees the codes of all frames as one small picture, their means mu with (F - 1) · ``depth`` channels, and the
first frame beside them, its pixels folded to the same grid.  It is trained beside the autoencoder, on the codes of the
moment; no gradient of the one reaches the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss, Piece, Portable, Positional, evaluating
from bowerbird.nets.conditioning import Given
from bowerbird.nets.moving import STRIDE, MotionDecoder, MotionEncoder, code_grid
from bowerbird.nets.patches import to_patches
from bowerbird.ranges import Count
from bowerbird.registry import families
from bowerbird.spec import Spec, Tensors, shape_of_clip

FIRST = "first"
"""The name under which the first frame is given."""
SCALES = (1, 2, 4, 8)
"""Sides of the squares of pixels over which frames are compared."""
Codes = Float[Tensor, "n depth rows columns"]
FIRST_LOGVAR = -4.0
"""Before training codes are all but certain, or the decoder would begin by learning to do without them."""
LEAST_VARIANCE = 1e-6
"""Of errors, below which they are no grey level."""


@families.register("animation")
@dataclass(frozen=True)
class AnimationConfig(config.ModelConfig):
    """An autoencoder of motion, and a family over its codes."""

    prior: config.ModelConfig = field(
        default_factory=partial(
            config.model_from,
            {"family": "flow", "prediction": "x0", "label_dropout": 0.0, "net": {"name": "dit", "patch": 1}},
            "prior",
        )
    )
    """The family that makes the codes of a clip."""
    channels: Count = 24
    """Feature maps of encoder and decoder on the finest grid, with places of 2×2 pixels; the next has twice as many."""
    depth: Count = 6
    """Numbers at each place (8×8 pixels) of the code of a frame."""
    per_clip: Count = 4
    """Frames of each clip in a batch that a training step moves."""
    draws: Count = 4
    """How often a training step shows the prior the codes of each clip, each time with other noise."""

    def build(self, spec: Spec) -> "Animation":
        return Animation(self, spec)


def nll(x: Float[Tensor, "n c h w"], mean: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """D / 2S Σ_s log σ_s² in nats a frame."""
    scales = [scale for scale in SCALES if scale <= min(x.shape[-2:])]
    errors = torch.stack([F.avg_pool2d(x - mean, scale).square().mean() for scale in scales])
    return (errors + LEAST_VARIANCE).log().mean() * x[0].numel() / 2


class Animation(GenerativeModel):
    """An autoencoder of motion and a prior over its codes, each a player."""

    def __init__(self, config: AnimationConfig, spec: Spec):
        super().__init__()
        channels, self.n_frames, height, width = shape_of_clip(spec)
        if FIRST not in spec.given:
            raise BowerbirdError("The family animation needs a first frame to move; give it with --data.given first.")
        if self.n_frames < 2:
            raise BowerbirdError("The family animation needs clips of at least 2 frames; set --data.video.frames.")
        self.config, self.spec, self.target = config, spec, spec.needs(Tensors, "animation")
        self.grid = code_grid(height, width)
        codes = Tensors(((self.n_frames - 1) * config.depth, *self.grid), None)
        folded = {FIRST: Tensors((channels * STRIDE**2, *self.grid))}
        encoder = MotionEncoder(channels, config.channels, 2 * config.depth)
        decoder = MotionDecoder(channels, config.channels, config.depth)
        self.autoencoder = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.prior: GenerativeModel = config.prior.build(replace(spec, target=codes, given={**spec.given, **folded}))
        self.Options = self.prior.Options  # type: ignore[misc]

    @property
    def players(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, **self.prior.players}

    @property
    def sampling_network(self) -> nn.Module:
        return self.prior.sampling_network

    # ------------------------------------------------------------------------------------------------- training

    def losses(self, batch: Batch) -> Iterator[Loss]:
        n, each, device = len(batch.x), self.config.per_clip, batch.x.device
        clip = torch.arange(n, device=device).repeat_interleave(each)
        k = 1 + torch.randint(self.n_frames - 1, (n * each,)).to(device)
        x, y = batch.x[clip, :, k], batch.x[:, :, 0]
        mu, logvar = self.posterior(x, y[clip])
        mean = self._moved(mu + (logvar / 2).exp() * torch.randn_like(mu), y, clip)
        kl = (mu.square() + logvar.exp() - logvar - 1).flatten(1).sum(1).mean() / 2
        logs = {"moved_mse": F.mse_loss(mean, x), "still_mse": F.mse_loss(y[clip], x), "kl": kl}
        yield Loss("autoencoder", nll(x, mean) + kl, {name: log.detach() for name, log in logs.items()})
        z = self.codes(batch.x).repeat_interleave(self.config.draws, 0)
        given = {name: one.repeat_interleave(self.config.draws, 0) for name, one in self._folded(batch.given).items()}
        yield from self.prior.losses(batch._replace(x=z, given=given))

    def posterior(self, x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> tuple[Codes, Codes]:
        """mu and logvar of the code that moves y into x."""
        mu, logvar = self.autoencoder["encoder"](x, y).float().chunk(2, 1)
        return mu, logvar + FIRST_LOGVAR

    @torch.no_grad()
    def codes(self, x: Float[Tensor, "n c f h w"]) -> Float[Tensor, "n f_depth rows columns"]:
        """mu of every frame but the first."""
        y = x[:, :, :1].expand_as(x[:, :, 1:])
        frames = (part.transpose(1, 2).flatten(0, 1) for part in (x[:, :, 1:], y))
        with evaluating(self.autoencoder):
            mu, _ = self.posterior(*frames)
        return mu.unflatten(0, (x.shape[0], -1)).flatten(1, 2)

    def _folded(self, given: Given) -> dict[str, Tensor]:
        """What is given, with the first frame on the grid of the codes."""
        return {name: to_patches(one, STRIDE) if name == FIRST else one for name, one in given.items()}

    def _moved(self, z: Tensor, y: Float[Tensor, "n c h w"], clip: Tensor) -> Float[Tensor, "m c h w"]:
        """Frames of the pictures y[clip], each by its code."""
        decoder = cast(MotionDecoder, self.autoencoder["decoder"])
        return decoder(z, y[clip], [one[clip] for one in decoder.features(y)])

    # ------------------------------------------------------------------------------------------------- sampling

    @torch.no_grad()
    def moved(
        self, y: Float[Tensor, "n c h w"], z: Float[Tensor, "n f_depth rows columns"]
    ) -> Float[Tensor, "n c f h w"]:
        """Clips that begin with y and move as the codes say."""
        clip = torch.arange(y.shape[0], device=y.device).repeat_interleave(self.n_frames - 1)
        with evaluating(self.autoencoder):
            frames = self._moved(z.unflatten(1, (self.n_frames - 1, -1)).flatten(0, 1), y, clip)
        frames = frames.unflatten(0, (y.shape[0], -1)).transpose(1, 2)
        x = torch.cat([y[:, :, None].float(), frames], 2)
        return x.clamp(*self.target.bounds) if self.target.bounds else x

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None
    ) -> Float[Tensor, "n c f h w"]:
        """The first frames, moved by codes from the prior; ``options`` are the prior's."""
        given = dict(given or {})
        if FIRST not in given:
            self.requested(n, given, generator or Draws(0))  # which says what is missing
        z = self.prior.sample(n, self._folded(given), options, generator)
        return self.moved(given[FIRST].to(z.device), z)

    @property
    def pieces(self) -> dict[str, Piece]:
        """Those of the prior; what folds the first frame for it, and what moves that frame by the prior's codes."""
        first, codes = self.spec.given[FIRST], self.prior.spec.target
        folded = Positional(self.autoencoder, partial(to_patches, patch=STRIDE))
        moved = Positional(self.autoencoder, self.moved)
        return {
            **self._portable().pieces,
            "folded": Piece(folded, {"x": first}, "first"),
            "moved": Piece(moved, {FIRST: first, "z": codes}, "x"),
        }

    def procedure(self) -> dict[str, Any]:
        """The prior's, on codes of motion."""
        codes = {"shape": list(self.prior.spec.needs(Tensors, "animation").shape), "bounds": None}
        around = {"target": codes, "before": {FIRST: "folded"}, "after": "moved"}
        return self._portable().procedure() | around

    def _portable(self) -> Portable:
        if not isinstance(self.prior, Portable):
            raise BowerbirdError(f"The prior {type(self.prior).__name__} does not declare its pieces.")
        return self.prior
