"""The latents of pictures, as a file."""

from dataclasses import dataclass
from typing import Any

from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Request
from bowerbird.editing.latents import Latents
from bowerbird.ranges import Count
from bowerbird.registry import actions


@actions.register("invert")
@dataclass(frozen=True)
class Invert(Action):
    """Finds what a run would make each picture of: ``latents.safetensors``, and the pictures that this gives.

    It is the code of a VAE, or the noise of a diffusion or flow model, whose equation is followed back (Song et al.
    2021, DDIM, arXiv:2010.02502, section 4.3).  That noise has a deviation below 1 where all training pictures are
    alike, such as in a black margin: nothing there says which noise it was.
    """

    steps: Count | None = None
    """Steps there, and back, of a diffusion or flow model."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.encodes(model)

    def __call__(self, request: Request) -> Edited:
        source, inputs = request.pictures("invert")
        way = Latents(request, self.steps, guidance=1.0)
        latents = way.of(source, inputs.given).float()
        x = way.pictures(latents, inputs.given)
        means, deviations = latents.flatten(1).mean(1), latents.flatten(1).std(1)
        facts = tuple(
            {"latent_mean": round(m, 4), "latent_deviation": round(d, 4)}
            for m, d in zip(means.tolist(), deviations.tolist(), strict=True)
        )
        shape = "x".join(map(str, latents.shape[1:]))
        summary = f"{shape} numbers each, of mean {means.mean():.3f} and deviation {deviations.mean():.3f}."
        return request.answer(self, x, inputs, facts=facts, latents=latents.cpu(), summary=summary)
