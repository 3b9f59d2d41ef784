"""The writer: turns facts into sentences of one language, and keeps what belongs to a whole reading."""

from collections.abc import Iterable, Sequence

from bowerbird.reading.explain import cards
from bowerbird.reading.explain.cards import Language
from bowerbird.reading.explain.reading import Block, Code, Heading, Items, Paragraph, Question, Table
from bowerbird.reading.explain.study import Study
from bowerbird.reading.explain.text import Piece, Ref, Text, joined, made
from bowerbird.reading.facts import Fact

MOST_LINES = 60
_FAMILIES = ("gan", "vae", "diffusion", "transformer", "recurrent")


class Writer:
    """``say`` takes the sentence in both languages and what fills it."""

    def __init__(self, study: Study, lang: Language) -> None:
        self.study, self.lang = study, lang
        self._asked: set[str] = set()

    def say(self, en: str, zh: str, **given: Piece | Iterable[Piece]) -> Text:
        return made(en if self.lang == "en" else zh, self.lang, given)

    def said(self, en: str, zh: str, **given: Piece | Iterable[Piece]) -> Paragraph:
        return Paragraph(self.say(en, zh, **given))

    def heading(self, en: str, zh: str, **given: Piece | Iterable[Piece]) -> Heading:
        return Heading(self.say(en, zh, **given))

    def words(self, en: str, zh: str) -> str:
        return en if self.lang == "en" else zh

    def table(self, head: Sequence[tuple[str, str]], rows: Iterable[Sequence[Piece]]) -> Table:
        """``head`` in both languages."""
        cells = tuple(tuple(c if isinstance(c, Text) else Text((c,)) for c in row) for row in rows)
        return Table(tuple(self.words(*names) for names in head), cells)

    def items(self, texts: Iterable[Text], *, ordered: bool = False) -> list[Block]:
        found = tuple(texts)
        return [Items(found, ordered)] if found else []

    # ----------------------------------------------------------------------------------------------------- places

    def line(self, fact: Fact, line: int | None = None, file: str = "") -> Ref:
        """A line as a reader finds it; one that is not the fact's own stands in the fact's value."""
        number = line or fact.line or 1
        source = self.study.source
        words = source.where(number)
        if self.lang == "zh":
            words = f"第 {number} 行"
            for cell, start in reversed(source.cells):
                if number >= start:
                    words = f"第 {cell} 个单元第 {number - start + 1} 行"
                    break
        file = file or fact.file
        if file and file != self.study.file:
            words = f"{self.study.short(file)} {words}"
        return Ref(words, fact.id, "line", number, file)

    def lines(self, fact: Fact, numbers: Sequence[int]) -> Text:
        """Several lines of a fact's value, the first six."""
        return joined([self.line(fact, n) for n in numbers[:6]], self.lang)

    def excerpt(self, file: str, first: int, last: int, marked: Sequence[tuple[int, str]] = ()) -> Code | None:
        """Lines of a file as they stand; long ones are cut at their end."""
        lines = self.study.source.texts.get(file, "").splitlines()[first - 1 : min(last, first + MOST_LINES - 1)]
        if not lines:
            return None
        value = {"first": first, "last": first + len(lines) - 1}
        fact = self.study.add("source.excerpt", self.study.short(file), value, file=file, line=first)
        found = {
            (f.line, f.severity) for f in self.study.findings if f.severity in ("error", "warning") and f.file == file
        }
        marks = sorted({*found, *marked})
        return Code(file, first, tuple(lines), fact.id, tuple(m for m in marks if first <= m[0] < first + len(lines)))

    # ------------------------------------------------------------------------------------------------------ cards

    def concerns(self, card: str) -> bool:
        """Whether a card's subject is that of the program, or general."""
        subject = cards.get(card).subject
        family = self.study.facts.first("program.family")
        own = family.subject if family is not None else "other"
        return subject not in _FAMILIES or subject == own or {subject, own} == {"transformer", "recurrent"}

    def question(self, card: str, because: Fact, en: str = "", zh: str = "", **given: Piece) -> list[Block]:
        """A standing question with the fact for which it applies; each is asked once in a reading."""
        if card in self._asked:
            return []
        self._asked.add(card)
        fact = self.study.add("card.applies", card, {"because": because.id}, like=because, kind="static")
        return [Question(cards.get(card), self.say(en, zh, **given) if en else Text(), fact.id)]
