"""Every export of every recipe beside the model that it was made of: the largest difference at two batch sizes.

    python benchmarks/export_parity.py [--recipes flow gan …] [--formats onnx …]

Weights are those of a seed, all of them moved by noise, so that no layer is zero as some are before training.  Recipes
whose data are not on this machine are left out, and say so.  The last table, families by formats, is that of
docs/export.md.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from bowerbird import config, machine, registry
from bowerbird.errors import BowerbirdError
from bowerbird.export import prove
from bowerbird.export.target import Parity, Trained
from bowerbird.media import open_data
from bowerbird.training.rundir import RunDir

NOISE = 0.02


def made(recipe: str, folder: Path) -> Path:
    """A run folder of the recipe as if it had been trained."""
    run = config.load(recipe)
    run = replace(run, train=replace(run.train, device="cpu"))
    data = open_data(run.data)
    torch.manual_seed(0)
    model = run.model.for_use().build(data.spec)
    weights = {k: v + NOISE * torch.randn_like(v) if v.is_floating_point() else v for k, v in model.weights().items()}
    weights = {k: v.abs() if k.endswith("running_var") else v for k, v in weights.items()}
    rundir = RunDir.create(folder, run, machine.describe() | {"data": data.summary(), "fingerprint": data.fingerprint})
    rundir.save_model(weights, data.spec, step=0)
    return folder


class Tried(NamedTuple):
    """One recipe in one format: how near its parts came, or why there is no export."""

    recipe: str
    family: str
    to: str
    parity: list[Parity]
    refusal: str = ""
    seconds: float = 0.0

    @property
    def lines(self) -> list[str]:
        if self.refusal:
            return [f"| {self.recipe} | {self.family} | {self.to} | | | {self.refusal} | |"]
        return [
            f"| {self.recipe} | {self.family} | {self.to} | {one.what} | {', '.join(map(str, one.batches))} | "
            f"{one.difference:.1e} of {one.magnitude:.3g} | {self.seconds:.0f} s |"
            for one in self.parity
        ]


def tried(recipe: str, formats: list[str], scratch: Path) -> Iterator[Tried]:
    family = registry.families.name_of(type(config.load(recipe).model))
    try:
        run = made(recipe, scratch / recipe)
    except BowerbirdError as error:
        yield Tried(recipe, family, "", [], f"not tried: {error}")
        return
    for to in formats:
        began = time.process_time()
        try:
            parity = prove(Trained(run), registry.exports.get(to)(), scratch / f"{recipe}-{to}", to)
        except BowerbirdError as error:
            yield Tried(recipe, family, to, [], str(error).replace(str(run), "RUN"))
            continue
        yield Tried(recipe, family, to, parity, seconds=time.process_time() - began)
        shutil.rmtree(scratch / f"{recipe}-{to}")


def table(found: list[Tried], formats: list[str]) -> Iterator[str]:
    """The largest difference of all parts and recipes of a family, for each format."""
    yield f"| family | recipes | {' | '.join(formats)} |"
    yield "|---" * (2 + len(formats)) + "|"
    for family in dict.fromkeys(one.family for one in found if one.to):
        own = [one for one in found if one.family == family]
        recipes = ", ".join(dict.fromkeys(one.recipe for one in own if one.to))
        cells = [_largest([p.difference for one in own if one.to == to for p in one.parity]) for to in formats]
        yield f"| {family} | {recipes} | {' | '.join(cells)} |"


def _largest(differences: list[float]) -> str:
    return f"{max(differences):.1e}" if any(differences) else "0" if differences else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=config.recipe_names())
    parser.add_argument("--formats", nargs="+", default=registry.exports.names())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | family | format | part | rows per batch | largest difference of largest output | CPU time |")
    print("|---|---|---|---|---|---|---|")
    found: list[Tried] = []
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in asked.recipes:
            for one in tried(recipe, asked.formats, Path(scratch)):
                found.append(one)
                print("\n".join(one.lines), flush=True)
    print("", *table(found, asked.formats), sep="\n")


if __name__ == "__main__":
    main()
