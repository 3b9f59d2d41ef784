"""A comparison: several recipes trained on the same data under one budget, measured under one protocol.

``out/`` holds a run folder per recipe and seed, ``report.json`` (all numbers) and ``report.html``.  Everything is
written as soon as it is known, so an interrupted comparison continues where it stopped: finished runs and their
measurements are kept, unfinished ones are resumed.  Runs follow one another.  A budget in time is counted in seconds of
computing, which are the same on a busy machine; preparing and measuring are outside the budget and are reported.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from bowerbird import __version__, config, machine, registry
from bowerbird.data.writing import write_text
from bowerbird.diagnosis import Watch
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.generating import preview, previewer
from bowerbird.measuring import engine, extractors
from bowerbird.measuring.evaluating import evaluator
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.selftest import require_quick
from bowerbird.measuring.trained import measure_model, require_applicable
from bowerbird.media import open_data
from bowerbird.media.image.sheets import column_per_class
from bowerbird.media.medium import Opened, medium
from bowerbird.metrics.measurement import CODE_VERSION, Measurement, require_comparable
from bowerbird.models.base import GenerativeModel
from bowerbird.report.comparison import table_row, write_comparison_report
from bowerbird.report.run import write_run_report
from bowerbird.report.terminal import print_comparison
from bowerbird.training import salvage
from bowerbird.training.budget import compute_budget, only
from bowerbird.training.rundir import RunDir, load_model, require_apart
from bowerbird.training.trainer import Interrupted, resume, train

SHEETS = (".png", ".txt", ".mid")
OURS = {"runs", "report.json", "report.html", *(f"real{suffix}" for suffix in (*SHEETS, ".wav"))}
"""What a comparison writes into its folder."""
LOG_EVERY = 10
"""Most steps between points of a curve: short budgets have few steps."""
_MACHINE_FIELDS = ("device", "precision", "threads")  # resolved by the trainer: no part of what a run is


@dataclass(frozen=True)
class Plan:
    """What a comparison consists of."""

    recipes: dict[str, config.Run]
    """By the name that the table shows; data and budget are those of the comparison."""
    data: str
    budget: str
    seeds: int
    measuring: Measuring
    """How each run is measured."""
    out: Path

    def runs(self) -> Iterator[tuple[str, int, config.Run]]:
        """Every recipe with seed 0 first, so that an early look already compares all of them."""
        for seed in range(self.seeds):
            for name, run in self.recipes.items():
                yield name, seed, replace(run, train=replace(run.train, seed=seed))

    def folder(self, name: str, seed: int) -> Path:
        return self.out / folder_name(name, seed)


def folder_name(name: str, seed: int) -> str:
    """Of a run, in the comparison's folder."""
    return f"runs/{name}-seed{seed}"


def compare(
    recipes: list[str],
    *,
    data: str,
    budget: str,
    seeds: int = 1,
    out: Path | None = None,
    measuring: Measuring = Measuring(n_samples=2000),
    quiet: bool = False,
) -> Path:
    """Trains every recipe on ``data`` for ``budget`` with ``seeds`` seeds, measures all alike; returns report.html.

    ``budget`` is a number with s, m, h, steps, examples or flops; seconds are of compute time: CPU time of all
    threads, or time on the accelerator.  Every run is measured as ``measuring`` says, against
    the test split unless it names another; its number of samples is of images (of sequences the default number is
    drawn).  ``out`` (default: a folder
    under runs/ named after the arguments) may hold an earlier part of the same comparison.  A run that fails (say, by a
    loss that is not finite) is shown as failed and does not end the comparison.  Raises ``BowerbirdError`` for wrong
    arguments, and for an ``out`` whose runs were made differently.
    """
    plan = _plan(recipes, data, budget, seeds, out, measuring)
    engine.require_known(measuring.metrics or ())
    extractors.require_known(measuring.extractor)
    require_quick()
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
    earlier = _earlier(plan)
    opened = {run.data: open_data(run.data) for run in plan.recipes.values()}
    for run in plan.recipes.values() if measuring.metrics is not None else ():
        with torch.device("meta"):
            model = run.model.build(opened[run.data].spec)
        require_applicable(model, opened[run.data], measuring)
    threads = _threads(plan)
    entries: list[dict[str, Any]] = []
    for number, (name, seed, run) in enumerate(plan.runs(), start=1):
        console.print(f"[bold]{number}/{len(plan.recipes) * plan.seeds}[/]  {escape(name)}, seed {seed}")
        run = replace(run, train=replace(run.train, threads=threads))
        before = earlier.get(folder_name(name, seed), {})
        try:
            entry = _one_run(plan, name, seed, run, opened[run.data], before, quiet)
        except Interrupted:
            console.print("The same command continues this comparison.")
            raise
        except BowerbirdError:
            _discard_empty(plan)
            raise
        entries.append(entry)
        if entry["error"]:
            console.print(f"  [red]failed[/]  {escape(entry['error'])}")
        _write(plan, entries, opened[run.data])
    if all(entry["error"] for entry in entries):
        raise RunFailed(f"Every run of the comparison failed; the first one because: {entries[0]['error']}")
    if not quiet:
        print_comparison(plan.out, Console(highlight=False))
    return plan.out / "report.html"


