"""Pictures to their latents and back: what of them a model can say."""

from dataclasses import dataclass
from typing import Any

from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Request
from bowerbird.editing.latents import Latents, psnr_db
from bowerbird.ranges import Count
from bowerbird.registry import actions


@actions.register("reconstruct")
@dataclass(frozen=True)
class Reconstruct(Action):
    """Turns pictures into latents and back, and says how near they come, as PSNR."""

    steps: Count | None = None
    """Steps there, and back, of a diffusion or flow model."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.encodes(model)

    def __call__(self, request: Request) -> Edited:
        source, inputs = request.pictures("reconstruct")
        way = Latents(request, self.steps, guidance=1.0)
        x = way.pictures(way.of(source, inputs.given), inputs.given)
        psnr = psnr_db(x, source)
        facts = tuple({"psnr_db": round(one, 2)} for one in psnr.tolist())
        return request.answer(self, x, inputs, facts=facts, summary=f"PSNR {psnr.mean():.1f} dB on average.")
