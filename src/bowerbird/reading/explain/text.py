"""Text that can only say what is known: numbers and names enter it through facts, and every one keeps its fact's id.

A template holds words and places, ``"{g} has {n:parameter}"``; a digit or a backtick in a template is refused when the
text is made, so that nothing can be printed that no fact holds.
"""

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, Literal

from bowerbird.reading.facts import Fact
from bowerbird.reading.wording import Language, sentences, table

Kind = Literal["number", "name", "line", "quote", "general"]
"""``quote``: words of the program or of a finding; ``general``: knowledge that was not observed in the program."""

Path = str | int
CLAUSES = sentences(File(__file__).with_name("facts.toml"))
MOST_VALUES = 5
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
    def plain(self) -> str:
        """The words without the marks of names."""
        return "".join(part.shown if isinstance(part, Ref) else part for part in self.parts)

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


def shapes(fact: Fact, side: Path) -> list[Ref]:
    """The shapes on one side of a call: of one tensor, or of the first six of several."""
    value = fact[str(side)]
    if isinstance(value, dict) and "shape" in value:
        return [shape(fact, side, "shape")]
    entries = value.items() if isinstance(value, dict) else enumerate(value or [])
    return [shape(fact, side, key, "shape") for key, part in entries if isinstance(part, dict) and "shape" in part][:6]


def quote(fact: Fact, *path: Path, most: int = 400) -> Ref:
    """Words that a fact holds, as they are."""
    value = value_of(fact, path) if path else fact.subject
    words = " ".join(str(value).split())
    return Ref(words if len(words) <= most else words[: most - 1] + "…", fact.id, "quote", value)


def large(fact: Fact, *path: Path) -> Ref:
    """A large number with its unit: ``23.7 M``."""
    value = value_of(fact, path)
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return Ref(f"{value / size:.3g} {unit}", fact.id, "number", value)
    return number(fact, *path)


_SHOWN: dict[str, Callable[[Fact, tuple[Path, ...]], Ref]] = {
    "q": lambda fact, path: quote(fact, *path, most=240),
    "n": lambda fact, path: name(fact, *path),
    "s": lambda fact, path: shape(fact, *path),
    "e": lambda fact, path: number(fact, *path, form="exact"),
    "p": lambda fact, path: number(fact, *path, form="%"),
    "o": lambda fact, path: large(fact, *path),
}
"""Ways to show a value: a quotation, a name, a shape, a number to seven figures, a percentage, with a unit; beside
them ``r``, a reason in words of ours."""
_TRUTH: dict[Language, tuple[str, str]] = {"en": ("no", "yes"), "zh": ("否", "是")}


def ours(fact: Fact, path: Sequence[Path], lang: Language) -> Ref:
    """A reason that the run gives in words of ours, in Chinese as ``reasons.toml`` has it."""
    words = str(value_of(fact, path))
    for en, zh in table(File(__file__).with_name("reasons.toml"))["reasons"] if lang == "zh" else ():
        words = re.sub(en, zh, words)
    return Ref(" ".join(words.split()), fact.id, "quote", value_of(fact, path))


def general(fact: Fact, words: str) -> Ref:
    """Knowledge that applies because of a fact, and was not observed: a card's sentence, an equation of a layer."""
    return Ref(" ".join(words.split()), fact.id, "general")


Given = Mapping[str, "Piece | Iterable[Piece]"]


def made(template: str, lang: Language, given: Given, fact: Fact | None = None) -> Text:
    """The text of a template; what is not given is taken from ``fact``.

    ``{n:file}`` asks for the noun in the number that fits, ``{n!q}`` for another way to show a value (``_SHOWN``).
    """
    parts: list[str | Ref] = []
    for words, place, noun, form in string.Formatter().parse(template):
        if _FORBIDDEN.search(words):
            raise ValueError(f"A template may hold no number and no name: {words!r}")
        parts.append(words)
        if place is not None:
            piece = given[place] if place in given or fact is None else piece_of(fact, place, form or "", lang)
            parts += _filled(piece, lang, noun or "")
    return _text(parts, lang)


def piece_of(fact: Fact, place: str, form: str, lang: Language) -> Piece:
    """What a fact holds at a place, ``losses.0.n``, shown as its kind is; ``subject`` is what the fact is about."""
    path: tuple[Path, ...] = tuple(int(p) if p.isdigit() else p for p in place.split(".") if p not in ("", "subject"))
    if form == "i":
        return joined(shapes(fact, *path), lang)
    if form == "r":
        return ours(fact, path, lang)
    if form or place == "subject":
        return _SHOWN[form or "n"](fact, path)
    value = value_of(fact, path)
    match value:
        case bool():
            return Text((_TRUTH[lang][value],))
        case list():
            return joined([name(fact, *path, i) for i in range(len(value))], lang)
        case dict():
            return joined([Ref(str(key), fact.id, "name", key) for key in value], lang)
        case int() | float() | None:
            return number(fact, *path)
    return name(fact, *path)


def told(fact: Fact, lang: Language, words: str = "") -> Text:
    """A fact as a clause, from ``facts.toml``; an experiment tells what it measured."""
    if fact.topic.startswith("property.") and fact.topic in CLAUSES:
        said = {"property": Text((CLAUSES[fact.topic][lang],))}
        return made(words or CLAUSES["other.holds" if fact["holds"] else "other.fails"][lang], lang, said, fact)
    topic = fact.topic if fact.topic in CLAUSES else "other.measured"
    values = list(_measured(fact, lang)) if topic != fact.topic else []
    topic = topic if topic == fact.topic or values else "other.plain"
    return made(words or CLAUSES[topic][lang], lang, {"values": joined(values, lang)}, fact)


def _measured(fact: Fact, lang: Language) -> Iterator[Ref]:
    """The plain entries of what a probe measured."""
    entries = fact.value.items() if isinstance(fact.value, dict) else ()
    plain = [(k, v) for k, v in entries if isinstance(v, bool | int | float) or (isinstance(v, str) and len(v) < 40)]
    known = [(CLAUSES.get(f"measured.{k}", {"en": k, "zh": ""})[lang], v) for k, v in plain]
    known = [(k, v) for k, v in known if k and (lang == "en" or not isinstance(v, str))]
    for key, value in known[:MOST_VALUES]:
        shown = _TRUTH[lang][value] if isinstance(value, bool) else figure(value)
        yield Ref(f"{key} = {shown}", fact.id, "quote", value)


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
