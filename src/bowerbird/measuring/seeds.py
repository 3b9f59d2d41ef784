"""Several sample sets of one model: each measured alike, and their mean with the error that drawing samples makes."""

import statistics
from collections.abc import Callable
from dataclasses import replace

from bowerbird.measuring.request import Measuring
from bowerbird.metrics.measurement import Measurement, require_comparable, settings


def over_seeds(measure: Callable[[Measuring], list[Measurement]], request: Measuring) -> list[Measurement]:
    """Measures with the seeds ``seed`` … ``seed + seeds - 1``; values become means, errors s/√K.

    The error says how much the draw of samples matters, not how much training does.  A value that no seed moves (an
    exact likelihood) keeps its own error.  The sheet of pairs is that of the first seed.
    """
    seeds = range(request.seed, request.seed + request.seeds)
    once = request.but(seeds=1)
    first, *others = (measure(once.but(seed=s, pairs=request.pairs if s == request.seed else None)) for s in seeds)
    if not others:
        return first
    return [_mean([m, *(_named(m.name, other) for other in others)]) for m in first]


def _named(name: str, measurements: list[Measurement]) -> Measurement:
    return next(m for m in measurements if m.name == name)


def _mean(same: list[Measurement]) -> Measurement:
    for other in same[1:]:
        require_comparable(same[0], other)
    values = [m.value for m in same]
    if len(set(values)) == 1:
        return same[0]
    protocol = replace(
        same[0].protocol, parameters=settings({**dict(same[0].protocol.parameters), "sample_sets": len(same)})
    )
    stderr = statistics.stdev(values) / len(values) ** 0.5
    return replace(same[0], value=statistics.fmean(values), stderr=stderr, protocol=protocol, interval=None)
