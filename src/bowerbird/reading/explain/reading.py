"""A reading: seven steps made of blocks, each of which can be printed, drawn or sent, and traced to its facts."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from bowerbird.reading.exercised import Exercised
from bowerbird.reading.explain.cards import Card
from bowerbird.reading.explain.diagram import Diagram
from bowerbird.reading.explain.text import Text
from bowerbird.reading.facts import FactStore
from bowerbird.reading.source import Source
from bowerbird.reading.wording import Language


@dataclass(frozen=True)
class Paragraph:
    """``lead`` is what it is about, in a word or two before it."""

    text: Text
    lead: str = ""


@dataclass(frozen=True)
class Items:
    """A list; ``ordered`` where the order means something."""

    entries: tuple[Text, ...]
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
    """A finding, with its diff and what the diff changed."""

    severity: str
    title: Text
    body: tuple[Text, ...]
    diff: str = ""
    fact: str = ""


@dataclass(frozen=True)
class Question:
    """A standing question that applies here, its answer folded."""

    card: Card
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
    folded: bool = False
    """Whether a page shows it closed: what is looked up, not read."""


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
    exercised: Exercised = field(repr=False)
    score: Score | None = None

    @property
    def ran(self) -> bool:
        """Whether the program's own modules ran."""
        return self.exercised.ran

    @property
    def blocks(self) -> Iterator[Block]:
        return (block for step in self.steps for block in step.blocks)

    def texts(self) -> Iterator[Text]:
        """Every text that a reader sees and that is no quotation of code or output."""
        yield self.title
        for block in self.blocks:
            yield from _texts(block)

    @property
    def cited(self) -> list[dict[str, Any]]:
        """The facts that something in the reading rests on."""
        ids = {fact for text in self.texts() for fact in text.facts} | {getattr(b, "fact", "") for b in self.blocks}
        return [row for row in self.facts.to_json() if row["id"] in ids]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": _plain(self.title),
            "lang": self.lang,
            "ran": self.ran,
            "exercised": self.exercised.to_json(),
            "steps": [
                {"number": s.number, "title": s.title, "blocks": [block_json(b) for b in s.blocks]} for s in self.steps
            ],
            "facts": self.cited,
            "score": None if self.score is None else vars(self.score),
        }


def _texts(value: Any) -> Iterator[Text]:
    """The texts of a block, in order."""
    if isinstance(value, Text):
        yield value
    elif isinstance(value, tuple):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, Diagram):
        yield from value.texts()
    elif isinstance(value, Block):
        for part in fields(value):
            yield from _texts(getattr(value, part.name))


def block_json(block: Block) -> dict[str, Any]:
    """A block for machines; its kind is the name of its class in small letters."""
    row: dict[str, Any] = {"kind": type(block).__name__.lower()}
    for part in fields(block):
        value = _plain(getattr(block, part.name))
        row |= value if part.name in ("text", "diagram") else {part.name: value}
    return row


def _plain(value: Any) -> Any:
    match value:
        case Text():
            return {"text": str(value), "spans": [list(span) for span in value.spans()]}
        case Diagram():
            return {"mermaid": value.mermaid(), "svg": value.svg()}
        case Card():
            return value.id
        case bytes():
            return len(value)
        case tuple():
            return [_plain(entry) for entry in value]
    return value
