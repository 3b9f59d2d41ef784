"""The report of one run: everything in its folder on one page.

Only files are read (no model is built, no plugin is loaded), and every one of them may be missing: the page shows
what there is, during training as well as after it.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bowerbird import __version__
from bowerbird.data.writing import data_uri
from bowerbird.errors import BowerbirdError
from bowerbird.report.curves import CurveSeries, Panel, curve, log_worthwhile
from bowerbird.report.numbers import count, duration, with_error
from bowerbird.report.page import write_page
from bowerbird.report.table import heading, metric, sentence, unit_text, value_text
from bowerbird.training import salvage
from bowerbird.training.clock import starvation
from bowerbird.training.energy import HOW
from bowerbird.training.rundir import RunDir

T = TypeVar("T")

MOST_GRIDS = 12
"""Sample grids or texts shown; of more, evenly spaced ones with the first and the last."""
_NOT_CURVES = ("step", "seconds", "compute_seconds", "examples", "event")


def write_run_report(folder: Path) -> Path:
    """Writes ``folder/report.html`` from the files of the run folder and returns its path."""
    rundir = RunDir(folder)
    run = salvage.settings(rundir.run_toml)
    environment = salvage.json_object(rundir.path / "environment.json")
    rows = rundir.metrics()
    steps = merged_steps(rows)
    measured = salvage.objects(salvage.json_object(rundir.path / "measurements.json").get("measurements"))
    status = (steps[-1] if steps else {}) | rundir.status()
    return write_page(
        rundir.path / "report.html",
        "run.html",
        version=__version__,
        title=str(run.get("title") or "") or rundir.path.resolve().name,
        subject=_subject(run, environment),
        state=_state(status),
        facts=_readable(facts, [status]) + _readable(best_and_last, [steps]),
        grids=_readable(_grids, [rundir.samples]),
        texts=_readable(_texts, [rundir.samples]),
        losses=[_plot(panel) for panel in loss_panels(steps)],
        curves=[_plot(panel, small=True) for panel in _other_panels(steps)],
        findings=findings_of(rundir.path),
        measurements=_readable(lambda m: [measurement_row(m)], measured),
        events=[row for row in rows if "event" in row],
        configuration=salvage.text(rundir.run_toml),
        environment=environment,
    )


def _readable(shown: Callable[[Any], list[T]], values: list[Any]) -> list[T]:
    """What ``shown`` makes of each value, without those that are damaged."""
    found: list[T] = []
    for value in values:
        with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError, OverflowError, BowerbirdError):
            found += shown(value)
    return found


def merged_steps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logged steps in order; a step that was logged again after a resume counts once, as logged last."""
    by_step = {row["step"]: row for row in rows if "step" in row and "event" not in row}
    return [by_step[step] for step in sorted(by_step)]


def findings_of(folder: Path) -> list[dict[str, Any]]:
    """What the diagnosis found, as it stands in the folder; consequences of another finding come last."""
    return salvage.objects(salvage.json_object(folder / "diagnosis.json").get("findings"))


# ------------------------------------------------------------------------------------------- what the run was


