"""Trains the runs that ship with the package, measures them as they are shipped, and writes them.  ``make shipped``.

    python benchmarks/shipped.py [NAME …] [--runs runs/shipped] [--out src/bowerbird/shipped]

Together they take about an hour of one core.  A finished run in ``--runs`` is not trained again.  What ships is
run.toml, the weights in half precision, the tokenizer, and a README.  Each figure is measured on the weights as they
ship and as they were trained.  Exit status 1 when a figure misses its claim.
"""

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bowerbird import api, config
from bowerbird.data.catalogue import RECORDS
from bowerbird.data.tensorfile import read_header, read_tensors, write_tensors
from bowerbird.metrics.measurement import Measurement
from bowerbird.spec import IN_FILES
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import is_finished


@dataclass(frozen=True)
class Shipped:
    """A recipe, what is different from it, and what is claimed."""

    recipe: str
    claims: tuple[config.Expect, ...]
    settings: dict[str, object] = field(default_factory=dict)
    about: str = ""
    example: str = ""
    """Flags of ``bowerbird sample`` that show what it is for."""
    start: str = ""
    """A recipe that is trained first, from whose weights this one starts."""


def at_most(metric: str, value: float, n_samples: int = 10_000) -> config.Expect:
    return config.Expect(metric, at_most=value, n_samples=n_samples)


def at_least(metric: str, value: float, n_samples: int = 10_000) -> config.Expect:
    return config.Expect(metric, at_least=value, n_samples=n_samples)


SHIPPED = {
    "poem": Shipped(
        "poet",
        (at_least("text_form", 0.95, 200), at_most("nll_per_token", 5.1, 200), at_most("copied_share", 0.05, 200)),
        {"model.net.n_embd": 80},
        "Tang quatrains of five characters a line, in traditional Chinese, from a first line or from nothing.",
    ),
    "chorale": Shipped(
        "chorales",
        (at_most("nll_per_note", 1.9, 20), at_least("scale_consistency", 0.85, 20)),
        {"model.net.n_embd": 80, "model.net.dropout": 0.05, "train.examples": 24_000},
        "Chorales in four voices in the manner of Bach, in quarter notes.",
    ),
    "digits": Shipped(
        "flow",
        (at_least("class_accuracy", 0.98, 1000), at_most("frechet_distance", 4.0, 1000)),
        {"model.net.channels": 24},
        "Handwritten digits of the class asked for.",
    ),
    "emoji-3d": Shipped(
        "emoji-3d",
        (at_most("l1", 0.095), at_least("ssim_to_truth", 0.74)),
        {"model.net.channels": 12},
        "The 3-D version of a flat emoji, 64x64 pixels on white.",
    ),
    "emoji-text": Shipped(
        "emoji-text",
        (at_most("l1", 0.225), at_least("caption_retrieval", 0.75)),
        about="Emoji from a caption in English or Chinese, in four styles, 64x64 pixels on white.",
        example="--prompt panda --given style=noto",
        start="emoji-vae",
    ),
}


OF_DATA = ("data", "fingerprint")
"""Of environment.json: what labels say of the data; nothing of the machine."""


def trained(name: str, runs: Path) -> RunDir:
    """The finished run, trained now if it is not there."""
    made, folder = SHIPPED[name], runs / name
    if (folder / "run.toml").exists():
        if not is_finished(RunDir.open(folder)):
            api.resume(folder)
    else:
        run = config.with_settings(config.load(made.recipe), made.settings)
        start = begun(made.start, runs) if made.start else None
        api.train(replace(run, expect=made.claims), folder, start=start, **{"train.threads": 1})
    return RunDir.open(folder)


def begun(recipe: str, runs: Path) -> Path:
    """The finished run of a recipe that others start from."""
    folder = runs / recipe
    if not (folder / "run.toml").exists():
        api.train(recipe, folder, **{"train.threads": 1})
    return folder if is_finished(RunDir.open(folder)) else api.resume(folder)


