"""What each medium offers to metrics: how its tokens or tensors become what can be looked at, and what there is of it.

The module NAME holds the ``view`` of the medium NAME.  A medium without a module has what every medium has, and metrics
of its own for it.
"""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Context
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.views.view import View
from bowerbird.media.medium import Opened
from bowerbird.models.base import GenerativeModel


def context_of(model: GenerativeModel, data: Opened, request: Measuring) -> Context:
    """What can be measured of a model, beside ``data`` of its medium."""
    made, wanted = model.spec.medium, data.spec.medium
    if made != wanted:
        raise BowerbirdError(
            f"This model makes {made}, and {data.name} holds {wanted}; name other data with --against."
        )
    view = view_of(made)(model, data, request)
    return Context(view.protocol, view.offers(), f"this model and {data.name}", view.missing)


def view_of(medium: str) -> Callable[[GenerativeModel, Any, Measuring], View]:
    """The view of a medium by its name."""
    module = f"{__name__}.{medium}"
    return getattr(importlib.import_module(module), "view", View) if find_spec(module) else View