def _subject(run: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    model = run["model"]
    nets = [str(part["name"]) for part in model.values() if isinstance(part, Mapping) and "name" in part]
    what = str(model.get("family", "A model")) + (f" ({', '.join(dict.fromkeys(nets))})" if nets else "")
    source = run["data"].get("source", "")
    where = environment.get("data") or source
    return f"{what}, trained on {where}" if where else what


def _state(status: Mapping[str, Any]) -> str:
    if not status:
        return "This run has not logged a step yet."
    if status.get("finished") is False:
        return f"This run is not finished: its last checkpoint is of step {status.get('step', 0):,}."
    return ""


def facts(status: Mapping[str, Any]) -> list[dict[str, str]]:
    """The cost of the run; what is not known is left out."""
    seconds, examples = status.get("seconds"), status.get("examples")
    rate = f"{examples / seconds:,.0f} per second" if seconds and examples else ""
    shown = [
        ("Steps", status.get("step"), lambda v: f"{v:,}", ""),
        ("Examples seen", examples, count, rate),
        ("Training time", seconds, duration, "wall-clock time of optimiser steps only"),
        (
            "Compute time",
            status.get("compute_seconds"),
            duration,
            starvation(status) or "CPU time of all threads, or time on the accelerator",
        ),
        ("Parameters", status.get("parameters"), count, ""),
        ("Training compute", status.get("flops"), lambda v: count(v, "FLOP"), "from one profiled step"),
        ("Energy", status.get("joules"), lambda v: count(v, "J"), HOW.get(status.get("energy", ""), "")),
    ]
    return [{"name": n, "value": text(v), "note": note} for n, v, text, note in shown if v is not None]


def best_and_last(steps: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The best and the last evaluation of a run with ``train.evaluate_every``, and whether it fell apart between."""
    key = "eval/kid" if any("eval/kid" in row for row in steps) else "eval/sliced_wasserstein"
    scored = [row for row in steps if row.get(key) is not None and math.isfinite(row[key])]
    if not scored:
        return []
    best, last = min(scored, key=lambda row: row[key]), scored[-1]
    (value, error), (final, final_error) = ((row[key], row.get(f"{key}_stderr")) for row in (best, last))
    title = "KID" if key == "eval/kid" else "sliced Wasserstein"
    worse = final - value > 2 * math.hypot(error or 0.0, final_error or 0.0)
    note = f"worse than at step {best['step']:,} by more than the error: the run fell apart since" if worse else (
        "the best one" if last is best else "within the error of the best"
    )  # fmt: skip
    return [
        {"name": "Best evaluation", "value": f"{title} {with_error(value, error)}",
         "note": f"step {best['step']:,}; its weights are best.safetensors"},
        {"name": "Last evaluation", "value": f"{title} {with_error(final, final_error)}", "note": note},
    ]  # fmt: skip


def _grids(samples: Path) -> list[dict[str, Any]]:
    return [
        {"step": step, "text": f"{step:,}", "uri": data_uri(file.read_bytes())}
        for step, file in _by_step(samples, ".png")
    ]


def _texts(samples: Path) -> list[dict[str, str]]:
    return [{"step": f"{step:,}", "text": salvage.text(file)} for step, file in _by_step(samples, ".txt")]


def _by_step(samples: Path, suffix: str) -> list[tuple[int, Path]]:
    """The previews of a kind with their steps, evenly thinned."""
    files = sorted(samples.glob(f"step-*{suffix}"))
    if len(files) > MOST_GRIDS:
        files = [files[round(i * (len(files) - 1) / (MOST_GRIDS - 1))] for i in range(MOST_GRIDS)]
    return [(int(file.stem.removeprefix("step-")), file) for file in files]


def measurement_row(m: Mapping[str, Any]) -> dict[str, Any]:
    """One measurement as the page shows it."""
    about, protocol = metric(m["name"]), m.get("protocol") or {}
    unit = unit_text(about)
    counted = (("n_generated", "samples"), ("n_reference", "real images"))
    brief = [f"{protocol[key]:,} {text}" for key, text in counted if protocol.get(key)]
    return {
        "title": heading(about.title),
        "text": f"{value_text(m['value'], m.get('stderr'), m.get('unit', ''))} {unit}".strip(),
        "better": {"lower": "lower ↓", "higher": "higher ↑"}.get(about.better, ""),
        "reading": sentence(about.reading),
        "protocol": {key: value for key, value in protocol.items() if value not in ("", 0, None, {})},
        "brief": " against ".join(brief) or "show",
    }


# ------------------------------------------------------------------------------------------- curves


def series_of(steps: list[dict[str, Any]], x: str = "step") -> dict[str, tuple[list[float], list[float]]]:
    """Every logged scalar as (x values, values), in the order in which the names first appear."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in steps:
        for name, value in row.items():
            if name not in _NOT_CURVES and isinstance(value, int | float) and x in row:
                found[name][0].append(float(row[x]))
                found[name][1].append(float(value))
    return dict(found)


def loss_panels(steps: list[dict[str, Any]], x: str = "step") -> list[Panel]:
    """One panel per player: losses of different players have different scales and meanings."""
    panels = []
    for i, (name, (xs, ys)) in enumerate((n, s) for n, s in series_of(steps, x).items() if n.endswith("/loss")):
        player = name.removesuffix("/loss")
        panels.append(Panel(f"Loss of {player}", [CurveSeries(player, xs, ys, colour=i)], x, log_worthwhile(ys)))
    return panels


def _other_panels(steps: list[dict[str, Any]]) -> list[Panel]:
    """One panel per quantity, with a line for each player that logged it."""
    panels: dict[str, Panel] = {}
    for name, (xs, ys) in series_of(steps).items():
        player, _, quantity = name.rpartition("/")
        if quantity == "loss" or not ys:
            continue
        panel = panels.setdefault(quantity, Panel(quantity.replace("_", " ")))
        panel.series.append(CurveSeries(player or quantity, xs, ys))
    for panel in panels.values():
        panel.log_y = log_worthwhile([y for series in panel.series for y in series.y])
    return list(panels.values())


def _plot(panel: Panel, small: bool = False) -> dict[str, Any]:
    return {"title": panel.title, "svg": curve(panel, 3.4, 2.2) if small else curve(panel)}
