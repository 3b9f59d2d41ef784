"""The directions of a latent space, the one that says most about a picture first."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Inputs, Request
from bowerbird.models.base import evaluating
from bowerbird.ranges import Count, Positive, Range
from bowerbird.registry import actions

SAMPLES = 256
"""Of its own, by which a model's directions are sorted."""


@actions.register("traverse")
@dataclass(frozen=True)
class Traverse(Action):
    """Moves along one direction of a VAE's code at a time; writes a strip with a row for each, and a film.

    The directions are sorted by information: KL(q(z_j|x) ‖ p(z_j)) in nats, the mean over 256 samples of the model.
    """

    directions: Count = 8
    """How many, from the one with the most information on."""
    frames: Annotated[int, Range(2)] = 9
    """Pictures of each."""
    reach: Positive = 2.5
    """From minus this to plus this, in standard deviations of the prior."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.infers(model)

    def __call__(self, request: Request) -> Edited:
        model: Any = request.model
        inputs = request.read()
        request.require_classes(inputs)
        with torch.no_grad(), evaluating(model):
            kl = information(request, inputs)
            base = (
                model.encode(inputs.source, inputs.given)[:1] if inputs.source is not None else kl.new_zeros(1, len(kl))
            )
            order = kl.argsort(descending=True)[: self.directions]
            z, places = self.along(base, order)
            x = model.decode(
                z, {name: value[:1].expand(len(z), *value.shape[1:]) for name, value in inputs.given.items()}
            )
        facts = tuple(
            {"dimension": int(j), "kl_nats": round(float(kl[j]), 4), "value": round(float(w), 3)}
            for j in order for w in places
        )  # fmt: skip
        first = ", ".join(f"{int(j)} ({float(kl[j]):.2f})" for j in order)
        summary = f"Dimensions by information, in nats: {first}; all {len(kl)} carry {float(kl.sum()):.1f}."
        return request.answer(self, x, Inputs(len(x), None, {}, []), facts=facts, columns=self.frames, summary=summary)

    def along(self, base: Float[Tensor, "1 d"], order: Tensor) -> tuple[Float[Tensor, "n d"], Tensor]:
        places = torch.linspace(-self.reach, self.reach, self.frames).to(base)
        z = base.repeat(len(order) * self.frames, 1)
        z[torch.arange(len(z)), order.repeat_interleave(self.frames)] = places.repeat(len(order))
        return z, places


def information(request: Request, inputs: Inputs) -> Float[Tensor, " d"]:
    """KL(q(z_j|x) ‖ p(z_j)) of each dimension in nats, the mean over samples of the model."""
    model: Any = request.model
    given = {name: value[:1].expand(SAMPLES, *value.shape[1:]) for name, value in inputs.given.items()}
    mu, logvar = model.posterior(model.sample(SAMPLES, given, None, Draws(request.seed)), given)
    return ((mu.square() + logvar.exp() - logvar - 1) / 2).mean(0)