# ------------------------------------------------------------------------------------------- what to do


def _plan(recipes: list[str], data: str, budget: str, seeds: int, out: Path | None, measuring: Measuring) -> Plan:
    if not recipes or seeds < 1 or (measuring.n_samples or 2) < 2:
        raise BowerbirdError("A comparison needs at least one recipe, one seed and two samples.")
    limits = only(compute_budget(budget))
    runs: dict[str, config.Run] = {}
    for recipe in recipes:
        name, run = _name(recipe), config.load(recipe)
        if name in runs:
            raise BowerbirdError(f"The recipe '{name}' is named twice; rename one of the files to compare both.")
        same_data = config.Data(source=data, flip=run.data.flip)
        often = min(run.train.log_every, LOG_EVERY)
        budgeted = replace(run.train, **limits, log_every=often)
        runs[name] = replace(run, data=same_data, train=budgeted)
    folder = out or Path("runs") / "-".join(["compare", *runs, Path(data).stem or "data", budget.replace(" ", "")])
    return Plan(runs, data, budget, seeds, measuring, Path(folder))


def _name(recipe: str) -> str:
    """What the table calls a recipe: its name, or that of its file or run folder."""
    path = Path(recipe)
    return path.resolve().parent.name if path.name == "run.toml" else path.stem


def _earlier(plan: Plan) -> dict[str, dict[str, Any]]:
    """The runs of an earlier part of this comparison by folder, after a check that every one is part of the plan."""
    require_apart(plan.data, plan.out)
    _require_comparison(plan.out)
    for name, seed, run in plan.runs():
        folder = RunDir(plan.folder(name, seed))
        if folder.run_toml.is_file() and (different := _difference(folder.config(), run)):
            raise BowerbirdError(
                f"{folder.path} was made with another {different}; choose another --out to leave it as it is."
            )
    file = plan.out / "report.json"
    runs = salvage.objects(salvage.json_object(file).get("runs"))
    return {run["folder"]: run for run in runs if isinstance(run.get("folder"), str)}


def _require_comparison(out: Path) -> None:
    """BowerbirdError for a folder that holds anything but (the beginning of) a comparison."""
    if "runs" in salvage.json_object(out / "report.json"):
        return
    names = [path.name for path in out.iterdir()] if out.is_dir() else [out.name] if out.exists() else []
    strange = [name for name in names if name not in OURS]
    if strange:
        raise BowerbirdError(
            f"{out} is not empty and holds no comparison (but {min(strange)}); choose a new or empty folder for --out."
        )


def _discard_empty(plan: Plan) -> None:
    """Leaves nothing of a comparison that could not start."""
    with contextlib.suppress(OSError):  # they are not empty: something has been made
        (plan.out / "runs").rmdir()
        plan.out.rmdir()


def _threads(plan: Plan) -> int:
    """The same number for all runs: that of an earlier one, else the idle cores.

    Asked only once, because the machine still looks busy with one run when the next begins.
    """
    folders = [RunDir(plan.folder(name, seed)) for name, seed, _ in plan.runs()]
    earlier = [folder.config().train.threads for folder in folders if folder.run_toml.is_file()]
    return next(filter(None, earlier), None) or machine.idle_cores()


def _difference(found: config.Run, wanted: config.Run) -> str:
    """The first key in which two runs differ, machine settings aside; empty when they are the same run."""
    tables = []
    for run in (found, wanted):
        table = config.to_table(run)
        kept = {key: value for key, value in table["train"].items() if key not in _MACHINE_FIELDS}
        tables.append(config.flat({"model": table["model"], "data": table["data"], "train": kept}))
    return next((key for key in sorted(tables[0] | tables[1]) if tables[0].get(key) != tables[1].get(key)), "")


# ------------------------------------------------------------------------------------------- one run


