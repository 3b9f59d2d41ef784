"""The table of a comparison: a mean with its standard error per recipe and metric, and the best of each column.

``stderr`` over K seeds is s/√K with s² = Σ(v − mean)²/(K − 1).  With one seed it is the error that the metric itself
states, which knows nothing of how much training varies from seed to seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bowerbird import registry
from bowerbird.report.numbers import duration, with_error

Mark = Literal["best", "tied", ""]
SECONDS = ("s", "s/image")


@dataclass(frozen=True)
class Summary:
    """A quantity over the seeds of one recipe."""

    mean: float
    stderr: float | None
    values: tuple[float, ...]
    unit: str = ""


def summarise(values: Sequence[float], own_stderr: float | None = None, unit: str = "") -> Summary:
    """Mean and standard error of the values of all seeds (of one seed: the value and its own error)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(mean, own_stderr, tuple(values), unit)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return Summary(mean, math.sqrt(variance / len(values)), tuple(values), unit)


class About(NamedTuple):
    """What is known of a metric."""

    unit: str
    better: str
    """lower, higher, or nothing."""
    title: str
    reading: str


def metric(name: str) -> About:
    """What is known of a metric, or of a part of one (``name.part``); of a plugin that is not loaded, a title."""
    whole, _, part = name.partition(".")
    if whole not in registry.metrics.names():
        return About("1", "", name.replace("_", " ").replace(".", " of "), "")
    found: Any = registry.metrics.get(whole)
    title = found.title or whole.replace("_", " ")
    return About(found.unit, found.better, f"{title} of {part}" if part else title, found.reading)


def marks(column: Sequence[Summary | None], better: str) -> list[Mark]:
    """Which cells are the best of their column, and which lie within 2·√(stderr² + stderr_best²) of it.

    No cell is marked where neither direction is better, or where there is nothing to choose between.
    """
    known = [s for s in column if s is not None and math.isfinite(s.mean)]
    if not better or len({s.mean for s in known}) < 2:
        return [""] * len(column)
    best = (min if better == "lower" else max)(known, key=lambda s: s.mean)
    return [_mark(cell, best) for cell in column]


def _mark(cell: Summary | None, best: Summary) -> Mark:
    if cell is None or not math.isfinite(cell.mean):
        return ""
    if cell.mean == best.mean:
        return "best"
    reach = 2 * math.hypot(cell.stderr or 0.0, best.stderr or 0.0)
    return "tied" if abs(cell.mean - best.mean) <= reach else ""


def value_text(value: float | None, stderr: float | None, unit: str) -> str:
    """The number with its error; seconds carry their unit and become milliseconds below 1."""
    if value is None or unit not in SECONDS:
        return with_error(value, stderr)
    if not stderr:
        return duration(value)
    return f"{with_error(1e3 * value, 1e3 * stderr)} ms" if abs(value) < 1 else f"{with_error(value, stderr)} s"


def unit_text(metric: About) -> str:
    """The unit to be shown beside the title: none for pure numbers, and for seconds, which stand in the cells."""
    if metric.unit in ("1", "", *SECONDS):
        return ""
    what, _, per = metric.unit.partition("/")
    return f"per {per}" if per and what in metric.title else metric.unit


def cell_text(summary: Summary | None) -> str:
    return value_text(summary.mean, summary.stderr, summary.unit) if summary else "–"


def heading(title: str) -> str:
    return title[:1].upper() + title[1:]


def sentence(text: str) -> str:
    return f"{heading(text)}." if text else ""
