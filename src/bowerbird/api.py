"""The verbs of Bowerbird: the only door for the command line, the server and notebooks.

    import bowerbird
    run = bowerbird.train(bowerbird.config.load("flow"))
    bowerbird.sample(run, n=64)
    bowerbird.measure([str(run)])
"""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bowerbird import compare as comparison
from bowerbird import config, machine, registry
from bowerbird import measure as measuring
from bowerbird import train as trainer
from bowerbird.data import open_data
from bowerbird.data.spec import to_uint8
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import GenerativeModel
from bowerbird.report.pictures import save_png, sheet
from bowerbird.report.run import write_run_report
from bowerbird.rundir import RunDir, explaining_full_disk, load_model

SAMPLE_BATCH = 256


def info() -> dict[str, Any]:
    """This machine: processor, memory, accelerator, and whether bf16 is faster here."""
    return machine.describe()


def train(run: config.Run, out: Path | str | None = None, *, quiet: bool = False) -> Path:
    """Trains ``run`` into the folder ``out`` (default: a new one under runs/) and returns it."""
    folder = Path(out) if out else _new_folder(run)
    result = trainer.train(run, folder, quiet=quiet)
    return _finish(result.folder)


def resume(run_dir: Path | str, *, quiet: bool = False) -> Path:
    """Continues an interrupted run exactly; does nothing to a finished one."""
    result = trainer.resume(Path(run_dir), quiet=quiet)
    return _finish(result.folder)


def _finish(folder: Path) -> Path:
    with explaining_full_disk(folder):
        write_run_report(folder)
    return folder


def _new_folder(run: config.Run) -> Path:
    name = registry.families.name_of(type(run.model))
    taken = [int(m[1]) for p in Path("runs").glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))]
    return Path("runs") / f"{name}-{max(taken, default=0) + 1:03d}"


def load(run_dir: Path | str, device: str = "cpu") -> GenerativeModel:
    """The trained model of a run folder, with averaged weights, in eval mode."""
    return load_model(run_dir, device)[0]


def sample(
    run_dir: Path | str,
    *,
    n: int = 64,
    seed: int = 0,
    label: str | None = None,
    out: Path | str | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """Draws n samples and writes them, one PNG each, with sheet.png, into ``out``; returns that folder.

    ``label`` is a class name of the training data.  ``options`` are the family's own (steps, sampler, guidance …);
    one that the family does not have is an error.
    """
    if n < 1:
        raise BowerbirdError(f"The number of samples must be at least 1, not {n}.")
    model, spec = load_model(run_dir)
    options = options or {}
    check_options(model, options)
    number = None if label is None else _class_number(spec.classes, label)
    folder = Path(out) if out else Path(run_dir) / "samples" / f"seed-{seed}"
    generator = torch.Generator().manual_seed(seed)
    with explaining_full_disk(folder), torch.no_grad():
        folder.mkdir(parents=True, exist_ok=True)
        images = []
        for start in range(0, n, SAMPLE_BATCH):
            count = min(SAMPLE_BATCH, n - start)
            cond = None if number is None else torch.full((count,), number)
            images.append(to_uint8(model.sample(count, cond=cond, generator=generator, **options)).cpu())
        x = torch.cat(images)
        for i, image in enumerate(x):
            save_png(folder / f"{i:05d}.png", sheet(image[None], columns=1, scale=1))
        save_png(folder / "sheet.png", sheet(x[:256]))
    return folder


def _class_number(classes: tuple[str, ...], label: str) -> int:
    if not classes:
        raise BowerbirdError("This run was trained without labels, so --label means nothing to it.")
    if label not in classes:
        raise unknown("label", label, classes)
    return classes.index(label)


def check_options(model: GenerativeModel, options: dict[str, Any]) -> None:
    """Refuses sampling options that this family does not have."""
    known = set(inspect.signature(model.sample).parameters) - {"n", "cond", "generator"}
    for name in options:
        if name not in known:
            raise unknown(f"sampling option of {type(model).__name__}", name, known)


def measure(
    targets: list[str],
    *,
    against: str | None = None,
    metrics: list[str] | None = None,
    n_samples: int = 10_000,
    n_reference: int | None = None,
    extractor: str = "auto",
    split: str = "test",
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> dict[str, list[Measurement]]:
    """Measures run folders or folders of images against reference data, all under one protocol.

    ``against`` is a data source (default: the data that a run was trained on; required for folders of images).
    """
    results = {}
    for target in targets:
        if (Path(target) / "run.toml").is_file():
            run = RunDir.open(target).config()
            model, _ = load_model(target)
            check_options(model, options or {})
            data = open_data(replace(run.data, source=against) if against else run.data)
            results[target] = measuring.measure_model(
                model, data, n_samples=n_samples, n_reference=n_reference, split=split, extractor=extractor,
                metrics=metrics, seed=seed, sample_options=options or {},
            )  # fmt: skip
        elif against is None:
            raise BowerbirdError(f"{target} is not a run folder; to measure a folder of images say --against DATA.")
        else:
            results[target] = measuring.measure_folder(target, against, extractor=extractor, metrics=metrics)
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
    return comparison.compare(
        recipes, data=data, budget=budget, seeds=seeds, out=Path(out) if out else None, n_samples=n_samples
    )
