"""From one picture to the next, through the latents of a model."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Inputs, Request
from bowerbird.editing.latents import Latents, noise_of_seed, slerp
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Denoises, evaluating
from bowerbird.ranges import Count, Finite, Range
from bowerbird.registry import actions

STATIONS = 4


@actions.register("interpolate")
@dataclass(frozen=True)
class Interpolate(Action):
    """Goes from one sample, picture, label or caption to the next; writes the frames, a strip and a film.

    The stations are the pictures of ``source``, or else the samples of the seed, as many as there are labels or
    captions (default: 4).  Between two of them the latent moves along a great circle; in a diffusion or flow model the
    label or caption changes with it.
    """

    frames: Annotated[int, Range(2)] = 8
    """Pictures from each station to the next, with both."""
    noise: Literal["own", "shared"] = "own"
    """shared: all samples begin as the same noise, so that only the label or caption changes."""
    steps: Count | None = None
    """Steps of the sampler of a diffusion or flow model."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.draws(model)

    def __call__(self, request: Request) -> Edited:
        source, inputs = self.stations(request)
        if inputs.n < 2:
            raise BowerbirdError("There is nothing to go to; give two pictures or labels, or -n 2.")
        legs = torch.arange(inputs.n - 1).repeat_interleave(self.frames)
        share = torch.linspace(0, 1, self.frames).repeat(inputs.n - 1)
        x = self.frames_of(request, source, inputs, legs, share)
        facts = tuple(
            {"from": int(i), "to": int(i) + 1, "share": round(float(w), 4)} for i, w in zip(legs, share, strict=True)
        )
        return request.answer(self, x, Inputs(len(x), None, {}, []), facts=facts, columns=self.frames)

    def stations(self, request: Request) -> tuple[Tensor | None, Inputs]:
        if request.words.get("source") is not None:
            return request.pictures("start from")
        inputs = request.read(default=STATIONS)
        request.require_classes(inputs)
        return None, inputs

    def frames_of(self, request: Request, source: Tensor | None, inputs: Inputs, legs: Tensor, share: Tensor) -> Tensor:
        given, other = (
            {name: value[rows.to(value.device)] for name, value in inputs.given.items()} for rows in (legs, legs + 1)
        )
        if source is None and not isinstance(request.model, Denoises):
            return self.drawn(request, given, other, legs, share)
        way = Latents(request, self.steps, 1.0 if source is not None and self.guidance is None else self.guidance)
        stations = noise_of_seed(request, inputs) if source is None else way.of(source, inputs.given)
        stations = stations[:1].expand_as(stations) if self.noise == "shared" else stations
        share = share.to(stations.device)
        return way.between(slerp(stations[legs], stations[legs + 1], share), given, other, share)

    def drawn(self, request: Request, given: Any, other: Any, legs: Tensor, share: Tensor) -> Tensor:
        """By any model that begins with noise: its random numbers are moved."""
        if not all(torch.equal(given[name], other[name]) for name in given):
            raise BowerbirdError("Only diffusion and flow models can go from one label to another; give one for all.")
        first, second = (
            Draws.joined((Draws(request.seed, 0 if self.noise == "shared" else i), 1) for i in rows.tolist())
            for rows in (legs, legs + 1)
        )
        with evaluating(request.model):
            return request.model.sample(len(share), given, None, Moved(first, second, share))


class Moved(Draws):
    """Random numbers between those of two others."""

    def __init__(self, first: Draws, second: Draws, share: Tensor):
        super().__init__(0)
        self.ends, self.share = (first, second), share

    def randn(self, n: int, *shape: int) -> Tensor:
        a, b = (end.randn(n, *shape) for end in self.ends)
        return slerp(a, b, self.share)

    def rand(self, n: int, *shape: int) -> Tensor:
        """Uniform still: each number is that of its normal quantile."""
        a, b = (normal(end.rand(n, *shape)) for end in self.ends)
        return torch.special.ndtr(slerp(a, b, self.share)).float()


def normal(u: Tensor) -> Tensor:
    """The normal quantile of uniform numbers in [0, 1)."""
    return torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12))
