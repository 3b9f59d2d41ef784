"""Every export of every recipe beside the model that it was made of: the largest difference at two batch sizes.

    python benchmarks/export_parity.py [--recipes flow gan …] [--formats onnx …]

Weights are those of a seed, all of them moved by noise, so that no layer is zero as some are before training.  Recipes
whose data are not on this machine are left out, and say so.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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


def rows(recipe: str, formats: list[str], scratch: Path) -> Iterator[str]:
    family = registry.families.name_of(type(config.load(recipe).model))
    try:
        run = made(recipe, scratch / recipe)
    except BowerbirdError as error:
        yield f"| {recipe} | {family} | | | | | not tried: {error} |"
        return
    for to in formats:
        began = time.process_time()
        try:
            parity = prove(Trained(run), registry.exports.get(to)(), scratch / f"{recipe}-{to}", to)
        except BowerbirdError as error:
            yield f"| {recipe} | {family} | {to} | | | | {str(error).replace(str(run), 'RUN')} |"
            continue
        seconds = time.process_time() - began
        for one in parity:
            yield f"| {recipe} | {family} | {to} | {_numbers(one)} | {seconds:.0f} s |"


def _numbers(one: Parity) -> str:
    return f"{one.what} | {', '.join(map(str, one.batches))} | {one.difference:.1e} of {one.magnitude:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=config.recipe_names())
    parser.add_argument("--formats", nargs="+", default=registry.exports.names())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | family | format | part | rows per batch | largest difference of largest output | CPU time |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in asked.recipes:
            for row in rows(recipe, asked.formats, Path(scratch)):
                print(row)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
