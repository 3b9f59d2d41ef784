"""Pictures in the style of others, by a run that was trained for it."""

from dataclasses import dataclass
from typing import Any, Literal

from bowerbird.editing import needs
from bowerbird.editing.action import Action, Edited, Request
from bowerbird.generating import draw
from bowerbird.models.base import options_from
from bowerbird.registry import actions


@actions.register("restyle")
@dataclass(frozen=True)
class Restyle(Action):
    """Translates pictures as the run has learned to: ``bowerbird sample --source``, as an action."""

    direction: Literal["forward", "backward"] | None = None
    """backward: from target to source, by a run that was trained on cycles."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return needs.translates(model)

    def __call__(self, request: Request) -> Edited:
        model: Any = request.model
        shape = getattr(model, "starts", {}).get(self.direction, model.spec.given["source"].shape)
        source, inputs = request.pictures("restyle", shape)
        said = {} if self.direction is None else {"direction": self.direction}
        options = options_from(request.model, said)
        given = {**inputs.given, "source": source}
        x = draw(request.model, inputs.n, seed=request.seed, given=given, options=options, shown=False).x
        return request.answer(self, x, inputs)
