"""Enlarging pictures by any model that denoises, without training: the small picture says what blocks average to."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing import needs
from bowerbird.editing.action import SHOWN, Action, Edited, Inputs, Request
from bowerbird.editing.latents import Space
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import evaluating
from bowerbird.ranges import Count, Finite, Range
from bowerbird.registry import actions
from bowerbird.samplers import known
from bowerbird.samplers.integrate import integrate, resampled

LARGEST = 8


@actions.register("upscale")
@dataclass(frozen=True)
class Upscale(Action):
    """Enlarges small pictures to those of the run, which show what the model knows and the small ones cannot show.

    Each block of the result averages to the pixel of the small picture that it stands for.
    """

    factor: Annotated[int, Range(2, LARGEST)] = 4
    """How many times higher and wider; the source has the run's size divided by it."""
    average: Count = 1
    """The mean of so many results: softer, and nearer to the truth pixel by pixel."""
    steps: Count = 25
    """Steps of the sampler."""
    resample: Count = 2
    """How often each step is taken, so that blocks agree with one another; the cost grows with it."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.denoises(model)

    def __call__(self, request: Request) -> Edited:
        channels, height, width = request.shape
        if height % self.factor or width % self.factor:
            raise BowerbirdError(
                f"This run makes pictures of {width}x{height}, which --factor {self.factor} does not divide; "
                f"{_dividing(height, width)}"
            )
        small, inputs = request.pictures("enlarge", (channels, height // self.factor, width // self.factor))
        x = self.enlarged(request, small, inputs)
        shown = known.repeated(small, self.factor)
        return request.answer(self, x, Inputs(inputs.n, None, inputs.given, inputs.names), beside={SHOWN: shown})

    def enlarged(self, request: Request, small: Tensor, inputs: Inputs) -> Tensor:
        way = request.denoising(inputs.given, self.steps, self.guidance)
        hold, space = known.averages(small, self.factor), Space.of(request)
        draws = Draws(request.seed)
        total = torch.zeros(1)
        with torch.no_grad(), evaluating(request.model):
            for _ in range(self.average):
                noise = way.points.sigma[0] * draws.randn(inputs.n, *space.shape).to(small)
                rows = resampled(way.points, self.resample)
                x = integrate(known.holding(way, space.agreeing(hold)), noise, rows, generator=draws)
                total = total.to(small) + hold(space.pictures(x))
        x = total / self.average
        return x.clamp(-1, 1)


def _dividing(height: int, width: int) -> str:
    factors = [k for k in range(2, LARGEST + 1) if height % k == 0 and width % k == 0]
    return f"give one of {', '.join(map(str, factors))}." if factors else "no factor does."
