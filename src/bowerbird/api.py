"""The verbs of Bowerbird: the only door for the command line, the server and notebooks.

import bowerbird
run = bowerbird.train(bowerbird.config.load("flow"))
bowerbird.sample(run, n=64)
bowerbird.measure([str(run)])
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from bowerbird import config, machine, registry
from bowerbird.comparison import compare as compare_recipes
from bowerbird.data import open_data
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.measuring import draw, measure_folder, measure_model
from bowerbird.metrics.measurement import Measurement
from bowerbird.models.base import GenerativeModel
from bowerbird.report.pictures import picture, save_png, sheet
from bowerbird.report.run import write_run_report
from bowerbird.rundir import RunDir, explaining_full_disk, load_model, write_atomically
from bowerbird.trainer import resume as resume_run
from bowerbird.trainer import train as train_run

SHEET_IMAGES = 256


def info() -> dict[str, Any]:
    """This machine: processor, memory, accelerator, and whether bf16 is faster here."""
    return machine.describe()


def train(run: config.Run, out: Path | str | None = None, *, quiet: bool = False) -> Path:
    """Trains ``run`` into the folder ``out`` (default: a new one under runs/) and returns it."""
    folder = Path(out) if out else _new_folder(run)
    result = train_run(run, folder, quiet=quiet)
    return _finish(result.folder)


def resume(run_dir: Path | str, *, quiet: bool = False) -> Path:
    """Continues an interrupted run exactly; does nothing to a finished one."""
    result = resume_run(Path(run_dir), quiet=quiet)
    return _finish(result.folder)


def _finish(folder: Path) -> Path:
    with explaining_full_disk(folder):
        write_run_report(folder)
    return folder


def _new_folder(run: config.Run) -> Path:
    name = registry.families.name_of(type(run.model))
    taken = [
        int(m[1]) for p in Path("runs").glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))
    ]
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
    """Draws n samples into the folder ``out`` and returns it: a PNG each, metadata.jsonl, sheet.png.

    ``label`` is a class name of the training data.  ``options`` are the family's own (steps, sampler, guidance …);
    one that the family does not have is an error.  The folder can be measured, or trained on, as it is.
    """
    model, spec = load_model(run_dir)
    number = None if label is None else _class_number(spec.classes, label)
    drawn = draw(model, n, seed=seed, class_number=number, options=options)
    folder = Path(out) if out else Path(run_dir) / "samples" / f"seed-{seed}"
    with explaining_full_disk(folder):
        rows = []
        for i, image in enumerate(drawn.images):
            name = f"{i:05d}.png"
            row: dict[str, Any] = {"file_name": name, "generated_by": str(run_dir), "seed": seed}
            if drawn.label is not None:
                row["label"] = spec.classes[int(drawn.label[i])]
            save_png(folder / name, picture(image))
            rows.append(row)
        save_png(folder / "sheet.png", sheet(drawn.images[:SHEET_IMAGES]))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / "metadata.jsonl", lambda p: p.write_text(text, encoding="utf-8"))
    return folder


def _class_number(classes: tuple[str, ...], label: str) -> int:
    if not classes:
        raise BowerbirdError("This run was trained without labels, so --label means nothing to it.")
    if label not in classes:
        raise unknown("label", label, classes)
    return classes.index(label)


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
