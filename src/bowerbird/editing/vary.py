"""Others like a picture."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Inputs, Request
from bowerbird.editing.latents import Space
from bowerbird.models.base import Denoises, evaluating
from bowerbird.ranges import Count, Finite, Range
from bowerbird.registry import actions
from bowerbird.samplers.integrate import integrate


@actions.register("vary")
@dataclass(frozen=True)
class Vary(Action):
    """Makes others that resemble a picture: adds noise to it and takes it away, or jitters its code.

    Diffusion and flow models go a part of the way to noise and come back (Meng et al. 2022, SDEdit, arXiv:2108.01073).
    In a VAE the code z becomes √(1 - strength²) z + strength eps, which has the spread of the prior again.
    """

    strength: Annotated[float, Range(0, 1, open_low=True)] = 0.6
    """0: the picture itself; 1: nothing of it is left."""
    steps: Count | None = None
    """Steps of the whole way of a diffusion or flow model, of which a part is gone."""
    guidance: Finite | None = None
    """1: follow what is given; above 1: exaggerate it, at twice the cost."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.encodes(model)

    def __call__(self, request: Request) -> Edited:
        source, inputs = request.pictures("vary")
        noised = self.noised if isinstance(request.model, Denoises) else self.jittered
        with torch.no_grad(), evaluating(request.model):
            return request.answer(self, noised(request, source, inputs), inputs)

    def noised(self, request: Request, source: Tensor, inputs: Inputs) -> Tensor:
        way = request.denoising(inputs.given, self.steps, self.guidance).after(self.strength)
        draws, space = Draws(request.seed), Space.of(request)
        z = space.codes(source)
        x_t = way.points.alpha[0] * z + way.points.sigma[0] * draws.randn(*z.shape).to(z)
        x = integrate(way.denoise, x_t, way.rows(), clip=way.clip, generator=draws)
        return space.pictures(x if way.clip is None else x.clamp(*way.clip))

    def jittered(self, request: Request, source: Tensor, inputs: Inputs) -> Tensor:
        model: Any = request.model
        z = model.encode(source, inputs.given)
        eps = Draws(request.seed).randn(*z.shape).to(z)
        return model.decode((1 - self.strength**2) ** 0.5 * z + self.strength * eps, inputs.given)