def ship(source: RunDir, folder: Path) -> RunDir:
    """Copies what sampling needs, with weights of 16 bits."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("run.toml", *IN_FILES.values()):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    known = json.loads((source.path / "environment.json").read_text(encoding="utf-8"))
    RunDir(folder).write_json("environment.json", {name: known[name] for name in OF_DATA if name in known})
    halved = {name: halve(tensor) for name, tensor in read_tensors(source.model_file).items()}
    write_tensors(folder / "model.safetensors", halved, read_header(source.model_file))
    return RunDir.open(folder)


def halve(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def measured(folder: Path, claims: tuple[config.Expect, ...]) -> list[Measurement]:
    """All claims of a run are about samples of one number."""
    (first, *_) = claims
    names = [claim.metric for claim in claims]
    found = api.measure(folder, metrics=names, split=first.split, n_samples=first.n_samples, device="cpu")
    by_name = {one.name: one for one in found[str(folder)]}
    return [by_name[name] for name in names]


def claimed(name: str, source: RunDir, folder: RunDir) -> tuple[list[config.Expect], list[str]]:
    """The claims with what was measured, and a table row for each."""
    claims, rows = SHIPPED[name].claims, []
    shipped, full = measured(folder.path, claims), measured(source.path, claims)
    for claim, one, before in zip(claims, shipped, full, strict=True):
        bound = f"≤ {claim.at_most:g}" if claim.at_most is not None else f"≥ {claim.at_least:g}"
        unit = "" if one.unit == "1" else f" {one.unit}"
        rows.append(f"| {claim.metric} | {one.value:.4g}{unit} | {bound} | {before.value:.4g} |")
    values = [float(f"{one.value:.4g}") for one in shipped]
    known = {"minutes": minutes(source), "hardware": "one core, shared with other work"}
    return [replace(c, measured=value, **known) for c, value in zip(claims, values, strict=True)], rows


def minutes(source: RunDir) -> float:
    return round(source.status()["compute_seconds"] / 60, 1)


def readme(name: str, source: RunDir, folder: RunDir, rows: list[str]) -> str:
    made, run = SHIPPED[name], folder.config()
    record = next(record for record in RECORDS if record.name == run.data.source)
    changed = ", ".join(f"`{key} = {value}`" for key, value in made.settings.items()) or "nothing"
    before = f", begun from a run of `{made.start}`" if made.start else ""
    size = folder.model_file.stat().st_size / 1e6
    numbers = sum(tensor.numel() for tensor in read_tensors(folder.model_file).values())
    return "\n".join([
        f"# {name}", "", made.about, "", "```", " ".join(["bowerbird sample", name, made.example]).strip(), "```", "",
        f"- Recipe `{made.recipe}`, changed: {changed}{before}; {source.status()['examples']:,} examples, "
        f"{minutes(source):g} CPU minutes on one core.",
        f"- {numbers:,} numbers in float16, {size:.2f} MB.",
        f"- Data: `{run.data.source}` ({record.description}); licence: {record.licence}; the full text is in "
        f"`bowerbird/data/builtin/{run.data.source}.LICENCE.txt`.",
        "- Limits: small, and it has seen only the data above; it is here to be played with, not to be relied on.",
        "", "| figure, test split | measured | claimed | before rounding to float16 |", "|---|---|---|---|", *rows, "",
    ])  # fmt: skip


def make(name: str, runs: Path, out: Path) -> bool:
    source = trained(name, runs)
    folder = ship(source, out / name)
    claims, rows = claimed(name, source, folder)
    run = folder.config()  # what it started from is part of it, and its folder was on this machine
    folder.write_config(replace(run, expect=tuple(claims), train=replace(run.train, start="")))
    folder.write_text("README.md", readme(name, source, folder, rows))
    print(f"{name} ({minutes(source):g} CPU minutes)", *rows, sep="\n")
    return all(claim.met_by(claim.measured or 0.0) for claim in claims)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SHIPPED], help="which (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/shipped"))
    parser.add_argument("--out", type=Path, default=Path("src/bowerbird/shipped"))
    arguments = parser.parse_args()
    verdicts = [make(name, arguments.runs, arguments.out) for name in arguments.names or SHIPPED]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
