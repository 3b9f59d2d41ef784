"""Measures trained models: pictures, texts, translations or music, as the data are."""

from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.measuring.engine import measure_context, named
from bowerbird.measuring.pairs import save_nearest_pairs
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.seeds import over_seeds
from bowerbird.measuring.views import context_of
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import GenerativeModel


def require_applicable(model: GenerativeModel, data: Any, request: Measuring) -> None:
    """BowerbirdError for a metric that is named but does not apply; the model need not be trained, nor have weights."""
    if request.metrics is not None:
        named(context_of(model, data, request), request.metrics)


def measure_model(model: GenerativeModel, data: Any, request: Measuring = Measuring()) -> list[Measurement]:
    """Measures the model against a split of ``data``, which ``open_data`` returned, as the request says.

    Without names of metrics all are measured that apply and do not need an hour; one that is named but does not apply
    is an error.
    """

    def once(request: Measuring) -> list[Measurement]:
        context = context_of(model, data, request)
        found = measure_context(context, request.metrics)
        if not found:
            raise BowerbirdError(f"No metric applies by default to {context.what}; name some with --metrics.")
        if request.pairs:
            save_nearest_pairs(context, data.train.images, request.pairs)
        return found

    return over_seeds(once, request)
