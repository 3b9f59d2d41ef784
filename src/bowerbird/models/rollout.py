r"""Rollout: a clip frame by frame, each made by another family from the frames before it.

    p(x_0 … x_{F-1} | given) = prod_k p(x_k | x_{k-P} … x_{k-1}, x_0, k, given)

A network that makes all frames at once has to carry every detail from the frame where it is seen to all the places
where it will be.  One that makes the next frame finds each detail a few pixels from where it has to go, and how it
moves in the frames before: a task for a few convolutions, on pictures, of which one clip holds F examples.  ``frame``
is any family that makes pictures from pictures.

Errors add up over a rollout, because a network that was trained on true frames sees its own.  In training every frame
before therefore carries noise of a standard deviation drawn from [0, ``past_noise``], so that the network learns to
mend what it sees (Ho et al. 2021, arXiv:2106.15282, section 4, for cascades; Valevski et al. 2024, arXiv:2408.14837,
section 3.2.1, for frames).

What reaches no further back than P frames has no end: samples may have any number of frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws, fresh
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, GenerativeModel, Loss, Options, Piece, Portable
from bowerbird.nets.conditioning import Given
from bowerbird.nets.warp import BEFORE
from bowerbird.ranges import Count, NonNegative, Range
from bowerbird.registry import families
from bowerbird.spec import Spec, Tensors, shape_of_clip

FIRST, PAST, PLACE = "first", BEFORE, "place"
"""What a frame is made from besides what its clip is: the first frame, those just before it, and k / (F - 1)."""


@dataclass(frozen=True)
class RolloutOptions(Options):
    """What can be chosen besides the options of the family that makes the frames."""

    frames: Annotated[int, Range(1, 1024)] | None = None
    """Frames of a clip (None: as many as in training)."""


@families.register("rollout")
@dataclass(frozen=True)
class RolloutConfig(config.ModelConfig):
    """A family that makes the next frame."""

    frame: config.ModelConfig = field(
        default_factory=partial(
            config.model_from, {"family": "flow", "prediction": "x0", "label_dropout": 0.0}, "frame"
        )
    )
    """The family that makes a frame."""
    past: Count = 4
    """Number of previous frames that each frame is made from, besides the first."""
    past_noise: NonNegative = 0.1
    """Largest standard deviation of the noise that training adds to previous frames; frames span [-1, 1]."""
    per_clip: Count = 4
    """Frames of each clip in a batch that a training step learns from."""

    def build(self, spec: Spec) -> "Rollout":
        return Rollout(self, spec)


class Rollout(GenerativeModel):
    """A model of the next frame, and how clips are made of it."""

    def __init__(self, config: RolloutConfig, spec: Spec):
        super().__init__()
        channels, self.n_frames, height, width = shape_of_clip(spec)
        frame = Tensors((channels, height, width))
        before = Tensors((config.past * channels, height, width))
        ours = {PAST: before, FIRST: frame, PLACE: Tensors(())}
        if taken := {PAST, PLACE} & spec.given.keys():
            raise BowerbirdError(f"A rollout has a '{taken.pop()}' of its own; give that column another name.")
        self.config, self.spec, self.target = config, spec, spec.needs(Tensors, "rollout")
        self.frame: GenerativeModel = config.frame.build(replace(spec, target=frame, given={**spec.given, **ours}))
        self.Options = make_dataclass("Options", [], bases=(RolloutOptions, self.frame.Options), frozen=True)  # type: ignore[misc]
        self.begins = 1 if FIRST in spec.given else 0  # the first frame that has to be made

    @property
    def players(self) -> dict[str, nn.Module]:
        return self.frame.players

    # ------------------------------------------------------------------------------------------------- training

    def losses(self, batch: Batch) -> Iterator[Loss]:
        x, n, each = batch.x, len(batch.x), self.config.per_clip
        share = torch.rand(n * each, device=x.device).square()  # early frames know least of how things move
        k = self.begins + (share * (self.n_frames - self.begins)).long()
        clip = torch.arange(n, device=k.device).repeat_interleave(each)
        noise = self.config.past_noise * torch.rand(n, 1, 1, 1, 1, device=x.device) * torch.randn_like(x)
        seen = self._seen(x + noise, x[:, :, 0], clip, k)
        given = {name: value[clip] for name, value in batch.given.items()}
        yield from self.frame.losses(batch._replace(x=x[clip, :, k], given=given | seen))

    def _seen(
        self,
        x: Float[Tensor, "n c f h w"],
        first: Float[Tensor, "n c h w"],
        clip: Int64[Tensor, " m"],
        k: Int64[Tensor, " m"],
    ) -> dict[str, Tensor]:
        """What frame k of each clip is made from; zeros stand for frames before the first."""
        numbers = k[:, None] + torch.arange(-self.config.past, 0, device=k.device)
        before = x.transpose(1, 2)[clip[:, None], numbers.clamp(min=0)] * _as(numbers >= 0, x)
        place = (k.to(x) / (self.n_frames - 1)).clamp(max=1)
        return {PAST: before.flatten(1, 2), FIRST: first[clip] * _as(k > 0, x), PLACE: place}

    # ------------------------------------------------------------------------------------------------- sampling

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None
    ) -> Float[Tensor, "n c f h w"]:
        """Clips, one frame after the other."""
        o, draws = options or self.Options(), generator or fresh()
        of_frame = self.frame.Options(**{one.name: getattr(o, one.name) for one in fields(self.frame.Options)})
        given = self.requested(n, given, draws)
        n_frames = o.frames or self.n_frames
        x = torch.zeros(n, self.target.shape[0], n_frames, *self.target.shape[2:], device=self.device)
        if self.begins:
            x[:, :, 0] = given[FIRST]
        every = torch.arange(n, device=self.device)
        for k in range(self.begins, n_frames):
            seen = self._seen(x, x[:, :, 0], every, torch.full_like(every, k))
            x[:, :, k] = self.frame.sample(n, {**given, **seen}, of_frame, draws)
        return x

    @property
    def sampling_network(self) -> nn.Module:
        return self.frame.sampling_network

    # --------------------------------------------------------------------------------------------------- export

    @property
    def pieces(self) -> dict[str, Piece]:
        """Those that make a frame."""
        return dict(self._portable().pieces)

    def procedure(self) -> dict[str, Any]:
        """That of a frame, and which frames it is made from."""
        frame = self.frame.spec.needs(Tensors, "rollout")
        return self._portable().procedure() | {
            "target": {"shape": list(frame.shape), "bounds": frame.bounds},
            "rollout": {"past": self.config.past, "begins": self.begins},
        }

    def _portable(self) -> Portable:
        if not isinstance(self.frame, Portable):
            raise BowerbirdError(f"The family {type(self.frame).__name__} of the frames does not declare its pieces.")
        return self.frame


def _as(there: Bool[Tensor, "*n"], x: Tensor) -> Float[Tensor, "*n 1 1 1"]:
    """1 or 0 for each of some pictures."""
    return there.to(x)[..., None, None, None]
