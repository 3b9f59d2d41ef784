"""What else a run can do than draw samples: complete a picture, enlarge it, vary it, go from one to another.

An action is a file of this package, or of a plugin, whose class is registered among ``registry.actions``.  It is a
dataclass whose fields are its options, says what a run lacks for it, and is called with a ``Request``.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from bowerbird import config, registry
from bowerbird.editing.action import MASK, Action, Edited, Request
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.models.base import GenerativeModel

__all__ = ["Action", "Edited", "Request", "action_from", "actions_of", "edit"]


def actions_of(model: GenerativeModel) -> list[str]:
    """The names of the actions that this model can do."""
    kinds: dict[str, Any] = {name: registry.actions.get(name) for name in registry.actions.names()}
    return [name for name, kind in kinds.items() if not kind.lacks(model)]


def action_from(name: str, options: Mapping[str, Any] | None) -> Action:
    """The action of that name with these options; BowerbirdError for a name or an option that does not exist."""
    kind: Any = registry.actions.get(name)
    known = [one.name for one in fields(kind)]
    for option in options or {}:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    action: Action = config.build(kind, dict(options or {}), f"edit {name}")
    return action


def edit(action: Action, request: Request) -> Edited:
    """Does it; BowerbirdError where the model lacks what it takes, naming what the model can do instead."""
    name = registry.actions.name_of(type(action))
    if lacks := action.lacks(request.model):
        can = actions_of(request.model)
        instead = f"what it can do: {', '.join(can)}" if can else "bowerbird sample draws from it"
        raise BowerbirdError(f"This run cannot {name}: {lacks}; {instead}.")
    if MASK in request.words and MASK not in action.takes:
        raise BowerbirdError(f"A mask does not apply to {name}; it is for inpaint.")
    return action(request)
