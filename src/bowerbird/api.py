"""The verbs of Bowerbird: the only door for the command line, the server and notebooks.

import bowerbird
run = bowerbird.train(bowerbird.config.load("flow"))
bowerbird.sample(run, n=64)
bowerbird.measure([str(run)])
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bowerbird import config, machine, registry
from bowerbird.comparison import compare as compare_recipes
from bowerbird.completing import Conversation
from bowerbird.data import open_data
from bowerbird.data.catalogue import RECORDS
from bowerbird.data.fetch import locate
from bowerbird.diagnosis import Finding, Watch, diagnose_run
from bowerbird.diagnosis.sweep import Sweep, find_learning_rate
from bowerbird.diagnosis.sweep import plot as plot_sweep
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.measuring import check_options, measure_folder, measure_model
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import GenerativeModel
from bowerbird.report.run import write_run_report
from bowerbird.rundir import RunDir, explaining_full_disk, load_model
from bowerbird.sampling import sample
from bowerbird.trainer import resume as resume_run
from bowerbird.trainer import train as train_run

__all__ = [
    "chat",
    "compare",
    "diagnose",
    "export",
    "import_model",
    "info",
    "load",
    "measure",
    "resume",
    "sample",
    "train",
]


def info() -> dict[str, Any]:
    """This machine: processor, memory, accelerator, and whether bf16 is faster here."""
    return machine.describe()


def train(run: config.Run, out: Path | str | None = None, *, quiet: bool = False) -> Path:
    """Trains ``run`` into the folder ``out`` (default: a new one under runs/) and returns it."""
    folder = Path(out) if out else _new_folder(run)
    if (source := Path(run.data.source).expanduser()).exists():  # so that the run can be resumed from anywhere
        run = replace(run, data=replace(run.data, source=str(source.resolve())))
    with _reporting(folder):
        train_run(run, folder, quiet=quiet, observer=Watch())
    return folder


def find_lr(run: config.Run, out: Path | str | None = None) -> Sweep:
    """Tries growing learning rates for some steps, writes the curve into ``out`` (find-lr.png), suggests one."""
    sweep = find_learning_rate(run)
    plot_sweep(sweep, Path(out or "runs") / "find-lr.png")
    return sweep


def resume(run_dir: Path | str, *, quiet: bool = False) -> Path:
    """Continues an interrupted run exactly; does nothing to a finished one."""
    with _reporting(Path(run_dir)):
        resume_run(Path(run_dir), quiet=quiet, observer=Watch())
    return Path(run_dir)


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    """Writes the report of a run that is finished, and of one that failed: what was found stands in it."""
    try:
        yield
    except RunFailed:
        if (folder / "run.toml").is_file():
            write_run_report(folder)
        raise
    with explaining_full_disk(folder):
        write_run_report(folder)


def _new_folder(run: config.Run) -> Path:
    name = registry.families.name_of(type(run.model))
    taken = [
        int(m[1]) for p in Path("runs").glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))
    ]
    return Path("runs") / f"{name}-{max(taken, default=0) + 1:03d}"


def load(run_dir: Path | str, device: str = "cpu") -> GenerativeModel:
    """The trained model of a run folder, with averaged weights, in eval mode."""
    return load_model(run_dir, device)[0]


def chat(
    run_dir: Path | str, *, system: str | None = None, seed: int = 0, options: dict[str, Any] | None = None
) -> Conversation:
    """A conversation with a run; ``answer(words)`` yields the model's answer piece by piece."""
    model = load(run_dir)
    check_options(model, options or {}, "complete")
    return Conversation(model, system=system, seed=seed, options=options)


def import_model(source: Path | str, out: Path | str | None = None) -> Path:
    """Makes a run folder of a pretrained language model and returns it.

    ``source`` is a folder in the Hugging Face layout, a GGUF file, or the name of weights that `data get` fetched.
    """
    from bowerbird.export import import_model as import_pretrained

    weights = [record.name for record in RECORDS if record.kind == "weights"]
    path = locate(str(source)) if str(source) in weights else Path(source)
    if path is None:
        raise BowerbirdError(f"The weights '{source}' are not on this machine yet; run: bowerbird data get {source}")
    return import_pretrained(path, Path(out) if out else Path("runs") / Path(source).stem)


def export(run_dir: Path | str, to: str, out: Path | str | None = None) -> Path:
    """Writes a run's model for other programs: ``to`` is huggingface (a folder) or gguf (a file)."""
    from bowerbird.export import export_model

    where = Path(run_dir) / "export" / ("model.gguf" if to == "gguf" else to)
    return export_model(Path(run_dir), Path(out) if out else where, to)


def diagnose(run_dir: Path | str) -> list[Finding]:
    """What went wrong with a run and what to do about it, roots first; empty when nothing was found."""
    return diagnose_run(run_dir)


def measure(
    targets: list[str],
    *,
    against: str | None = None,
    metrics: list[str] | None = None,
    n_samples: int | None = None,
    n_reference: int | None = None,
    extractor: str = "auto",
    split: str = "test",
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> dict[str, list[Measurement]]:
    """Measures run folders or folders of images against reference data, all under one protocol.

    ``against`` is a data source (default: the data that a run was trained on; required for folders of images).
    ``n_samples`` None draws 10,000 images, 200 texts or 20 pieces of music.
    """
    results = {}
    for target in targets:
        if (Path(target) / "run.toml").is_file():
            run = RunDir.open(target).config()
            model, _ = load_model(target)
            data = open_data(replace(run.data, source=against) if against else run.data)
            results[target] = measure_model(
                model, data, n_samples=n_samples, n_reference=n_reference, split=split, extractor=extractor,
                metrics=metrics, seed=seed, sample_options=options or {},
            )  # fmt: skip
        elif against is None:
            raise BowerbirdError(f"{target} is not a run folder; to measure a folder of images say --against DATA.")
        else:
            results[target] = measure_folder(
                target, against, split=split, n_reference=n_reference,
                extractor=extractor, metrics=metrics,
            )  # fmt: skip
    return results


def compare(
    recipes: list[str],
    *,
    data: str,
    budget: str,
    seeds: int = 1,
    out: Path | str | None = None,
    n_samples: int = 2000,
) -> Path:
    """Trains every recipe on the same data under one budget, measures all alike, and returns the report's path."""
    return compare_recipes(
        recipes, data=data, budget=budget, seeds=seeds, out=Path(out) if out else None, n_samples=n_samples
    )
