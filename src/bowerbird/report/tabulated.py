"""Measurements side by side, for terminals: one row per metric, one column per run.

Numbers of different protocols never stand in one table: ``table`` refuses them, ``tables`` gives each protocol a table
of its own and says what differs.
"""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from bowerbird import registry
from bowerbird.metrics.measurement import Measurement, Protocol, require_comparable
from bowerbird.report.numbers import with_error
from bowerbird.report.table import metric

Columns = Mapping[str, Mapping[str, Measurement]]
"""Measurements by run and by name."""


def table(rows: Mapping[str, Sequence[Measurement]]) -> Table:
    """A rich table of several runs' measurements by name of the run; the best of a row is bold.

    Raises BowerbirdError, naming what differs, where a metric was not measured alike in all runs.
    """
    columns = _columns(rows)
    names = in_order({name for column in columns.values() for name in column})
    out = Table(caption=_caption(rows), caption_justify="left", title_justify="left")
    out.add_column("metric")
    for run in columns:
        out.add_column(run, justify="right")
    for name in names:
        cells = [column.get(name) for column in columns.values()]
        present = [cell for cell in cells if cell is not None]
        for other in present[1:]:
            require_comparable(present[0], other)
        marked = best(present) if len(present) > 1 else None
        shown = (Text("-") if c is None else Text(number(c), "bold" if c is marked else "") for c in cells)
        out.add_row(_title(present[0]), *shown)
    return out


def tables(rows: Mapping[str, Sequence[Measurement]]) -> list[Table | str]:
    """A table of all that was measured alike; of the rest, a table per protocol after a sentence that says why."""
    columns = _columns(rows)
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for name in in_order({name for column in columns.values() for name in column}):
        alike.setdefault(_parts(columns, name), []).append(name)
    out: list[Table | str] = []
    for parts, names in sorted(alike.items(), key=lambda item: len(item[0])):
        if len(parts) > 1:
            out.append(_why(columns, parts, names))
        out += [table(_chosen(columns, part, names)) for part in parts or [tuple(columns)]]
    return out


def _columns(rows: Mapping[str, Sequence[Measurement]]) -> Columns:
    return {run: {m.name: m for m in measurements} for run, measurements in rows.items()}


def _parts(columns: Columns, name: str) -> tuple[tuple[str, ...], ...]:
    """The runs that measured this alike, together; empty where all did."""
    parts: dict[str, list[str]] = {}
    for run, column in columns.items():
        if name in column:
            parts.setdefault(column[name].protocol.hash, []).append(run)
    return tuple(tuple(part) for part in parts.values()) if len(parts) > 1 else ()


def _chosen(columns: Columns, runs: Sequence[str], names: Sequence[str]) -> dict[str, list[Measurement]]:
    return {run: [columns[run][name] for name in names if name in columns[run]] for run in runs}


def _why(columns: Columns, parts: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    """What differs between the protocols of these metrics."""
    first, *others = (columns[part[0]][names[0]].protocol for part in parts)
    differing = dict.fromkeys(phrase for other in others for phrase in first.differences(other))
    which = "All of this was" if len(names) > 3 else f"{', '.join(metric(name).title for name in names)}:"
    return f"{which} measured differently, so there is no common table: {', '.join(differing)} differ."


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
    """The value with its standard error, where one is known, and with as many digits as that allows."""
    return with_error(measurement.value, measurement.stderr)


def _title(measurement: Measurement) -> str:
    about = metric(measurement.name)
    unit = "" if measurement.unit in ("1", "") else f" [{measurement.unit}]"
    arrow = {"lower": " ↓", "higher": " ↑"}.get(about.better, "")
    return f"{about.title}{unit}{arrow}"


def _caption(rows: Mapping[str, Sequence[Measurement]]) -> str | None:
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
