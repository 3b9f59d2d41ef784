"""Measurements side by side, for terminals: one row per metric, one column per run."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from bowerbird import registry
from bowerbird.metrics.measurement import Measurement, Protocol
from bowerbird.report.table import metric


def table(rows: dict[str, list[Measurement]]) -> Table:
    """A rich table of several runs' measurements by name of the run.

    The best value of a row is bold where the protocols agree and one direction is better; where they do not agree, the
    row says so and nothing is marked.
    """
    columns = {run: {m.name: m for m in measurements} for run, measurements in rows.items()}
    names = in_order({name for column in columns.values() for name in column})
    out = Table(caption=_caption(rows), caption_justify="left", title_justify="left")
    out.add_column("metric")
    for run in columns:
        out.add_column(run, justify="right")
    for name in names:
        cells = [column.get(name) for column in columns.values()]
        present = [cell for cell in cells if cell is not None]
        comparable = len({cell.protocol.hash for cell in present}) == 1
        marked = best(present) if comparable and len(present) > 1 else None
        title = _title(present[0]) + ("" if comparable else f" (protocols differ: {_differing(present)})")
        out.add_row(title, *(Text("-") if c is None else Text(number(c), "bold" if c is marked else "") for c in cells))
    return out


def in_order(names: Iterable[str]) -> list[str]:
    """As the registry has them, parts of one metric together, unknown ones last."""
    order = {name: i for i, name in enumerate(registry.metrics.names())}
    return sorted(names, key=lambda name: (order.get(name.partition(".")[0], len(order)), name))


def best(measurements: list[Measurement]) -> Measurement | None:
    """The best of several measurements of one metric, None where no direction is better; refuses unlike protocols."""
    better = metric(measurements[0].name).better
    if not better:
        return None
    chosen = measurements[0]
    for other in measurements[1:]:
        if other < chosen if better == "lower" else other > chosen:
            chosen = other
    return chosen


def number(measurement: Measurement) -> str:
    """The value with four significant digits and, where known, its standard error."""
    value = f"{measurement.value:.4g}"
    return value if not measurement.stderr else f"{value} ± {measurement.stderr:.1g}"


def _title(measurement: Measurement) -> str:
    about = metric(measurement.name)
    unit = "" if measurement.unit in ("1", "") else f" [{measurement.unit}]"
    arrow = {"lower": " ↓", "higher": " ↑"}.get(about.better, "")
    return f"{about.title}{unit}{arrow}"


def _differing(measurements: list[Measurement]) -> str:
    """The fields of the protocol that are not the same for all."""
    first, *others = (m.protocol.to_json() for m in measurements)
    return ", ".join(key for key in first if any(other[key] != first[key] for other in others))


def _caption(rows: dict[str, list[Measurement]]) -> str | None:
    """One line on the protocol of the Fréchet distance, or else of whatever was compared with a reference."""
    compared = [
        m for measurements in rows.values() for m in measurements
        if m.protocol.split and m.protocol.n_generated and m.protocol.n_reference
    ]  # fmt: skip
    if not compared:
        return None
    protocol: Protocol = min(compared, key=lambda m: (m.name != "frechet_distance", not m.protocol.extractor)).protocol
    against = f"against {protocol.n_reference:,} of {protocol.reference} ({protocol.split})"
    if not protocol.extractor:
        return f"{protocol.n_generated:,} samples {against}"
    return f"{protocol.n_generated:,} images {against}; features: {protocol.extractor}"
