"""Training from the start, going on, and looking for a learning rate."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, machine, registry, trust
from bowerbird.api.judging import opened_again
from bowerbird.diagnosis import Watch
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.generating import previewer
from bowerbird.measuring.evaluating import evaluator
from bowerbird.media import open_data
from bowerbird.shipped import folder_of, runs
from bowerbird.training.budget import continued_budget, only, parse_budget
from bowerbird.training.rundir import RunDir, explaining_full_disk, require_apart
from bowerbird.training.trainer import is_finished
from bowerbird.training.trainer import resume as resume_run
from bowerbird.training.trainer import train as train_run

if TYPE_CHECKING:
    from bowerbird.diagnosis.sweep import Sweep


def train(
    run: config.Run | Path | str,
    out: Path | str | None = None,
    *,
    data: str | None = None,
    budget: str | None = None,
    start: Path | str | None = None,
    quiet: bool = False,
    allow_plugin: bool = False,
    **settings: Any,
) -> Path:
    """Trains a recipe into the folder ``out`` (default: a new one under runs/) and returns it.

    ``run`` is a recipe's name, a TOML file, or a ``config.Run``; ``data`` a built-in name or a path; ``budget`` the
    only budget, such as 60s or 500steps; ``start`` a run to take the initial weights from; further settings are named
    as on the command line: ``train("flow", data="photos", budget="60s", **{"train.lr": 1e-3})``.
    ``allow_plugin``: let the plugin run that the recipe names.  A start that fails leaves no folder.
    """
    run = run if isinstance(run, config.Run) else config.load(str(run), allow_plugin=allow_plugin)
    settings |= {key: str(value) for key, value in (("data.source", data), ("train.start", start)) if value is not None}
    if budget is not None:
        run = replace(run, train=replace(run.train, **only(parse_budget(budget))))
    run = _with_absolute_paths(config.with_settings(run, settings) if settings else run)
    require_apart(run.data.source, Path(out or "runs"))
    opened = open_data(run.data)
    with _folder(run, out) as folder, _reporting(folder):
        train_run(run, folder, opened, quiet=quiet, **_handed_in(run, opened))
    return folder


def _with_absolute_paths(run: config.Run) -> config.Run:
    """So that the run can be resumed from anywhere."""
    source, start = Path(run.data.source).expanduser(), folder_of(Path(run.train.start).expanduser())
    if source.exists():
        run = replace(run, data=replace(run.data, source=str(source.resolve())))
    return replace(run, train=replace(run.train, start=str(start.resolve()))) if run.train.start else run


def _handed_in(run: config.Run, data: Any) -> dict[str, Any]:
    """What the trainer is given besides the data: how to evaluate, to preview and to watch."""
    return {
        "evaluate": evaluator(data, run.train),
        "preview": previewer(data, run.train.seed),
        "observer": Watch(),
    }


def find_lr(run: config.Run, out: Path | str | None = None) -> "Sweep":
    """Tries growing learning rates for some steps, writes the curve into ``out`` (find-lr.png), suggests one."""
    from bowerbird.diagnosis.sweep import find_learning_rate, plot

    sweep = find_learning_rate(run)
    plot(sweep, Path(out or "runs") / "find-lr.png")
    return sweep


def resume(
    run_dir: Path | str,
    *,
    data: str | None = None,
    budget: str | None = None,
    device: str | None = None,
    accept_changes: bool = False,
    allow_plugin: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Path:
    """Continues a run exactly where its last checkpoint left it, and returns its folder.

    ``data`` is where the data have moved to; ``budget`` extends the training, also of a finished run: +10m and
    +500steps add to it, 500steps is the new total.  ``device`` and further settings, named as for ``train``, apply from
    here on.  BowerbirdError where run.toml or the data differ from those that it was trained with, unless
    ``accept_changes``.  Without a new budget, a finished run stays as it is.
    """
    rundir = RunDir.open(run_dir)
    folder = rundir.path
    if folder in runs().values():
        raise BowerbirdError(
            f"{run_dir} ships with Bowerbird and stays as it is; train a run of your own from its weights: "
            f"bowerbird train {rundir.run_toml} --start {run_dir}"
        )
    with trust.allowing(allow_plugin):
        there = rundir.config()
    settings |= {key: value for key, value in (("data.source", data), ("train.device", device)) if value is not None}
    run = config.with_settings(there, settings) if settings else there
    if budget is not None:
        run = replace(run, train=replace(run.train, **only(continued_budget(budget, rundir.status()))))
    run = _with_absolute_paths(run) if settings else run
    if run == there and is_finished(rundir):
        warnings.warn(
            f"{folder} is finished; to continue it, add for example --budget +500steps or --budget +10m.", stacklevel=2
        )
        _write_report(folder)
        return folder
    try:
        machine.resolve_device(run.train.device)
    except BowerbirdError as error:
        raise BowerbirdError(f"{error} To continue here: bowerbird resume {folder} --device auto") from error
    opened = opened_again(run.data, folder, f"bowerbird resume {folder} --data SRC")
    asked = None if run == there else run
    with _reporting(folder):
        resume_run(folder, opened, run=asked, accept_changes=accept_changes, quiet=quiet, **_handed_in(run, opened))
    return folder


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Writes the report of a run that is finished, and of one that failed: what was found stands in it."""
    try:
        yield
    except RunFailed:
        if (folder / "run.toml").is_file():
            with suppress(OSError):  # where the disk is full, the failure itself is what has to be said
                _write_report(folder)
        raise
    with explaining_full_disk(folder):
        _write_report(folder)


def _write_report(folder: Path) -> None:
    from bowerbird.report.run import write_run_report  # draws with matplotlib, which training does without

    write_run_report(folder)


@contextmanager
def _folder(run: config.Run, out: Path | str | None) -> Iterator[Path]:
    """The folder that was asked for, or a new one, which goes again if no run comes of it."""
    if out is not None:
        yield Path(out)
        return
    folder = _new_folder(registry.families.name_of(type(run.model)))
    try:
        yield folder
    finally:
        with suppress(OSError):  # they are not empty
            folder.rmdir()
            folder.parent.rmdir()


def _new_folder(name: str) -> Path:
    """The next free runs/NAME-001; of two trainings that start together, each makes its own."""
    runs = Path("runs")
    runs.mkdir(exist_ok=True)
    taken = [int(m[1]) for p in runs.glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))]
    for number in count(max(taken, default=0) + 1):
        with suppress(FileExistsError):
            (folder := runs / f"{name}-{number:03d}").mkdir()
            return folder
    raise AssertionError("unreachable")
