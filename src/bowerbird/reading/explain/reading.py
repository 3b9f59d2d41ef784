"""A reading: seven steps made of blocks, each of which can be printed, drawn or sent, and traced to its facts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bowerbird.reading.exercised import Exercised
from bowerbird.reading.explain.cards import Card, Language
from bowerbird.reading.explain.diagram import Diagram
from bowerbird.reading.explain.text import Text
from bowerbird.reading.facts import FactStore
from bowerbird.reading.source import Source


@dataclass(frozen=True)
class Paragraph:
    text: Text


@dataclass(frozen=True)
class Items:
    """A list; ``ordered`` where the order means something."""

    items: tuple[Text, ...]
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]


@dataclass(frozen=True)
class Heading:
    text: Text


@dataclass(frozen=True)
class Formula:
    """An equation in plain symbols, with the fact that says why it stands here."""

    text: Text


@dataclass(frozen=True)
class Code:
    """Lines ``first``…``last`` of a file as they are; ``marked`` ones have a finding."""

    file: str
    first: int
    lines: tuple[str, ...]
    fact: str
    marked: tuple[tuple[int, str], ...] = ()
    """Line and severity."""

    @property
    def last(self) -> int:
        return self.first + len(self.lines) - 1


@dataclass(frozen=True)
class Figure:
    diagram: Diagram
    caption: Text


@dataclass(frozen=True)
class Output:
    """Words that the program printed."""

    words: str
    fact: str


@dataclass(frozen=True)
class Picture:
    """A picture that the program saved."""

    data: bytes = field(repr=False)
    mime: str
    name: str
    caption: Text
    fact: str


@dataclass(frozen=True)
class Spark:
    """How a number moved."""

    label: Text
    values: tuple[float, ...]
    fact: str


@dataclass(frozen=True)
class Advice:
    """A finding or a suggestion, with its diff and what the diff changed."""

    severity: str
    title: Text
    body: tuple[Text, ...]
    diff: str = ""
    fact: str = ""


@dataclass(frozen=True)
class Question:
    """A standing question that applies here, its answer folded."""

    card: Card
    why: Text
    fact: str


@dataclass(frozen=True)
class Told:
    """What a language model said of this step, and the verdict on it."""

    line: str
    status: str


Block = (
    Paragraph | Items | Table | Heading | Formula | Code | Figure | Output | Picture | Spark | Advice | Question | Told
)


@dataclass(frozen=True)
class Step:
    number: int
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Score:
    """How a model's claims fared."""

    verified: int
    total: int
    model: str


@dataclass(frozen=True)
class Reading:
    """``steps`` in the order of reading; everything that they print is in ``facts``."""

    title: Text
    lang: Language
    steps: tuple[Step, ...]
    source: Source = field(repr=False)
    facts: FactStore = field(repr=False)
    ran: bool = True
    """Whether the program's own modules ran."""
    exercised: Exercised | None = field(default=None, repr=False)
    score: Score | None = None

    def texts(self) -> Iterator[Text]:
        """Every text that a reader sees and that is no quotation of code or output."""
        yield self.title
        for step in self.steps:
            for block in step.blocks:
                yield from texts_of(block)

    def to_json(self) -> dict[str, Any]:
        cited = {fact for text in self.texts() for fact in text.facts}
        cited |= {
            b.fact for s in self.steps for b in s.blocks if isinstance(b, Code | Output | Picture | Question | Advice)
        }
        return {
            "title": self.title.to_json(),
            "lang": self.lang,
            "ran": self.ran,
            "exercised": None if self.exercised is None else self.exercised.to_json(),
            "steps": [
                {"number": s.number, "title": s.title, "blocks": [block_json(b) for b in s.blocks]} for s in self.steps
            ],
            "facts": [row for row in self.facts.to_json() if row["id"] in cited],
            "score": None if self.score is None else vars(self.score),
        }


def texts_of(block: Block) -> Iterator[Text]:
    """The texts of a block."""
    match block:
        case Paragraph(text) | Heading(text) | Formula(text):
            yield text
        case Items(items):
            yield from items
        case Table(_, rows):
            yield from (cell for row in rows for cell in row)
        case Figure(diagram, caption):
            yield caption
            yield from diagram.texts()
        case Picture():
            yield block.caption
        case Spark(label):
            yield label
        case Advice():
            yield block.title
            yield from block.body
        case Question():
            yield block.why
        case _:
            return


def block_json(block: Block) -> dict[str, Any]:
    """A block for machines; its kind is the name of its class in small letters."""
    row: dict[str, Any] = {"kind": type(block).__name__.lower()}
    match block:
        case Paragraph(text) | Heading(text) | Formula(text):
            row |= text.to_json()
        case Items(items, ordered):
            row |= {"items": [item.to_json() for item in items], "ordered": ordered}
        case Table(head, rows):
            row |= {"head": list(head), "rows": [[cell.to_json() for cell in cells] for cells in rows]}
        case Figure(diagram, caption):
            row |= {"caption": caption.to_json(), "mermaid": diagram.mermaid(), "svg": diagram.svg()}
        case Code():
            row |= {"file": block.file, "first": block.first, "last": block.last, "lines": list(block.lines)}
            row["fact"] = block.fact
        case Picture():
            row |= {
                "mime": block.mime,
                "caption": block.caption.to_json(),
                "bytes": len(block.data),
                "fact": block.fact,
            }
        case Spark(label, values, fact):
            row |= {"label": label.to_json(), "values": list(values), "fact": fact}
        case Output(words, fact):
            row |= {"text": words, "fact": fact}
        case Advice():
            row |= {"severity": block.severity, "title": block.title.to_json(), "diff": block.diff, "fact": block.fact}
            row["body"] = [text.to_json() for text in block.body]
        case Question(card, why, fact):
            row |= {"card": card.id, "why": why.to_json(), "fact": fact}
        case Told(line, status):
            row |= {"text": line, "status": status}
    return row