def _one_run(
    plan: Plan, name: str, seed: int, run: config.Run, data: Opened, before: dict[str, Any], quiet: bool
) -> dict[str, Any]:
    """Trains and measures one run as far as that is not done yet, and says what it cost."""
    rundir = RunDir(plan.folder(name, seed))
    entry = {
        "recipe": name,
        "seed": seed,
        "folder": folder_name(name, seed),
        "error": "",
        "seconds_preparing": before.get("seconds_preparing", 0.0),
        "seconds_measuring": before.get("seconds_measuring", 0.0),
        "measurements": [],
    }
    try:
        entry["seconds_preparing"] += _train(rundir, run, data, quiet)
        entry["measurements"], seconds = _measure(plan, rundir, data)
        entry["seconds_measuring"] = seconds or entry["seconds_measuring"]
        if seed == 0:
            _draw_sheets(plan, rundir, data)
        write_run_report(rundir.path)
    except RunFailed as error:
        entry["error"] = str(error)
    return entry | {"status": rundir.status()}


def _train(rundir: RunDir, run: config.Run, data: Opened, quiet: bool) -> float:
    """Brings the run to its end; returns the seconds that this took beside the training itself."""
    start, trained = time.perf_counter(), rundir.status().get("seconds", 0.0)
    if rundir.status().get("finished"):
        return 0.0
    options: dict[str, Any] = {
        "quiet": quiet,
        "evaluate": evaluator(data, run.train),
        "preview": previewer(data, run.train.seed),
        "observer": Watch(),
    }
    there = rundir.run_toml.is_file()
    result = resume(rundir.path, data, **options) if there else train(run, rundir.path, data, **options)
    return max(0.0, time.perf_counter() - start - (result.seconds - trained))


def _measure(plan: Plan, rundir: RunDir, data: Opened) -> tuple[list[dict[str, Any]], float]:
    """The run's measurements and the seconds they took (0 when they were there already, under the same settings)."""
    request = plan.measuring
    settings = {"n_samples": request.n_samples, "extractor": request.extractor, "code_version": CODE_VERSION}
    settings |= request.changed() | ({"added_metrics": added} if (added := registry.metrics.added()) else {})
    file = rundir.path / "measurements.json"
    found = salvage.json_object(file)
    if found.get("settings") == settings and "measurements" in found:
        return found["measurements"], 0.0
    model = _model(rundir)
    start = time.perf_counter()
    n_samples = min(request.n_samples or 2000, medium(data.spec.medium).n_measured)
    measured = measure_model(model, data, request.but(n_samples=n_samples))
    seconds = time.perf_counter() - start
    measurements = [m.to_json() for m in measured]
    rundir.write_json(file.name, {"settings": settings, "measurements": measurements})
    return measurements, seconds


def _model(rundir: RunDir) -> GenerativeModel:
    """The trained model where it was trained, and as many threads as it had there."""
    trained = rundir.config().train
    torch.set_num_threads(trained.threads or torch.get_num_threads())
    model, _ = load_model(rundir.path, trained.device)
    return model


def _draw_sheets(plan: Plan, rundir: RunDir, data: Opened) -> None:
    """Samples of the run and real test examples at a glance, unless they are there."""
    real, own = plan.out / "real", rundir.path / "sheet"
    if not any(real.with_suffix(suffix).is_file() for suffix in SHEETS):
        medium(data.spec.medium).real(data, real)
    if not any(own.with_suffix(suffix).is_file() for suffix in SHEETS):
        preview(_model(rundir), data, own)


# ------------------------------------------------------------------------------------------- results


def _write(plan: Plan, entries: list[dict[str, Any]], data: Opened) -> None:
    """report.json and report.html of what is done so far."""
    _refuse_different_protocols(entries)
    comparison = {
        "version": __version__,
        "plan": {
            "recipes": list(plan.recipes),
            "data": Path(plan.data).name or plan.data,
            "budget": plan.budget,
            "seeds": plan.seeds,
            "n_samples": plan.measuring.n_samples,
            "extractor": plan.measuring.extractor,
            "column_per_class": column_per_class(data.spec),
        },
        "n_runs": len(plan.recipes) * plan.seeds,
        "data": {"source": plan.data, "summary": data.summary(), "fingerprint": data.fingerprint},
        "environment": machine.describe(),
        "runs": entries,
        "table": [table_row(name, entries) for name in plan.recipes if any(e["recipe"] == name for e in entries)],
    }
    text = json.dumps(comparison, indent=2, ensure_ascii=False) + "\n"
    write_text(plan.out / "report.json", text)
    write_comparison_report(plan.out)


def _refuse_different_protocols(entries: list[dict[str, Any]]) -> None:
    first: dict[str, Measurement] = {}
    for entry in entries:
        for table in entry["measurements"]:
            measurement = Measurement.from_json(table)
            require_comparable(first.setdefault(measurement.name, measurement), measurement)
