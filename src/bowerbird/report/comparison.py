"""The report of a comparison: its ``report.json``, its sheets and its runs' curves on one page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bowerbird.data.writing import data_uri
from bowerbird.report.curves import CurveSeries, Dot, Panel, curve, dots, log_worthwhile
from bowerbird.report.numbers import count, duration
from bowerbird.report.page import write_page
from bowerbird.report.run import findings_of, merged_steps, series_of
from bowerbird.report.table import Summary, cell_text, heading, marks, metric, sentence, summarise, unit_text
from bowerbird.training.budget import compute_budget, describe_budget
from bowerbird.training.clock import starvation
from bowerbird.training.rundir import RunDir

SAMPLING_COST = ("network_evaluations", "seconds_per_image")
COST: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("Training time", duration),
    "compute_seconds": ("Compute time", duration),
    "step": ("Steps", "{:,.0f}".format),
    "examples": ("Examples seen", count),
    "flops": ("Training compute", lambda flops: count(flops, "FLOP")),
    "parameters": ("Parameters", count),
    "joules": ("Energy, measured or estimated", lambda joules: count(joules, "J")),
}
"""What training one seed costs: title and text of each counter of a run's status."""
_HEADLINES = (
    ("frechet_distance", "Closest to the real images"),
    ("coverage", "Covers most of the variety"),
    ("seconds_per_image", "Fastest to sample"),
)


@dataclass(frozen=True)
class Row:
    """One recipe in the table."""

    recipe: str
    metrics: dict[str, Summary]
    cost: dict[str, Summary]
    errors: list[str]


@dataclass(frozen=True)
class Quantity:
    """One line of the table, with a text and a mark per recipe."""

    title: str
    unit: str
    better: str
    reading: str
    texts: Sequence[str]
    marks: Sequence[str]

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑"}.get(self.better, "")


