"""Completing pictures by any model that denoises, without training (see ``samplers.known``)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing import needs
from bowerbird.editing.action import MASK, SHOWN, SOURCE, Action, Edited, Request
from bowerbird.editing.latents import Space
from bowerbird.errors import BowerbirdError
from bowerbird.media.image.supplied import mask_from
from bowerbird.models.base import evaluating
from bowerbird.ranges import Count, Finite
from bowerbird.registry import actions
from bowerbird.samplers import known
from bowerbird.samplers.integrate import integrate, resampled

STEPS, TIMES = 25, 2
"""Measured on 200 test digits, see docs/editing.md."""


@actions.register("inpaint")
@dataclass(frozen=True)
class Inpaint(Action):
    """Makes anew what a box or a mask covers; every other pixel stays exactly as it is."""

    box: tuple[int, int, int, int] | None = None
    """What to make anew, in pixels: left, top, right, bottom."""
    steps: Count = STEPS
    """Steps of the sampler."""
    resample: Count = TIMES
    """How often each step is taken, so that old and new pixels agree; the cost grows with it."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""

    takes: ClassVar[tuple[str, ...]] = (SOURCE, MASK)

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.denoises(model)

    def __call__(self, request: Request) -> Edited:
        source, inputs = request.pictures("complete")
        hidden = self.hidden(request).to(source.device)
        way = request.denoising(inputs.given, self.steps, self.guidance)
        draws = Draws(request.seed)
        keep, space = known.pixels(source, hidden), Space.of(request)
        noise = way.points.sigma[0] * draws.randn(inputs.n, *space.shape).to(source.device)
        rows = resampled(way.points, self.resample)
        with torch.no_grad(), evaluating(request.model):
            x = integrate(known.holding(way, space.agreeing(keep)), noise, rows, generator=draws)
            x = keep(space.pictures(x if way.clip is None else x.clamp(*way.clip)))
        shown = torch.where(hidden, torch.zeros_like(source), source)
        unmarked = replace(request, labeller=replace(request.labeller, watermark=False))  # it would change every pixel
        return unmarked.answer(self, x, replace(inputs, source=None), beside={SHOWN: shown})

    def hidden(self, request: Request) -> Bool[Tensor, "1 1 h w"]:
        """What is made anew; BowerbirdError where box and mask do not say it."""
        (_, height, width), mask = request.shape, request.words.get(MASK)
        if self.box is not None and mask is None:
            hidden = boxed(self.box, height, width)
        elif mask is not None and self.box is None:
            hidden = mask_from(mask, height, width)
        else:
            raise BowerbirdError("Say what to make anew, with either --box LEFT TOP RIGHT BOTTOM or --mask FILE.")
        if not hidden.any():
            raise BowerbirdError("The mask covers nothing; paint white, or erase, what is to be made anew.")
        return torch.from_numpy(hidden)[None, None]


def boxed(box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise BowerbirdError(
            f"The box {left} {top} {right} {bottom} does not lie in a picture of {width}x{height} pixels; give left "
            "and top, then right and bottom."
        )
    hidden = np.zeros((height, width), dtype=bool)
    hidden[top:bottom, left:right] = True
    return hidden
