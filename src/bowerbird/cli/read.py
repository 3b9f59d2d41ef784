"""The commands that explain a program in seven steps, and that check what documentation says of code."""

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from bowerbird.cli.asking import Tutor
from bowerbird.cli.command import Command, Switch
from bowerbird.cli.printing import only_json
from bowerbird.errors import BowerbirdError


@dataclass(frozen=True, kw_only=True)
class Read(Command):
    """Explains a program of a generative model in seven steps, every number checked by running it."""

    target: Positional[str]
    """A Python file, a folder, a notebook, a recipe of ours (such as gan), or module:Class."""
    lang: Literal["en", "zh"] = "en"
    """Language of the reading."""
    html: Path | None = None
    """Write one self-contained page here."""
    md: Path | None = None
    """Write Markdown here; pictures go beside it."""
    measure: int = 6
    """How many settings are altered and run again (0: none)."""
    steps: int = 6
    """Optimiser steps that a training loop may take."""
    seconds: float = 12.0
    """CPU seconds of one execution of the program."""
    tutor: Annotated[Tutor, arg(name="")] = Tutor()
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        self.tutor.checked()
        if self.measure < 0 or self.steps < 1 or self.seconds <= 0:
            raise BowerbirdError("--measure must not be negative, --steps and --seconds must be above 0.")
        from bowerbird import api
        from bowerbird.reading.explain.show.render import html, markdown, terminal

        tutor = self.tutor
        with only_json(self.json):
            reading = api.read(
                self.target, lang=self.lang, measure=self.measure, steps=self.steps, seconds=self.seconds,
                llm=tutor.llm, model=tutor.model, small=tutor.small, context=tutor.context, cache=tutor.cache,
            )  # fmt: skip
        if self.html is not None:
            self.html.write_text(html(reading), encoding="utf-8")
        if self.md is not None:
            pictures = self.md.with_name(f"{self.md.stem}-pictures")
            self.md.write_text(markdown(reading, pictures), encoding="utf-8")
        for written in filter(None, (self.html, self.md)):
            print(f"wrote {written}", file=sys.stderr)
        if self.json:
            print(jsonlib.dumps(reading.to_json(), indent=2, ensure_ascii=False))
        elif self.html is None and self.md is None:
            print(terminal(reading, colour=sys.stdout.isatty()))


@dataclass(frozen=True, kw_only=True)
class Cite(Command):
    """Checks every file:line and quoted name in Markdown against the code of its repository."""

    targets: Positional[tuple[Path, ...]]
    """Markdown files, or folders with some."""
    root: Path | None = None
    """The repository (default: the one around the first page)."""
    json: Switch = False
    """Print JSON."""

    def __call__(self) -> None:
        from bowerbird.reading.cite import cite

        result = cite(self.targets, self.root)
        if self.json:
            print(jsonlib.dumps(result.to_json(), indent=2, ensure_ascii=False))
        else:
            print("\n".join(map(str, result.wrong)), end="\n" if result.wrong else "")
            checked = f"{result.citations} citations and {result.names} names were checked"
            print(
                f"{checked}; {len(result.wrong) or 'none'} of them {'is' if len(result.wrong) == 1 else 'are'} wrong."
            )
        if result.wrong:
            sys.exit(1)