def read_comparison(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def table_row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """One recipe over its seeds, as plain data; a value that is not finite (null) makes no mean and is left out."""
    own = [entry for entry in entries if entry["recipe"] == name]
    found: dict[str, list[dict[str, Any]]] = {}
    for measurement in (m for entry in own for m in entry["measurements"] if m["value"] is not None):
        found.setdefault(measurement["name"], []).append(measurement)
    costs = {key: [e["status"][key] for e in own if key in e["status"]] for key in COST}
    return {
        "recipe": name,
        "errors": [f"Seed {entry['seed']}: {entry['error']}" for entry in own if entry["error"]],
        "metrics": {
            key: asdict(summarise([m["value"] for m in ms], ms[0]["stderr"], ms[0]["unit"]))
            for key, ms in found.items()
        },
        "cost": {key: asdict(summarise(values)) for key, values in costs.items() if values},
    }


def rows_of(comparison: dict[str, Any]) -> list[Row]:
    """The table that ``table_row`` wrote."""

    def summaries(table: dict[str, Any]) -> dict[str, Summary]:
        return {name: Summary(**cell | {"values": tuple(cell["values"])}) for name, cell in table.items()}

    return [
        Row(row["recipe"], summaries(row["metrics"]), summaries(row["cost"]), row["errors"])
        for row in comparison["table"]
    ]


def quality(rows: list[Row]) -> list[Quantity]:
    """What was measured, in the order of the measurements; costs of sampling last."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    ordered = [n for n in names if n not in SAMPLING_COST] + [n for n in names if n in SAMPLING_COST]
    lines = []
    for name in ordered:
        cells = [row.metrics.get(name) for row in rows]
        about = metric(name)
        texts, best = [cell_text(c) for c in cells], marks(cells, about.better)
        lines.append(
            Quantity(heading(about.title), unit_text(about), about.better, sentence(about.reading), texts, best)
        )
    return lines


def starved_runs(comparison: dict[str, Any]) -> list[str]:
    """A sentence for each run that other processes held up."""
    said = [(run, starvation(run["status"])) for run in comparison["runs"]]
    return [f"{run['recipe']}, seed {run['seed']}: {sentence}" for run, sentence in said if sentence]


def training_cost(rows: list[Row]) -> list[Quantity]:
    """What the training of one seed cost, as a mean over the seeds."""
    lines = []
    for name, (title, text) in COST.items():
        cells = [row.cost.get(name) for row in rows]
        if any(cells):
            texts = [text(cell.mean) if cell else "–" for cell in cells]
            lines.append(Quantity(title, "", "", "", texts, [""] * len(cells)))
    return lines


def write_comparison_report(folder: Path) -> Path:
    """Writes ``folder/report.html`` from the files of a comparison's folder and returns its path."""
    comparison = read_comparison(folder)
    rows = rows_of(comparison)
    plan = comparison["plan"]
    return write_page(
        folder / "report.html",
        "comparison.html",
        version=comparison["version"],
        title=f"{_listed([row.recipe for row in rows])} on {plan['data']}",
        plan=plan,
        budget=describe_budget(compute_budget(plan["budget"])),
        data=comparison["data"],
        rows=rows,
        errors=[f"{row.recipe}: {error}" for row in rows for error in row.errors],
        starved=starved_runs(comparison),
        unfinished=_unfinished(comparison),
        headlines=_headlines(rows),
        sheets=_sheets(folder, comparison, rows),
        quality=quality(rows),
        dots=_frechet_dots(rows),
        costs=training_cost(rows),
        overhead=_overhead(comparison["runs"]),
        plots=_plots(folder, comparison),
        protocols=_protocols(comparison["runs"]),
        runs=comparison["runs"],
        findings=_findings(folder, comparison["runs"]),
        configurations=_configurations(folder, comparison["runs"]),
        environment=comparison["environment"],
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _unfinished(comparison: dict[str, Any]) -> str:
    planned, done = comparison["n_runs"], sum(bool(run["measurements"]) for run in comparison["runs"])
    failed = sum(bool(run["error"]) for run in comparison["runs"])
    if done + failed < planned:
        return f"{done} of {planned} runs are trained and measured so far. The same command continues the comparison."
    return ""


def _headlines(rows: list[Row]) -> list[dict[str, str]]:
    """Who leads where, in one line each; a lead within the error bars is said to be one."""
    found = []
    for name, text in _HEADLINES:
        cells = [row.metrics.get(name) for row in rows]
        marked = marks(cells, metric(name).better)
        if "best" not in marked:
            continue
        leaders = [row.recipe for row, mark in zip(rows, marked, strict=True) if mark == "best"]
        tied = [row.recipe for row, mark in zip(rows, marked, strict=True) if mark == "tied"]
        value = cell_text(cells[marked.index("best")])
        note = f"{heading(metric(name).title)} {value}" + (f"; {_listed(tied)} within the error" if tied else "")
        found.append({"name": text, "value": _listed(leaders), "note": note})
    return found


def _sheets(folder: Path, comparison: dict[str, Any], rows: list[Row]) -> list[dict[str, Any]]:
    """The real images first, then each recipe's."""
    first_seed = {run["recipe"]: folder / run["folder"] for run in comparison["runs"] if run["seed"] == 0}
    named = [("Real examples", folder / "real")]
    named += [(row.recipe, first_seed.get(row.recipe, folder) / "sheet") for row in rows]
    shown = [
        {"name": name, "real": i == 0, "note": _sheet_note(rows, i), **_sheet(stem)}
        for i, (name, stem) in enumerate(named)
    ]
    return [sheet for sheet in shown if sheet["uri"] or sheet["text"]]


def _sheet(stem: Path) -> dict[str, str]:
    """The picture or the text of samples; both empty where there is neither."""
    picture, text = stem.with_suffix(".png"), stem.with_suffix(".txt")
    return {
        "uri": data_uri(picture.read_bytes()) if picture.is_file() else "",
        "text": text.read_text(encoding="utf-8") if text.is_file() else "",
    }


def _sheet_note(rows: list[Row], i: int) -> str:
    if i == 0:
        return "from the test split"
    summary = rows[i - 1].metrics.get("frechet_distance")
    return f"Fréchet distance {cell_text(summary)}" if summary else ""


def _frechet_dots(rows: list[Row]) -> Any:
    shown = [(row.recipe, cell) for row in rows if (cell := row.metrics.get("frechet_distance")) is not None]
    if len(shown) < 2:
        return None
    return dots(
        "Fréchet distance by recipe",
        [Dot(name, cell.mean, cell.stderr or 0.0) for name, cell in shown],
        "Fréchet distance (lower is better)",
        log_x=log_worthwhile([cell.mean for _, cell in shown]),
    )


def _overhead(runs: list[dict[str, Any]]) -> str:
    preparing = sum(run["seconds_preparing"] for run in runs)
    measuring = sum(run["seconds_measuring"] for run in runs)
    return f"{duration(preparing)} of preparing, drawing and saving and {duration(measuring)} of measuring"


def _plots(folder: Path, comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The losses of each recipe on axes of its own, one thin line per seed, over the unit of the budget."""
    ((unit, _),) = compute_budget(comparison["plan"]["budget"]).items()
    x = {"compute_seconds": "compute_seconds", "examples": "examples"}.get(unit, "step")
    panels: dict[str, Panel] = {}
    for run in comparison["runs"]:
        series = series_of(merged_steps(RunDir(folder / run["folder"]).metrics()), x)
        losses = {name.removesuffix("/loss"): s for name, s in series.items() if name.endswith("/loss")}
        for i, (player, (xs, ys)) in enumerate(losses.items()):
            title = run["recipe"] if len(losses) == 1 else f"{run['recipe']}: {player}"
            panel = panels.setdefault(
                title, Panel(title, x_label=x.replace("compute_seconds", "seconds of compute time"))
            )
            panel.series.append(CurveSeries(player, xs, ys, colour=i))
    for panel in panels.values():
        panel.log_y = log_worthwhile([y for series in panel.series for y in series.y])
    return [
        {"title": panel.title, "svg": curve(panel, 5.3 if len(panels) in (2, 4) else 3.4, 2.6)}
        for panel in panels.values()
    ]


def _protocols(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One protocol per metric: they are the same for all runs, or the comparison would have been refused."""
    first: dict[str, dict[str, Any]] = {}
    for run in runs:
        for m in run["measurements"]:
            first.setdefault(m["name"], m["protocol"])
    return [
        {"title": heading(metric(name).title), "protocol": protocol} for name, protocol in first.items() if protocol
    ]


def _findings(folder: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Beside each run what its diagnosis found; runs without findings are left out."""
    found = [
        {"run": f"{run['recipe']}, seed {run['seed']}", "findings": findings_of(folder / run["folder"])} for run in runs
    ]
    return [entry for entry in found if entry["findings"]]


def _configurations(folder: Path, runs: list[dict[str, Any]]) -> list[dict[str, str]]:
    files = [(run["recipe"], folder / run["folder"] / "run.toml") for run in runs if run["seed"] == 0]
    return [{"recipe": name, "text": file.read_text(encoding="utf-8")} for name, file in files if file.is_file()]
