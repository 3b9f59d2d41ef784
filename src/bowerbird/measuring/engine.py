"""Runs metrics: finds those that apply in a context, or that were named, and computes each."""

import math
import warnings
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
    if few := [f"{metric.name} (below {metric.fewest})" for metric in chosen if n_samples(context) < metric.fewest]:
        warnings.warn(f"Samples: {n_samples(context):g}, too few for {', '.join(few)}.", stacklevel=2)
    if n_reference(context) == 1:
        warnings.warn(f"A single {context.protocol.split} picture tells no standard error.", stacklevel=2)
    return [measurement for metric in chosen for measurement in metric.compute(context)]


def all_metrics() -> list[Metric]:
    """Every registered metric, in the order of the registry."""
    return [registry.metrics.get(name)() for name in registry.metrics.names()]


def by_default(context: Context) -> list[Metric]:
    """Those that apply and do not need to be named; what is left out for want of something is said."""
    known = all_metrics()
    wanting = [need for metric in known if metric.default for need in metric.needs if need in context.missing]
    notes = dict.fromkeys(f"{context.missing[need]}." for need in wanting if not context.has(need))
    chosen = [m for m in known if context.has(*m.needs) and m.by_default(context)]
    short = [m for m in chosen if n_reference(context) < m.fewest]
    if short:
        notes[f"Left out: {shortage(short, context)}."] = None
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return [m for m in chosen if m not in short]


def n_reference(context: Context) -> float:
    """How many reference pictures there are; as many as one likes where nobody counts them."""
    return float(context["sizes"][1]) if context.has("sizes") else math.inf


def n_samples(context: Context) -> float:
    """How many samples there are, as ``n_reference``."""
    return float(context["sizes"][0]) if context.has("sizes") else math.inf


def shortage(metrics: Sequence[Metric], context: Context) -> str:
    """How many reference pictures these metrics need, how many there are, and what to do; without a full stop."""
    first, *others = (f"{metric.name} needs at least {metric.fewest}" for metric in metrics)
    data, split = context.protocol.reference or "the reference", context.protocol.split
    where, advice = f"the {split} split of {data}", "measure against more, for example with --split train+val"
    if split in ("", "all"):
        where, advice = data, "add images to it"
    return "; ".join([f"{first} reference images", *others, f"{where} has {n_reference(context):g}", advice])


def named(context: Context, names: Sequence[str]) -> list[Metric]:
    """The metrics of these names, each once."""
    known = all_metrics()
    applicable = [metric.name for metric in known if context.has(*metric.needs)]
    chosen = []
    for name in names:
        found = _called(name, known, applicable)
        chosen.append(found.name)
        for need in found.needs:
            if not context.has(need):
                phrase = f"it needs {NEEDS.get(need, need).partition(':')[0]}"
                raise BowerbirdError(
                    f"{name} does not apply to {context.what}; {phrase}. {context.missing.get(need, '')}".rstrip(" .")
                    + "."
                )
        if n_reference(context) < found.fewest:
            raise BowerbirdError(f"{shortage([found], context)}.")
    return [metric for metric in known if metric.name in chosen]


def require_known(names: Sequence[str]) -> None:
    """BowerbirdError for a name that no metric has."""
    known = all_metrics()
    for name in names:
        _called(name, known, [metric.name for metric in known])


def _called(name: str, known: Sequence[Metric], offered: Sequence[str]) -> Metric:
    """The metric of that name; where there is none, the ``offered`` ones are said."""
    found = next((metric for metric in known if name in (metric.name, *metric.also)), None)
    if found is None:
        raise unknown("metric", name, [*offered, *(also for metric in known for also in metric.also)])
    return found
