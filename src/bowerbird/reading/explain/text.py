"""Text that can only say what is known: numbers and names enter it through facts, and every one keeps its fact's id.

A template holds words and places, ``"{g} has {n:parameter}"``; a digit or a backtick in a template is refused when the
text is made, so that nothing can be printed that no fact holds.
"""

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bowerbird.reading.explain.cards import Language
from bowerbird.reading.facts import Fact

Kind = Literal["number", "name", "line", "quote", "general"]
"""``quote``: words of the program or of a finding; ``general``: knowledge that was not observed in the program."""

Path = str | int
_FORBIDDEN = re.compile(r"[0-9`]")
_BORDER = re.compile(r"[\u4e00-\u9fff][A-Za-z0-9`]|[A-Za-z0-9`%][\u4e00-\u9fff]")
"""Where Chinese meets what is not Chinese without a space."""


@dataclass(frozen=True)
class Ref:
    """Something printed that a fact holds."""

    shown: str
    fact: str
    kind: Kind
    value: Any = None
    file: str = ""
    """Of a line: the file that it is a line of."""

    def __str__(self) -> str:
        return f"`{self.shown}`" if self.kind == "name" else self.shown


@dataclass(frozen=True)
class Text:
    """Words and references in order."""

    parts: tuple["str | Ref", ...] = ()

    def __str__(self) -> str:
        return "".join(str(part) for part in self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __add__(self, other: "Text") -> "Text":
        return Text(self.parts + other.parts)

    @property
    def refs(self) -> list[Ref]:
        return [part for part in self.parts if isinstance(part, Ref)]

    @property
    def facts(self) -> list[str]:
        """The ids of the facts, each once, in order."""
        return list(dict.fromkeys(ref.fact for ref in self.refs))

    def spans(self) -> list[tuple[int, int, str]]:
        """Where in ``str(self)`` each reference stands, and its fact."""
        found, place = [], 0
        for part in self.parts:
            end = place + len(str(part))
            if isinstance(part, Ref):
                found.append((place, end, part.fact))
            place = end
        return found

    def to_json(self) -> dict[str, Any]:
        return {"text": str(self), "spans": [list(span) for span in self.spans()]}


Piece = Ref | Text


class Place(string.Formatter):
    """Parses templates; ``{n:file}`` asks for the noun in the number that fits."""


def value_of(fact: Fact, path: Sequence[Path]) -> Any:
    """What a fact holds at a path, None where it holds nothing there."""
    value = fact.value
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def figure(value: Any, form: str = "") -> str:
    """A number as it is printed: whole ones with separators, others to four figures."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if form == "%":
        return f"{100 * value:.3g} %"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}"
    if form == "exact":
        return f"{value:.7g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def number(fact: Fact, *path: Path, form: str = "") -> Ref:
    """A number of a fact."""
    value = value_of(fact, path)
    return Ref(figure(value, form), fact.id, "number", value)


def name(fact: Fact, *path: Path) -> Ref:
    """A name of a fact; without a path its subject."""
    value = value_of(fact, path) if path else fact.subject
    return Ref(str(value).replace("`", "'").replace("\n", " "), fact.id, "name", value)


def shape(fact: Fact, *path: Path) -> Ref:
    """The shape at a path: ``32×3×64×64``; of one number: ``()``."""
    value = value_of(fact, path)
    return Ref("×".join(str(n) for n in value) if value else "()", fact.id, "number", value)


def quote(fact: Fact, *path: Path, most: int = 400) -> Ref:
    """Words that a fact holds, as they are."""
    value = value_of(fact, path) if path else fact.subject
    words = " ".join(str(value).split())
    return Ref(words if len(words) <= most else words[: most - 1] + "…", fact.id, "quote", value)


def general(fact: Fact, words: str) -> Ref:
    """Knowledge that applies because of a fact, and was not observed: a card's sentence, an equation of a layer."""
    return Ref(" ".join(words.split()), fact.id, "general")


def made(template: str, lang: Language, given: dict[str, "Piece | Iterable[Piece]"]) -> Text:
    """The text of a template."""
    parts: list[str | Ref] = []
    for words, field, noun, _ in Place().parse(template):
        if _FORBIDDEN.search(words):
            raise ValueError(f"A template may hold no number and no name: {words!r}")
        parts.append(words)
        if field is not None:
            parts += _filled(given[field], lang, noun or "")
    return _text(parts, lang)


def _filled(piece: "Piece | Iterable[Piece]", lang: Language, noun: str) -> list[str | Ref]:
    if isinstance(piece, Ref):
        found: list[str | Ref] = [piece]
        if noun and lang == "en":
            found.append(f" {_plural(noun, piece.value)}")
        return found
    if isinstance(piece, Text):
        return list(piece.parts)
    return list(joined(list(piece), lang).parts)


def _plural(noun: str, value: Any) -> str:
    if value == 1:
        return noun.partition("/")[0]
    one, _, many = noun.partition("/")
    return many or f"{one}s"


def joined(pieces: Sequence[Piece], lang: Language) -> Text:
    """Pieces as a list in words: ``a, b and c``."""
    comma, final = (", ", " and ") if lang == "en" else ("、", "和")
    parts: list[str | Ref] = []
    for i, piece in enumerate(pieces):
        if i:
            parts.append(final if i == len(pieces) - 1 else comma)
        parts += [piece] if isinstance(piece, Ref) else piece.parts
    return _text(parts, lang)


def _text(parts: Iterable["str | Ref"], lang: Language) -> Text:
    """The parts that say something; in Chinese with a space between Chinese and what is not."""
    found: list[str | Ref] = []
    for part in parts:
        if lang == "zh" and found and _BORDER.fullmatch(str(found[-1])[-1:] + str(part)[:1]):
            found.append(" ")
        if part != "":
            found.append(part)
    return Text(tuple(found))
