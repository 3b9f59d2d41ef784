"""Runs metrics: finds those that apply in a context, or that were named, and computes each."""

from collections.abc import Sequence

from bowerbird import registry
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.measuring.context import NEEDS, Context
from bowerbird.measuring.metric import Metric
from bowerbird.metrics.measurement import Measurement


def measure_context(context: Context, names: Sequence[str] | None = None) -> list[Measurement]:
    """The metrics of these names, None: those that apply by default, in the order of the registry.

    A name that does not exist, or that needs what the context does not offer, is an error.
    """
    chosen = by_default(context) if names is None else named(context, names)
    context.chosen = tuple(chosen)
    return [measurement for metric in chosen for measurement in metric.compute(context)]


def all_metrics() -> list[Metric]:
    """Every registered metric, in the order of the registry."""
    return [registry.metrics.get(name)() for name in registry.metrics.names()]


def by_default(context: Context) -> list[Metric]:
    return [m for m in all_metrics() if context.has(*m.needs) and m.by_default(context)]


def named(context: Context, names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, each once."""
    known = all_metrics()
    applicable = [metric.name for metric in known if context.has(*metric.needs)]
    chosen = []
    for name in names:
        found = next((metric for metric in known if name in (metric.name, *metric.also)), None)
        if found is None:
            raise unknown("metric", name, applicable)
        chosen.append(found.name)
        for need in found.needs:
            if not context.has(need):
                phrase = NEEDS.get(need, need).partition(":")[0]
                raise BowerbirdError(f"{name} does not apply to {context.what}; it needs {phrase}.")
    return [metric for metric in known if metric.name in chosen]
