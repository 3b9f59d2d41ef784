"""A topic: the path from the idea of a family or task to running, changing and measuring it; one TOML file each."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bowerbird.errors import unknown
from bowerbird.reading.explain.cards import Reference
from bowerbird.reading.wording import LANGUAGES, Both, Language, joined_lines, table

FOLDER = Path(__file__).with_name("topics")
ORDER: tuple[str, ...] = tuple(table(FOLDER.with_name("order.toml"))["topics"])

Kind = Literal["paper", "book", "course", "code"]


@dataclass(frozen=True)
class Equation:
    """A formula, and where this package computes it."""

    name: Both
    text: str
    """For the terminal."""
    latex: str
    ours: tuple[str, ...]
    """file:name, such as models/gan.py:minimax."""


@dataclass(frozen=True)
class Step:
    """A part of one of our files to read, and what to look for."""

    file: str
    names: tuple[str, ...]
    words: Both


@dataclass(frozen=True)
class Experiment:
    """Commands to run now, and what to look at; what to expect is what the named recipes promise."""

    commands: tuple[str, ...]
    recipes: tuple[str, ...]
    words: Both


@dataclass(frozen=True)
class Source:
    """A reference and why to read it."""

    kind: Kind
    reference: Reference
    why: Both


@dataclass(frozen=True)
class Topic:
    """Everything that a page about one subject says."""

    id: str
    titles: Both
    idea: dict[Language, tuple[str, ...]]
    """Paragraphs."""
    equations: tuple[Equation, ...]
    steps: tuple[Step, ...]
    experiment: Experiment | None
    cards: tuple[str, ...]
    sources: tuple[Source, ...]
    next: tuple[str, ...]

    def title(self, lang: Language = "en") -> str:
        return self.titles[lang]


@cache
def topics() -> dict[str, Topic]:
    """All topics by id, in the order in which to learn them."""
    return {id: _read(id) for id in ORDER}


def topic(id: str) -> Topic:
    """The topic of this id; BowerbirdError if there is none."""
    if id not in topics():
        raise unknown("topic", id, topics())
    return topics()[id]


def _read(id: str) -> Topic:
    row = table(FOLDER / f"{id}.toml")
    experiment = row.get("experiment")
    return Topic(
        id=id,
        titles=row["title"],
        idea={
            lang: tuple(joined_lines(p, lang) for p in row["idea"][lang].strip().split("\n\n")) for lang in LANGUAGES
        },
        equations=tuple(Equation(e["name"], e["text"], e["latex"], tuple(e["ours"])) for e in row["equation"]),
        steps=tuple(Step(s["file"], tuple(s["names"]), _words(s)) for s in row["step"]),
        experiment=experiment
        and Experiment(tuple(experiment["commands"]), tuple(experiment["recipes"]), _words(experiment)),
        cards=tuple(row["cards"]),
        sources=tuple(Source(s["kind"], Reference(s["text"], s.get("arxiv", "")), _words(s)) for s in row["reference"]),
        next=tuple(row["next"]),
    )


def _words(row: dict[str, Any]) -> Both:
    return {lang: row[lang] for lang in LANGUAGES}
